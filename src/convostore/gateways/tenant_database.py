"""The handle of one tenant: everything reached through it belongs to him."""

from typing import TYPE_CHECKING, Any

from convostore.gateways.tenant_collection import TenantCollection
from convostore.models.identity import check_identifier, join
from convostore.repositories.exceptions import TenantMismatchError

if TYPE_CHECKING:
    from convostore.gateways.lanes import Lanes
    from convostore.gateways.max_writer import MaxWriter
    from convostore.gateways.mongo_gateway import MongoGateway
    from convostore.gateways.retry import RetryPolicy
    from convostore.repositories.conversation_cache import ConversationCache
    from convostore.repositories.newest_cache import NewestCache


class TenantDatabase:
    """What a repository is given instead of a database.

    Attributes:
        tenant_id: whose data is reached.
    """

    def __init__(self, gateway: "MongoGateway", tenant_id: str) -> None:
        self.gateway = gateway
        self.tenant_id = tenant_id

    def collection(self, name: str, entity_type: str) -> TenantCollection:
        """Return the tenant's part of a collection."""
        return TenantCollection(self.gateway, name, self.tenant_id, entity_type)

    def identity(self, *components: str) -> str:
        """Return the identity of something of this tenant."""
        return join(self.tenant_id, *components)

    def check_tenant(self, tenant_id: str) -> None:
        """Make sure that a tenant named by a caller is this one.

        Raises:
            TenantMismatchError: it is another.
            ValidationError: it cannot be one.
        """
        if tenant_id != self.tenant_id:
            raise TenantMismatchError(self.tenant_id, check_identifier(tenant_id, "tenant_id"))

    @property
    def deadline(self) -> float:
        """Seconds that a call may take."""
        return self.gateway.deadline

    @property
    def retry(self) -> "RetryPolicy":
        """How repeatable calls are tried again."""
        return self.gateway.retry

    @property
    def activity(self) -> "MaxWriter":
        """The coalesced updates of the conversations' activity."""
        return self.gateway.activity

    @property
    def lanes(self) -> "Lanes[Any, Any]":
        """The order of this process's appends to each conversation."""
        return self.gateway.lanes

    @property
    def cached(self) -> "ConversationCache | None":
        """The cache that conversations are read through, if they are, and not in a unit of work."""
        return None if self.gateway.cached is None or self.in_transaction() else self.gateway.cached

    @property
    def newest(self) -> "NewestCache | None":
        """The cache that newest messages are read through, if they are, and not in a unit of work."""
        return None if self.gateway.newest is None or self.in_transaction() else self.gateway.newest

    def in_transaction(self) -> bool:
        """Say whether the present context is in a unit of work on this database."""
        return self.gateway.in_transaction()
