"""Opened MongoDB databases, and the tenant that is current in a context."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from convostore.database.settings import MongoSettings
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.retry import RetryPolicy
from convostore.gateways.tenant_database import TenantDatabase
from convostore.repositories.exceptions import RepositoryError, ValidationError

_current: ContextVar[TenantDatabase | None] = ContextVar("convostore_tenant", default=None)


def open_mongodb(settings: MongoSettings, **policies: Any) -> MongoGateway:
    """Return the way to a database; the first call connects.

    Raises:
        ValidationError: there is no address, or it is not valid.
    """
    if settings.mongodb_uri is None:
        raise ValidationError("mongodb_uri: no address of a MongoDB server", "mongodb_uri")
    return MongoGateway.connect(
        settings.mongodb_uri.get_secret_value(),
        settings.database_name,
        settings.client_options(),
        deadline=settings.deadline,
        retry=RetryPolicy(attempts=settings.attempts),
        concurrency=max(1, settings.max_pool_size // 2),  # units of work are not held up by what waits for them
        **policies,
    )


@contextmanager
def current_tenant(database: TenantDatabase) -> Iterator[TenantDatabase]:
    """Make a tenant the current one of this context, for example for the time of a request."""
    token = _current.set(database)
    try:
        yield database
    finally:
        _current.reset(token)


async def get_mongodb() -> TenantDatabase:
    """Return the handle of the current tenant.

    Raises:
        RepositoryError: no tenant is current.
    """
    database = _current.get()
    if database is None:
        raise RepositoryError(
            "no tenant is current: enter `with store.tenant(tenant_id).current():` first, for example in a "
            "dependency of the request"
        )
    return database
