"""ConvoStore: opens the databases, hands out repositories, closes what it opened."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

from convostore.database.local_servers import LocalServers, default_data_directory
from convostore.database.mongodb import open_mongodb
from convostore.database.redis_client import RedisClients
from convostore.database.settings import MongoSettings, RedisSettings
from convostore.gateways.epoch_counter import EpochCounter
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.redis_probe import check
from convostore.logs import get_logger
from convostore.models.identity import check_identifier
from convostore.models.redis.rate_limits import RateLimitPolicy
from convostore.operations.erasing import Erasure
from convostore.operations.indexes import Schema, Step
from convostore.operations.retention import Retention
from convostore.repositories.cache_epoch import CacheEpoch
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.conversation_cache import ConversationCache
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    RepositoryError,
    ValidationError,
)
from convostore.repositories.newest_cache import NewestCache
from convostore.repositories.rate_limit_repository import RateLimitRepository
from convostore.repositories.session_repository import SessionRepository
from convostore.repositories.unit_of_work import UnitOfWork, in_transaction
from convostore.sync.changes import Changes
from convostore.sync.dispatcher import Dispatcher, Targets
from convostore.sync.feed import ChangeFeed
from convostore.sync.synchronizer import Synchronizer, SyncStatus
from convostore.sync.users import Users
from convostore.tenant_store import TenantStore

T = TypeVar("T")


class _OnRedis:
    """The repositories that live on Redis, and what concerns both stores."""

    def __init__(self, mongodb: MongoGateway, clients: RedisClients, policies: Sequence[RateLimitPolicy]) -> None:
        self.clients = clients
        self.sessions = SessionRepository(clients.state, clients.session_key)
        self.rate_limits = RateLimitRepository(clients.state, policies)
        self.cache = CacheRepository(clients.cache)
        self.dispatcher = Dispatcher(Targets(mongodb, self.sessions, self.cache))
        self.users = Users(mongodb, self.dispatcher)

    async def aclose(self) -> None:
        await self.cache.aclose()
        await self.clients.aclose()


class ConvoStore:
    """The way to everything that is stored.

    Args:
        mongodb: the way to MongoDB; closed by ``aclose``.
        redis: the ways to Redis, closed likewise; without them there are no sessions, limits and cache.
        policies: rate limits that are checked by their names.
        cache_conversations: whether conversations are read through the cache.
        cache_messages: whether the newest messages of conversations are.
    """

    def __init__(
        self,
        mongodb: MongoGateway,
        redis: RedisClients | None = None,
        policies: Sequence[RateLimitPolicy] = (),
        *,
        cache_conversations: bool = False,
        cache_messages: bool = False,
    ) -> None:
        self.mongodb = mongodb
        self.feed = ChangeFeed(mongodb)
        self._on_redis = None if redis is None else _OnRedis(mongodb, redis, policies)
        epoch = CacheEpoch(EpochCounter(mongodb))
        if cache_conversations:
            mongodb.cache_through(ConversationCache(self.redis.cache, mongodb, epoch))
        if cache_messages:
            mongodb.newest = NewestCache(self.redis.cache, mongodb, epoch)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: MongoSettings | None = None,
        redis_settings: RedisSettings | None = None,
        *,
        data: Path | None = None,
        policies: Sequence[RateLimitPolicy] = (),
        **given: Any,
    ) -> AsyncIterator[Self]:
        """Open the databases for the time of an ``async with``.

        Without any address, in the environment or given, local servers are started, for trying out. MongoDB has to
        answer; Redis need not, for what is stored in MongoDB goes on without it.

        Args:
            settings: all settings of MongoDB; by default those of the environment.
            redis_settings: all settings of Redis; by default those of the environment.
            data: directory of local servers; by default ``CONVOSTORE_DATA``.
            policies: rate limits that are checked by their names.
            given: single settings of both, which win over the environment.

        Raises:
            ValidationError: a setting is not valid.
            ConnectionError: MongoDB cannot be reached.
            RepositoryError: the database lacks indexes that the promises rest on.
        """
        for_redis = {name: given.pop(name) for name in RedisSettings.model_fields if name in given}
        settings = settings or MongoSettings.from_environment(**given)
        redis_settings = redis_settings or RedisSettings.from_environment(**for_redis)
        async with AsyncExitStack() as stack:
            if settings.mongodb_uri is None:
                servers = await stack.enter_async_context(await LocalServers.acquire(data or default_data_directory()))
                settings = settings.evolve(mongodb_uri=servers.addresses.mongodb_uri)
                redis_settings = redis_settings.with_local_server(servers.addresses.redis_url)
            redis = RedisClients.open(redis_settings) if redis_settings.redis_url else None
            store = cls(
                open_mongodb(settings),
                redis,
                policies,
                cache_conversations=redis_settings.cache_conversations,
                cache_messages=redis_settings.cache_messages,
            )
            stack.push_async_callback(store.aclose)
            await store.prepare()
            await store.check_redis()
            yield store

    @property
    def redis(self) -> RedisClients:
        """The ways to Redis.

        Raises:
            ValidationError: no address of one is known; the repositories on it raise it too.
        """
        return self._opened().clients

    @property
    def sessions(self) -> SessionRepository:
        """The sessions of all tenants."""
        return self._opened().sessions

    @property
    def rate_limits(self) -> RateLimitRepository:
        """The rate limits of all tenants."""
        return self._opened().rate_limits

    @property
    def cache(self) -> CacheRepository:
        """The cache of all tenants."""
        return self._opened().cache

    @property
    def users(self) -> Users:
        """What concerns a user in both stores: signing out, erasing."""
        return self._opened().users

    @property
    def dispatcher(self) -> Dispatcher:
        """Carries out what is in the outbox; the synchronizer runs it too."""
        return self._opened().dispatcher

    def _opened(self) -> _OnRedis:
        if self._on_redis is None:
            raise ValidationError("redis_url: no address of a Redis or Valkey server", "redis_url")
        return self._on_redis

    async def prepare(self) -> None:
        """Make sure of the collections and indexes: create them in a database that has none.

        Raises:
            RepositoryError: the database is in use and lacks some; creating them there is left to an operator.
        """
        schema = Schema(self.mongodb.administration)
        steps = await schema.plan()
        if steps and await self._is_unused(steps):
            await schema.apply(steps)
            steps = await schema.plan()
        if steps:
            missing = ", ".join(f"{step.kind} {step.collection} {step.name}".strip() for step in steps)
            raise RepositoryError(f"the database is not as convostore needs it ({missing}): see `convostore indexes`")

    async def check_redis(self) -> None:
        """Make sure that Redis, if it is used and answers, can do what is asked of it.

        Raises:
            RepositoryError: it is too old, runs no scripts, or is not what its address says.
        """
        if self._on_redis is None:
            return
        for gateway in (self.redis.state, self.redis.cache):
            try:
                await check(gateway)
            except ConnectionError as error:
                get_logger("redis").warning("redis is away", error=str(error))

    async def _is_unused(self, steps: Sequence[Step]) -> bool:
        """Say whether what lacks something is missing or empty: nobody has created it yet, or not to the end."""
        for name in {step.collection for step in steps}:
            async for _ in self.mongodb.administration.aggregate(name, [{"$limit": 1}]):
                return False
        return True

    def tenant(self, tenant_id: str) -> TenantStore:
        """Return the repositories of a tenant.

        Raises:
            ValidationError: it cannot be an identifier.
        """
        return TenantStore(self.mongodb.tenant(tenant_id), self.feed, self._clients)

    def changes(self, tenant_id: str, after: str | None = None) -> Changes:
        """Return what happens to a tenant, by whatever program, from now on or behind a cursor.

        All who follow in this process share one change stream. A follower who takes events more slowly than they
        happen holds up nobody but himself.

        Args:
            tenant_id: to whom.
            after: the ``cursor`` of an event, of this process or another, today or, as long as the database remembers,
                later.

        Raises:
            ValidationError: one of them cannot be right.
        """
        return self.feed.changes(check_identifier(tenant_id, "tenant_id"), after)

    def synchronizer(
        self, name: str = "cache", progress: Callable[[SyncStatus], None] = lambda _: None
    ) -> Synchronizer:
        """Return what keeps the cache in step with changes by other programs, as ``convostore sync`` does.

        Args:
            name: under which it is kept how far it has come; another one for each cache.
            progress: told of the status now and then.

        Raises:
            ValidationError: no Redis is known.
        """
        return Synchronizer(self.feed, self.cache, self.mongodb, name=name, progress=progress, outbox=self.dispatcher)

    def erasure(self, tenant_id: str, user_id: str | None = None, **options: Any) -> Erasure:
        """Return what erases a user, or a tenant, from both stores: ``await store.erasure("acme", "u-1").run()``.

        Args:
            tenant_id: whose data.
            user_id: of which user; None for the whole tenant.
            options: ``identifiers`` and ``progress`` of ``Erasure``.

        Raises:
            ValidationError: one of them cannot be right.
        """
        return Erasure(self.mongodb, self._clients, tenant_id, user_id, **options)

    def retention(self, tenant_id: str, older_than: timedelta) -> Retention:
        """Return what keeps data of a tenant no longer than an age, from an hour to a hundred years.

        Raises:
            ValidationError: one of them cannot be right.
        """
        return Retention(self.mongodb, self._clients, tenant_id, older_than)

    @property
    def _clients(self) -> RedisClients | None:
        return None if self._on_redis is None else self._on_redis.clients

    def transaction(self) -> UnitOfWork:
        """Return a unit of work for one attempt: ``async with store.transaction():``."""
        return UnitOfWork(self.mongodb)

    async def in_transaction(self, work: Callable[[UnitOfWork], Awaitable[T]]) -> T:
        """Do work in a unit of work, again if it ran into another one; join the unit that is open, if any.

        All of it must be committed by the deadline of a call: what takes long belongs before or behind it.

        Raises:
            DeadlineExceededError: time is over; nothing was applied, unless ``outcome`` says that it is unknown.
            RepositoryError: what the work or the commit raised.
        """
        return await in_transaction(self.mongodb, work)

    async def aclose(self) -> None:
        """End what follows, write what is pending and close all connections."""
        async with AsyncExitStack() as stack:  # each of them is closed, whatever becomes of those before
            stack.push_async_callback(self.mongodb.aclose)
            if self._on_redis is not None:
                stack.push_async_callback(self._on_redis.aclose)
            if self.mongodb.cached is not None:
                stack.push_async_callback(self.mongodb.cached.aclose)
            if self.mongodb.newest is not None:  # its appends leave activity to be told
                stack.push_async_callback(self.mongodb.newest.aclose)
            stack.push_async_callback(self.feed.aclose)
