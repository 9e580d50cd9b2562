"""The suite: opens servers, data and contestants, and measures them part by part."""

import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import NamedTuple

from benchmarks import contest, growth, roster
from benchmarks.clocks import Clocks
from benchmarks.contest import Call, Case
from benchmarks.findings import Findings, Opened
from benchmarks.importing import measure_import
from benchmarks.machine import facts
from benchmarks.measuring import Plan, compare, forget_the_others, take_turn
from benchmarks.memory import weigh
from benchmarks.mongodb_cases import cases, check_same_work
from benchmarks.newest_cells import ChatLoad, ChatPlan, NewestCells, caching_stores
from benchmarks.open_loop import Load, OpenLoop, Tally
from benchmarks.overload import Plan as OverloadPlan
from benchmarks.overload import overload
from benchmarks.raw_driver import RawWorkload, driver_client
from benchmarks.redis_stores import RedisWorkload
from benchmarks.repositories import Workload
from convostore import ConvoStore, MongoSettings, RedisSettings
from convostore.database.local_servers import LocalServers, ServerAddresses
from convostore.gateways.redis_probe import probe
from convostore.operations.redis_stats import collect

CALLERS = (1, 16, 64, 256)
Say = Callable[[str], None]


class Size(NamedTuple):
    """How much is measured.

    Attributes:
        plan: of the closed loops.
        growth: of growth.
        loads: of the open loops.
        open_rounds: turns of each contestant under each load.
        overload: how thoroughly an overload is measured.
        lengths: of conversations.
        tenants: numbers of them; the last is the number of conversations too.
        operations: between the weighings.
        imports: rounds of the import.
        cells: conversations with newest messages in cells; more than a process remembers pages of.
        chat: how much of the chat load.
    """

    plan: Plan
    growth: Plan
    loads: tuple[Load, ...]
    open_rounds: int
    overload: OverloadPlan
    lengths: tuple[int, ...]
    tenants: tuple[int, ...]
    operations: int
    imports: int
    cells: int
    chat: ChatPlan


