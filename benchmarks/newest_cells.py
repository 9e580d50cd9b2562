"""The newest messages of conversations through the cache, beside the same reads without it, and under a chat load."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from benchmarks import contest
from benchmarks.contest import Case, Contestant
from benchmarks.figures import percentile
from benchmarks.repositories import TEXT, in_groups
from convostore import ConversationDocument, ConvoStore, MessageDocument, MongoSettings, RedisSettings

NEWEST = 50
MESSAGES = 60  # in each conversation at first
CALLERS = 16


@asynccontextmanager
async def caching_stores(settings: MongoSettings, redis: RedisSettings) -> AsyncIterator[list[ConvoStore]]:
    """Open two stores that read newest messages through the cache, as two processes would."""
    async with AsyncExitStack() as stack:
        caching = redis.evolve(cache_messages=True)
        yield [await stack.enter_async_context(ConvoStore.open(settings, caching)) for _ in range(2)]


async def warm(store: ConvoStore, names: Sequence[str]) -> None:
    """Read each conversation until it comes from its cell."""
    if store.mongodb.newest is not None:
        await store.mongodb.newest.epoch.current()
    await in_groups(store.tenant("bench").messages.history(name, NEWEST) for name in names)


async def talk(store: ConvoStore, name: str) -> None:
    """Create a conversation with messages."""
    tenant = store.tenant("bench")
    await tenant.conversations.create(ConversationDocument.start("u-1", conversation_id=name))
    await tenant.messages.append_many(name, [MessageDocument.user(f"{n}: {TEXT}") for n in range(MESSAGES)])


class NewestCells:
    """The same reads with and without the cache.

    Args:
        plain, caching: the stores.
        several: conversations that are read in turn.
    """

    def __init__(self, plain: ConvoStore, caching: ConvoStore, several: int) -> None:
        self.plain, self.caching = plain, caching
        self.names = [f"several-{n}" for n in range(several)]
        self.numbers = itertools.count()

    async def prepare(self) -> None:
        """Write the conversations, and fill their cells."""
        await in_groups(talk(self.plain, name) for name in self.names)
        await warm(self.caching, self.names)

    def cases(self) -> Iterator[Case]:
        """Return the work: of one conversation, and of several in turn."""
        both = ((contest.UNCACHED, self.plain), (contest.OURS, self.caching))
        yield Case(contest.CELL, tuple(Contestant(who, lambda store=store: self.one(store)) for who, store in both))
        yield Case(contest.CELLS, tuple(Contestant(who, lambda store=store: self.next(store)) for who, store in both))

    async def one(self, store: ConvoStore) -> list[MessageDocument]:
        return (await store.tenant("bench").messages.history(self.names[0], NEWEST)).items

    async def next(self, store: ConvoStore) -> list[MessageDocument]:
        name = self.names[next(self.numbers) % len(self.names)]
        return (await store.tenant("bench").messages.history(name, NEWEST)).items


class ChatPlan(NamedTuple):
    """How much chat.

    Attributes:
        steps: of each phase: a read and two appends.
        talks: conversations.
    """

    steps: int
    talks: int = 1_000


@dataclass(slots=True)
class ChatPhase:
    """A part of the chat load.

    Attributes:
        is_warm: whether the cells were filled before.
        reads: how many there were; each is followed by two appends.
        loads: reads of the database for them.
        seconds: that it took.
        latencies: seconds of each read.
    """

    is_warm: bool
    reads: int
    loads: int
    seconds: float
    latencies: list[float]

    @property
    def name(self) -> str:
        """What it is called."""
        return "filled before" if self.is_warm else "empty at first"

    @property
    def share(self) -> float:
        """The part of the reads that went to the database."""
        return self.loads / self.reads

    @property
    def p50(self) -> float:
        """Seconds that a read took, the median."""
        return percentile(sorted(self.latencies), 0.5)


class ChatLoad:
    """Read the last messages, append a question, append an answer; conversations by Zipf, from two processes.

    Args:
        stores: of the processes, all in this one.
        plan: how much of it.
    """

    def __init__(self, stores: Sequence[ConvoStore], plan: ChatPlan) -> None:
        self.stores = stores
        self.steps = plan.steps
        self.random = random.Random(7)
        self.names = [f"talk-{n}" for n in range(plan.talks)]
        self.weights = list(itertools.accumulate(1 / rank for rank in range(1, plan.talks + 1)))

    async def run(self) -> list[ChatPhase]:
        """Let it go on twice: while the cells are filled, and once they are."""
        await in_groups(talk(self.stores[0], name) for name in self.names)
        for store in self.stores:
            await warm(store, [])
        cold = await self._phase(is_warm=False)
        await warm(self.stores[0], self.names)
        return [cold, await self._phase(is_warm=True)]

    async def _phase(self, *, is_warm: bool) -> ChatPhase:
        latencies: list[float] = []
        before, started = self._loads(), time.perf_counter()
        left = iter(range(self.steps))
        await asyncio.gather(*(self._caller(left, latencies) for _ in range(CALLERS)))
        seconds = time.perf_counter() - started
        return ChatPhase(is_warm, len(latencies), self._loads() - before, seconds, latencies)

    def _loads(self) -> int:
        return sum(store.mongodb.newest.statistics.loads for store in self.stores if store.mongodb.newest)

    async def _caller(self, left: Iterator[int], latencies: list[float]) -> None:
        for _ in left:
            (name,) = self.random.choices(self.names, cum_weights=self.weights)
            messages = self.random.choice(self.stores).tenant("bench").messages
            started = time.perf_counter()
            await messages.history(name, NEWEST)
            latencies.append(time.perf_counter() - started)
            await messages.append(name, MessageDocument.user(TEXT))
            await messages.append(name, MessageDocument.assistant(TEXT))
