"""Pytest fixtures: real servers for a test run, a database of its own for each test.

``convostore_servers`` starts local servers, or takes those that ``CONVOSTORE_MONGODB_URI`` and ``CONVOSTORE_REDIS_URL``
name; ``convostore_settings`` leads to a fresh database, dropped after the test, ``convostore_redis_settings`` to the
Redis that all tests share; ``convostore_store`` is an open store on both.
"""

import importlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from convostore.database.local_servers import LocalServers, ServerAddresses
from convostore.database.settings import LOCAL_SESSION_KEY, MongoSettings, RedisSettings, variable
from convostore.store import ConvoStore


def _async_fixture() -> Any:
    try:
        return importlib.import_module("pytest_asyncio").fixture
    except ImportError:  # whoever uses AnyIO's plugin gets along with the ordinary decorator
        return pytest.fixture


@pytest.fixture(scope="session")
def convostore_servers() -> Iterator[ServerAddresses]:
    """The addresses of real servers, for the whole test run."""
    mongodb, redis = os.environ.get(variable("mongodb_uri")), os.environ.get(variable("redis_url"))
    if mongodb is not None:
        yield ServerAddresses(mongodb, redis or "")
        return
    servers = LocalServers.acquire_sync()
    try:
        yield servers.addresses
    finally:
        servers.release_sync()


@pytest.fixture
def convostore_settings(convostore_servers: ServerAddresses) -> MongoSettings:
    """Settings of a database that no other test uses."""
    name = f"test_{uuid.uuid4().hex[:20]}"
    return MongoSettings(mongodb_uri=SecretStr(convostore_servers.mongodb_uri), database_name=name)


@pytest.fixture
def convostore_redis_settings(convostore_servers: ServerAddresses) -> RedisSettings:
    """Settings of the Redis of all tests, patient, for a busy machine is no fault; tenants keep tests apart."""
    url = convostore_servers.redis_url
    if not url:
        return RedisSettings()
    key = SecretStr(LOCAL_SESSION_KEY)
    return RedisSettings(redis_url=SecretStr(url), redis_deadline=5, cache_deadline=5, session_key=key)


@_async_fixture()  # type: ignore[untyped-decorator]
async def convostore_store(
    convostore_settings: MongoSettings, convostore_redis_settings: RedisSettings
) -> AsyncIterator[ConvoStore]:
    """An open store on a database of its own, which is dropped afterwards."""
    async with ConvoStore.open(convostore_settings, convostore_redis_settings) as store:
        try:
            yield store
        finally:
            await store.mongodb.activity.flush()
            await store.mongodb.administration.drop_database()
