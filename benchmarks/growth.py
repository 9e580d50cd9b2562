"""Growth: the same work where there is more and more, in turns, so that only the amount differs."""

import itertools
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.clocks import Clocks
from benchmarks.contest import Call, Case, Contestant
from benchmarks.measuring import Plan, Result, compare
from benchmarks.repositories import TEXT, Workload, in_groups
from convostore import ConversationDocument, ConvoStore, MessageDocument, MongoSettings

APPENDS_OF_A_TURN = 25  # few, for they make the short conversation longer


async def with_length(ours: Workload, lengths: tuple[int, ...], plan: Plan, clocks: Clocks) -> list[Result]:
    """Compare the ends of conversations of several lengths."""
    for length in lengths:
        await _fill(ours, _long(length), length)
    work: dict[str, Any] = {
        "append": lambda at: lambda: ours.append(_long(at)),
        "newest 50": lambda at: lambda: ours.tenant.messages.history(_long(at), limit=50),
    }
    results = []
    for name, call in work.items():
        case = Case(name, tuple(Contestant(f"{at:,} messages", call(at), ours.settle) for at in lengths))
        results += await compare(case, 1, plan._replace(at_most=APPENDS_OF_A_TURN), clocks)
    return results


def _long(length: int) -> str:
    return f"long-{length}"


async def _fill(ours: Workload, conversation_id: str, messages: int) -> None:
    await ours.create_named(conversation_id)
    for start in range(0, messages, 5_000):
        batch = [MessageDocument.user(TEXT) for _ in range(min(5_000, messages - start))]
        await ours.tenant.messages.append_many(conversation_id, batch)


class _Crowd:
    """A database that so many tenants share evenly."""

    def __init__(self, store: ConvoStore, tenants: int, conversations: int) -> None:
        self._store = store
        self._places = [(f"t-{n % tenants}", f"c-{n}") for n in range(conversations)]
        self._turns = itertools.cycle(self._places)

    async def fill(self) -> None:
        """Create all conversations, each with a message."""
        await in_groups(map(self._begin, self._places))

    async def _begin(self, place: tuple[str, str]) -> None:
        tenant, conversation_id = self._store.tenant(place[0]), place[1]
        await tenant.conversations.create(ConversationDocument.start("u-1", conversation_id=conversation_id))
        await tenant.messages.append(conversation_id, MessageDocument.user(TEXT))

    def calls(self) -> dict[str, Call]:
        return {"get by id": self.get, "append": self.append, "newest 50": self.newest}

    def get(self) -> Awaitable[object]:
        tenant_id, conversation_id = next(self._turns)
        return self._store.tenant(tenant_id).conversations.get_by_id(conversation_id)

    def append(self) -> Awaitable[object]:
        tenant_id, conversation_id = next(self._turns)
        return self._store.tenant(tenant_id).messages.append(conversation_id, MessageDocument.user(TEXT))

    def newest(self) -> Awaitable[object]:
        tenant_id, conversation_id = next(self._turns)
        return self._store.tenant(tenant_id).messages.history(conversation_id, limit=50)

    async def settle(self) -> None:
        await self._store.mongodb.activity.flush()


async def with_tenants(settings: MongoSettings, numbers: tuple[int, ...], plan: Plan, clocks: Clocks) -> list[Result]:
    """Compare databases with equally many conversations, which belong to few tenants or to many."""
    async with AsyncExitStack() as stack:
        crowds = {}
        for tenants in numbers:
            own = settings.evolve(database_name=f"{settings.database_name}_{tenants}")
            store = await stack.enter_async_context(ConvoStore.open(own))
            crowds[tenants] = _Crowd(store, tenants, numbers[-1])
            await crowds[tenants].fill()
        return [
            result
            for callers in (1, 64)
            for case in _cases(crowds)
            for result in await compare(case, callers, plan, clocks)
        ]


def _cases(crowds: dict[int, _Crowd]) -> Iterator[Case]:
    for name in ("get by id", "append", "newest 50"):
        contestants = [
            Contestant(f"{tenants:,} tenants", crowd.calls()[name], crowd.settle) for tenants, crowd in crowds.items()
        ]
        yield Case(name, tuple(contestants))
