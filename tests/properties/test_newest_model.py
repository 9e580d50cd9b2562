"""Newest messages through the cache against the log itself: whatever is done by whom, both tell the same."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from convostore import (
    ConversationDocument,
    ConvoStore,
    DeliveryStatus,
    EntityNotFoundError,
    MessageDocument,
    MongoSettings,
    RedisSettings,
)
from convostore.database.local_servers import ServerAddresses
from convostore.repositories.entity_spaces import NEWEST
from convostore.repositories.newest_slots import KEPT

CONVERSATION = "c"
PAGES = ((2, False), (50, False), (50, True), (KEPT, False))


class Place:
    """Two stores on one database and one Redis, as of two processes, and the loop they live in."""

    def __init__(self, runner: asyncio.Runner, stores: list[ConvoStore]) -> None:
        self.stores = stores
        self.runner = runner


@pytest.fixture(scope="module")
def place(convostore_servers: ServerAddresses) -> Iterator[Place]:
    """The stores for all examples of this module."""
    chosen = MongoSettings(
        mongodb_uri=SecretStr(convostore_servers.mongodb_uri), database_name=f"test_{uuid.uuid4().hex[:20]}"
    )
    redis = RedisSettings.from_environment({}, cache_deadline=5.0, cache_messages=True)
    redis = redis.with_local_server(convostore_servers.redis_url)

    async def opened(stack: AsyncExitStack) -> list[ConvoStore]:
        return [await stack.enter_async_context(ConvoStore.open(chosen, redis)) for _ in range(2)]

    async def closed(stack: AsyncExitStack, stores: list[ConvoStore]) -> None:
        await stores[0].mongodb.administration.drop_database()
        await stack.aclose()

    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        stores = runner.run(opened(stack))
        yield Place(runner, stores)
        runner.run(closed(stack, stores))


places = st.integers(0, 5)  # from the end
changes = st.one_of(
    st.tuples(st.just("append"), st.sampled_from([None, "k"])),
    st.tuples(st.just("append_many"), st.sampled_from([1, 2, 3, 45, KEPT + 1])),
    st.tuples(st.just("edit"), places),
    st.tuples(st.just("delete"), places),
    st.tuples(st.just("deliver"), places),
)
operations = st.one_of(
    changes,
    changes,
    st.tuples(st.just("unite"), st.tuples(st.lists(changes, max_size=3), st.booleans())),
    st.tuples(st.just("evict"), st.none()),
    st.tuples(st.just("close"), st.none()),
)


class UndoneError(Exception):
    """Ends a unit of work."""


class Writer:
    """One process that writes to the conversation; all that it writes is different."""

    def __init__(self, store: ConvoStore, tenant_id: str) -> None:
        self.store = store
        self.tenant = store.tenant(tenant_id)
        self.messages = self.tenant.messages
        self.number = 0

    def _new(self) -> MessageDocument:
        self.number += 1
        return MessageDocument.user(f"text {self.number}", payload={"$number": [self.number, 2**40, 0.5, None]})

    async def append(self, key: str | None) -> None:
        """Append a message, perhaps under a key that was used before."""
        message = MessageDocument.user("under a key") if key else self._new()
        await self.messages.append(CONVERSATION, message, idempotency_key=key)

    async def append_many(self, count: int) -> None:
        """Append several messages as one."""
        await self.messages.append_many(CONVERSATION, [self._new() for _ in range(count)])

    async def _at(self, place: int) -> int:
        return max(1, await self.messages.count({"conversation_id": CONVERSATION}) - place)

    async def edit(self, place: int) -> None:
        """Change a message that may be there."""
        sequence = await self._at(place)
        if await self.messages.get(CONVERSATION, sequence):
            await self.messages.edit(CONVERSATION, sequence, content=self._new().content)

    async def delete(self, place: int) -> None:
        """Delete a message that may be there."""
        await self.messages.delete(MessageDocument.identify(CONVERSATION, await self._at(place)))

    async def deliver(self, place: int) -> None:
        """Move the delivery of a message that may be there."""
        sequence = await self._at(place)
        if await self.messages.get(CONVERSATION, sequence):
            await self.messages.update_delivery_status(CONVERSATION, sequence, DeliveryStatus.READ)

    async def unite(self, plan: tuple[list[tuple[str, Any]], bool]) -> None:
        """Do several of them in a unit of work, which is undone or not."""
        with suppress(UndoneError):
            async with self.store.transaction():
                for name, argument in plan[0]:
                    await getattr(self, name)(argument)
                if not plan[1]:
                    raise UndoneError

    async def evict(self, _: None) -> None:
        """Let the cache forget the conversation."""
        await self.store.cache.delete(self.tenant.tenant_id, NEWEST, CONVERSATION)

    async def close(self, _: None) -> None:
        """Delete the conversation."""
        await self.tenant.conversations.delete(CONVERSATION)


async def compare(store: ConvoStore, tenant_id: str) -> None:
    """Make sure that every page tells the same from the cache and from the log."""
    messages = store.tenant(tenant_id).messages
    for limit, deleted in PAGES:
        told = await messages.history(CONVERSATION, limit, include_deleted=deleted)
        assert told == await messages.history(CONVERSATION, limit, include_deleted=deleted, fresh=True)
    for budget in ({"max_messages": 5}, {"max_tokens": 400}):
        told_in_window = await messages.window(CONVERSATION, **budget)
        assert told_in_window == await messages.window(CONVERSATION, **budget, fresh=True)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), operations), max_size=10))
def test_the_cache_and_the_log_tell_the_same_whatever_is_done(
    place: Place, plan: list[tuple[int, tuple[str, Any]]]
) -> None:
    async def carried_out() -> None:
        tenant_id = uuid.uuid4().hex
        writers = [Writer(store, tenant_id) for store in place.stores]
        await writers[0].tenant.conversations.create(ConversationDocument.start("u", conversation_id=CONVERSATION))
        for who, (name, argument) in plan:
            with suppress(EntityNotFoundError):  # once it is closed
                await getattr(writers[who], name)(argument)
            for store in place.stores:
                await compare(store, tenant_id)

    place.runner.run(carried_out())