FULL = Size(
    plan=Plan(rounds=7, seconds=0.25, at_least=8),
    growth=Plan(rounds=12, seconds=0.15),
    loads=tuple(Load(rate, seconds=3) for rate in (500, 1_000, 2_500, 5_000, 10_000)),
    open_rounds=2,
    overload=OverloadPlan(100, before=8, during=20, after=10),
    lengths=(100, 1_000, 10_000, 200_000),
    tenants=(1, 100, 10_000),
    operations=10_000,
    imports=6,
    cells=200,
    chat=ChatPlan(5_000),
)
QUICK = Size(
    plan=Plan(rounds=4, seconds=0.1, at_least=5),
    growth=Plan(rounds=5, seconds=0.08),
    loads=tuple(Load(rate, seconds=1.5, patience=1) for rate in (1_000, 10_000)),
    open_rounds=1,
    overload=OverloadPlan(50, before=3, during=4, after=6),
    lengths=(100, 20_000),
    tenants=(1, 500),
    operations=2_000,
    imports=2,
    cells=200,
    chat=ChatPlan(1_000),
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What is wanted of the suite.

    Attributes:
        size: how much is measured.
        only: only the work whose name contains it.
        store: ``mongodb`` or ``redis``: only the work on this one; empty for both.
        callers: in the closed loops.
        peers: whether they take part.
        data: a file for the import, instead of what is made up.
    """

    size: Size = FULL
    only: str = ""
    store: str = ""
    callers: tuple[int, ...] = CALLERS
    peers: bool = True
    data: Path | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not (self.only or self.store or self.data) and self.callers == CALLERS and self.peers

    def takes(self, name: str, store: str) -> bool:
        """Say whether this work on this store is wanted."""
        return self.only in name and self.store in ("", store)


@dataclass(slots=True)
class Suite:
    """One run.

    Attributes:
        choice: what is wanted.
        addresses: of the servers.
        clocks: that see these servers.
        say: is told what goes on.
        findings: what was found so far.
    """

    choice: Choice
    addresses: ServerAddresses
    clocks: Clocks
    say: Say
    name: str = field(default_factory=lambda: f"bench_{uuid.uuid4().hex[:10]}")
    findings: Findings = field(default_factory=Findings)

    @property
    def settings(self) -> MongoSettings:
        """Settings of the database that is measured in."""
        return MongoSettings(mongodb_uri=self.addresses.mongodb_uri, database_name=self.name)

    async def run(self) -> None:
        """Measure what is wanted."""
        load = os.getloadavg()[0]
        redis = RedisSettings.from_environment({}, redis_deadline=5.0, cache_deadline=5.0)
        redis = redis.with_local_server(self.addresses.redis_url)
        async with ConvoStore.open(self.settings, redis) as store:
            self.findings.facts = await facts(store, (await probe(store.redis.state)).title, load)
            await self._loops(store)
            if not self.choice.store:
                await self._through_the_cache(store, redis)
            if not self.choice.only and self.choice.store != "redis":
                await self._growth(store)
        if not self.choice.only and self.choice.store != "redis":
            await self._memory()
        if self.choice.takes(contest.IMPORT, "mongodb"):
            self.say("import")
            self.findings.imports = await measure_import(self.settings, self.choice.size.imports, self.choice.data)

    async def _loops(self, store: ConvoStore) -> None:
        async with AsyncExitStack() as stack:
            everything = []
            if self.choice.store != "redis":
                everything += await stack.enter_async_context(self._on_mongodb(store))
            if self.choice.store != "mongodb":
                everything += await stack.enter_async_context(self._on_redis(store))
            wanted = [case for case in everything if self.choice.only in case.name]
            for case in wanted:
                await self._closed(case)
            for case in wanted:
                if case.name in (contest.GET, contest.APPEND_MANY):
                    await self._opened(case)
                    await self._overloaded(case)

    @asynccontextmanager
    async def _on_mongodb(self, store: ConvoStore) -> AsyncIterator[list[Case]]:
        self.say("preparing MongoDB")
        async with (
            driver_client(self.settings, zone=True) as client,
            driver_client(self.settings, zone=False) as naive,
            AsyncExitStack() as stack,
        ):
            ours, raw = Workload(store), RawWorkload(client, self.name)
            await ours.prepare()
            await raw.prepare()
            await check_same_work(ours, raw)
            made = cases(ours, raw, RawWorkload(naive, self.name))
            yield _joined(made, await _open_all(self._message_peers(), stack))

    @asynccontextmanager
    async def _on_redis(self, store: ConvoStore) -> AsyncIterator[list[Case]]:
        self.say("preparing Redis")
        async with AsyncExitStack() as stack:
            workload = RedisWorkload(store, self.addresses.redis_url)
            stack.push_async_callback(workload.aclose)
            await workload.prepare()
            openings = roster.redis_peers(self.addresses.redis_url) if self.choice.peers else {}
            yield _joined(workload.cases(), await _open_all(openings, stack))
            self.findings.keys = (await collect(store.redis.state)).kinds

    async def _through_the_cache(self, store: ConvoStore, redis: RedisSettings) -> None:
        async with caching_stores(self.settings, redis) as caching:
            cells = NewestCells(store, caching[0], self.choice.size.cells)
            wanted = [case for case in cells.cases() if self.choice.only in case.name]
            if wanted:
                self.say("filling cells")
                await cells.prepare()
            for case in wanted:
                await self._closed(case)
            if self.choice.only in contest.CHAT:
                self.say(contest.CHAT)
                self.findings.chat = await ChatLoad(caching, self.choice.size.chat).run()

    def _message_peers(self) -> dict[str, roster.Opening]:
        if not self.choice.peers:
            return {}
        on_mongodb = {name: partial(opening, self.settings) for name, opening in roster.mongodb_peers().items()}
        return on_mongodb | roster.message_peers_elsewhere(self.addresses.redis_url)

    async def _closed(self, case: Case) -> None:
        for callers in self.choice.callers:
            self.say(f"{case.name}, {callers} callers")
            self.findings.closed += await compare(case, callers, self.choice.size.plan, self.clocks)

    async def _opened(self, case: Case) -> None:
        both = [one for one in case.contestants if one.name in (contest.RAW, contest.OURS)]
        for one in both:  # open the connections
            await take_turn(one, CALLERS[-1], 1, self.clocks)
        for load in self.choice.size.loads:
            self.say(f"{case.name}, {load.rate:,} arrivals a second")
            tallies = [Tally() for _ in both]
            for _ in range(self.choice.size.open_rounds):
                for one, tally in zip(both, tallies, strict=True):
                    forget_the_others()
                    tally.add(await OpenLoop(one, load, self.clocks).run())
            self.findings.opened += [
                Opened(case.name, one.name, load, tally) for one, tally in zip(both, tallies, strict=True)
            ]

    async def _overloaded(self, case: Case) -> None:
        self.say(f"{case.name}, overload")
        ours = next(one for one in case.contestants if one.name == contest.OURS)
        self.findings.overloads.append(await overload(case.name, ours, self.choice.size.overload, self.clocks))

    async def _growth(self, store: ConvoStore) -> None:
        size = self.choice.size
        self.say("growth with the length of a conversation")
        self.findings.lengths = await growth.with_length(Workload(store), size.lengths, size.growth, self.clocks)
        self.say("growth with the number of tenants")
        self.findings.tenants = await growth.with_tenants(self.settings, size.tenants, size.growth, self.clocks)

    async def _memory(self) -> None:
        names = [contest.RAW, contest.OURS, *(roster.MONGODB_NAMES if self.choice.peers else ())]
        for name in names:
            self.say(f"memory of {name}")
            self.findings.weights.append(await weigh(name, self.settings, self.choice.size.operations))


async def _open_all(openings: dict[str, roster.Opening], stack: AsyncExitStack) -> dict[str, dict[str, Call]]:
    return {name: await stack.enter_async_context(opening()) for name, opening in openings.items()}


def _joined(made: Iterable[Case], peers: dict[str, dict[str, Call]]) -> list[Case]:
    """Return the cases with those peers who do such work."""
    return [reduce(lambda case, peer: case.joined_by(*peer), peers.items(), case) for case in made]


async def run(choice: Choice, say: Say) -> Findings:
    """Start servers, measure what is wanted, stop them."""
    async with await LocalServers.acquire() as servers:
        suite = Suite(choice, servers.addresses, Clocks.beside(servers), say)
        await suite.run()
        return suite.findings
