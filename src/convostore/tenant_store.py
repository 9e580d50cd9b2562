"""TenantStore: the repositories of one tenant."""

from collections.abc import Iterator
from contextlib import contextmanager

from convostore.database.mongodb import current_tenant
from convostore.database.redis_client import RedisClients, current_redis
from convostore.gateways.tenant_database import TenantDatabase
from convostore.repositories.conversation_repository import ConversationRepository
from convostore.repositories.message_repository import MessageRepository
from convostore.sync.changes import Changes
from convostore.sync.feed import ChangeFeed


class TenantStore:
    """The repositories of one tenant.

    Attributes:
        conversations: his conversations.
        messages: their messages.
    """

    def __init__(self, database: TenantDatabase, feed: ChangeFeed, redis: RedisClients | None = None) -> None:
        self._database = database
        self._feed = feed
        self._redis = redis
        self.conversations = ConversationRepository(database)
        self.messages = MessageRepository(database)

    @property
    def tenant_id(self) -> str:
        """Whose they are."""
        return self._database.tenant_id

    @property
    def database(self) -> TenantDatabase:
        """The handle that a repository is made from."""
        return self._database

    def changes(self, after: str | None = None) -> Changes:
        """Return what happens to this tenant, as ``ConvoStore.changes`` does."""
        return self._feed.changes(self.tenant_id, after)

    @contextmanager
    def current(self) -> Iterator[TenantDatabase]:
        """Make this tenant the one that ``get_conversation_repository()`` and its like answer for."""
        with current_tenant(self._database), current_redis(self._redis):
            yield self._database
