"""The whole checker: eight processes on one database and one Redis, whatever befalls them, and what their reads saw.

Four read and evict, one writes, one appends and has units of work, one writes and is killed again and again, one
writes past the library through the raw driver. A ninth synchronizes. Of those who write, the way to Redis loses one
invalidation in twenty. Loads are slow, callers are cancelled. Each call is noted as it ends (``call_log``).

Run as ``python cached_checker.py <plan as JSON>``: everything is a fork of it, so that none of them has to import.
"""

import asyncio
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from cached_support import usable
from checked_caches import CACHES, WRITE
from pydantic import SecretStr
from pymongo import AsyncMongoClient, ReturnDocument

from call_log import CallLog, Kind, judged, noted
from convostore import ConcurrencyError, ConversationDocument, ConvoStore, MessageDocument
from convostore.database.settings import MongoSettings, RedisSettings
from convostore.gateways.epoch_counter import EpochCounter
from convostore.gateways.redis_gateway import RedisGateway
from convostore.repositories.cache_epoch import CacheEpoch
from convostore.repositories.conversation_cache import SPACE
from convostore.repositories.exceptions import TransactionError
from convostore.repositories.told_cache import keys_of
from convostore.testing.proxy import Fault
from convostore.testing.redis_proxy import RedisProxy

TESTS = Path(__file__).parent.parent
CROWDS = {  # tasks of each kind
    "reader": {"read": 16, "evict": 1},
    "writer": {"write": 2, "read": 2},
    "appender": {"append": 1, "unite": 1, "read": 2},
    "victim": {"write": 2, "read": 2},
    "outsider": {"elsewhere": 1},
}
ROLES = (*["reader"] * 4, "writer", "appender", "victim", "outsider")
SYNCHRONIZER = len(ROLES)
LAG = 0.1


@dataclass(frozen=True)
class Plan:
    """What is to happen.

    Attributes:
        mongodb, database, redis: the servers.
        tenant: whose conversations.
        cache: the class of the cache.
        reads: of all readers together, at least.
        kills: of the process that is killed, at least.
        conversations: how many there are.
        lost: the part of the invalidations that is lost.
        near: whether each process keeps what it reads, which may be ``LAG`` seconds behind other processes; if
            ``blind``, it does not listen to what the server says of changes.
        lease: seconds that what is known of the epoch counts; a short one lets the cache be in use again soon.
        pause: seconds between two writes of a task, at most; a lost invalidation puts the cache out of use for a while.
        seed: of the random choices.
        limit: seconds after which every process ends.
    """

    mongodb: str
    database: str
    redis: str
    tenant: str
    cache: str
    reads: int
    kills: int = 2
    conversations: int = 16
    lost: float = 0.05
    near: str = ""
    lease: float = 0.2
    pause: float = 2.0
    seed: int = 11
    limit: int = 100


class Stage(IntEnum):
    """What all do at present."""

    WAIT = 0
    WORK = 1
    END = 2
    LOOK = 3


class Progress(IntEnum):
    """How far a process has come."""

    NONE = 0
    READY = 1
    ENOUGH = 2
    ENDED = 3


class Board:
    """What the processes tell each other, in memory that they share."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    @property
    def stage(self) -> Stage:
        return Stage(self._memory[0])

    @stage.setter
    def stage(self, stage: Stage) -> None:
        self._memory[0] = stage

    @property
    def has_lost(self) -> bool:
        """Whether an invalidation was lost of a process that lives to tell."""
        return bool(self._memory[-1])

    def note_loss(self) -> None:
        """Tell the others of one."""
        self._memory[-1] = 1

    def __getitem__(self, number: int) -> Progress:
        return Progress(self._memory[1 + number])

    def __setitem__(self, number: int, progress: Progress) -> None:
        self._memory[1 + number] = progress

    async def reached(self, stage: Stage) -> None:
        """Wait until all do this."""
        while self.stage < stage:  # noqa: ASYNC110 - it is set by another process
            await asyncio.sleep(0.01)


class Losses:
    """Loses a part of the invalidations for good: the first attempt, and the one that follows it."""

    def __init__(self, part: float, draw: random.Random) -> None:
        self._part, self._draw = part, draw
        self._second: Fault | None = None

    def __call__(self, name: str) -> Fault | None:
        if name != "DEL":
            return None
        if self._second is not None:
            fault, self._second = self._second, None
            return fault
        if self._draw.random() < self._part:
            self._second = self._draw.choice([Fault.CUT_BEFORE, Fault.CUT_BEFORE, Fault.CUT_AFTER])
        return self._second


class Worker:
    """One process."""

    def __init__(self, plan: Plan, number: int, board: Board, log: CallLog) -> None:
        self.plan, self.number, self.board, self.log = plan, number, board, log
        self.counts: Counter[str] = Counter()
        self._random = random.Random(f"{plan.seed} {number} {os.getpid()}")

    async def run(self, store: ConvoStore, raw: Any, truth: RedisGateway) -> Counter[str]:
        """Do what a process of its role does, and return how often."""
        self._store, self._raw, self._truth = store, raw.conversations, truth
        self._tenant, self._counter = store.tenant(self.plan.tenant), EpochCounter(store.mongodb)
        self.board[self.number] = max(self.board[self.number], Progress.READY)
        await self.board.reached(Stage.WORK)
        async with asyncio.TaskGroup() as tasks:
            for kind, count in CROWDS[ROLES[self.number]].items():
                for _ in range(count):
                    tasks.create_task(self._repeat(getattr(self, f"_{kind}")))
        await store.mongodb.activity.flush()
        self.board[self.number] = Progress.ENDED
        if ROLES[self.number] == "reader":
            await self.board.reached(Stage.LOOK)
            self.counts["stale"] = await self._count_stale()
        cached = store.mongodb.cached
        self.counts["near"] = getattr(self._store.redis.cache, "hits", 0)
        told = {"hits": cached.statistics.hits, "raises": cached.epoch.raised, "told": cached.told, "lost": cached.lost}
        return self.counts + Counter(told)

    async def _repeat(self, work: Callable[[int], Awaitable[None]]) -> None:
        while self.board.stage is Stage.WORK:
            # A few are hot, most are not.
            await work(int(self.plan.conversations * self._random.random() ** 2))
            if self._store.mongodb.cached.lost and ROLES[self.number] != "victim":
                self.board.note_loss()

    async def _read(self, entity: int) -> None:
        start = time.monotonic_ns()
        found = await self._unless_cancelled(self._tenant.conversations.get_by_id(f"c-{entity}"))
        if found is not None:
            self.log.note(Kind.READ, entity, start, found.version, found.message_count)
            self.counts["reads"] += 1
            if self.counts["reads"] == self.plan.reads // ROLES.count("reader"):
                self.board[self.number] = Progress.ENOUGH
        if self._random.random() < 0.2 or ROLES[self.number] != "reader":
            await asyncio.sleep(self._random.uniform(0, 0.004))

    async def _write(self, entity: int) -> None:
        cid, start = f"c-{entity}", time.monotonic_ns()
        with suppress(ConcurrencyError):
            read = await self._tenant.conversations.get_by_id(cid)
            written = await self._unless_cancelled(self._tenant.conversations.update(read.evolve(title="new")))
            if written is not None:
                self.log.note(Kind.WRITTEN, entity, start, written.version)
                self.counts["writes"] += 1
        await asyncio.sleep(self._random.uniform(0, self.plan.pause))

    async def _append(self, entity: int) -> None:
        start = time.monotonic_ns()
        message = await self._tenant.messages.append(f"c-{entity}", MessageDocument.user("hello"))
        self.log.note(Kind.APPENDED, entity, start, count=message.sequence)
        self.counts["appends"] += 1
        if self._random.random() < 0.3:
            await self._store.mongodb.activity.flush()
            await asyncio.sleep(self.plan.lease)  # where it could not be told, others may take so long to notice
            self.log.note(Kind.ACTIVE, entity, start, count=message.sequence)
        await asyncio.sleep(self._random.uniform(0, self.plan.pause))

    async def _unite(self, entity: int) -> None:
        cid, start = f"c-{entity}", time.monotonic_ns()

        async def work(_: Any) -> tuple[int, int]:
            read = await self._tenant.conversations.get_by_id(cid)
            sent = await self._tenant.messages.append(cid, MessageDocument.user("hello"))
            return (await self._tenant.conversations.update(read.evolve(title="united"))).version, sent.sequence

        with suppress(ConcurrencyError, TransactionError):
            version, sequence = await self._store.in_transaction(work)
            self.log.note(Kind.WRITTEN, entity, start, version)
            self.log.note(Kind.ACTIVE, entity, start, count=sequence)
            self.counts["units"] += 1
        await asyncio.sleep(self._random.uniform(0, self.plan.pause))

    async def _elsewhere(self, entity: int) -> None:
        """Write as a program that knows nothing of the library; some raise the version, some do not."""
        start, raises = time.monotonic_ns(), int(self._random.random() < 0.8)
        identity = self._tenant.database.identity(f"c-{entity}")
        change = {"$set": {"title": f"elsewhere {start}"}, "$inc": {"version": raises}}
        found = await self._raw.find_one_and_update({"_id": identity}, change, return_document=ReturnDocument.AFTER)
        self.log.note(Kind.ELSEWHERE, entity, start, found["version"])
        self.counts["elsewhere"] += 1
        await asyncio.sleep(self._random.uniform(0, self.plan.pause))

    async def _evict(self, entity: int) -> None:
        keys = keys_of(self._tenant.database.identity(f"c-{entity}"), (await self._counter.read()).numbers, SPACE)
        self.counts["evictions"] += await self._truth.command(WRITE, "DEL", *keys)
        await asyncio.sleep(self._random.uniform(0, 0.2))

    async def _unless_cancelled(self, call: Awaitable[Any]) -> Any:
        """Return what a call answers, or None if it was cancelled, which happens now and then."""
        if self._random.random() >= 0.05:
            return await call
        calling = asyncio.ensure_future(call)
        await asyncio.wait([calling], timeout=self._random.uniform(0, 0.01))
        if calling.done():
            return calling.result()
        calling.cancel()
        await asyncio.wait([calling])
        self.counts["cancelled"] += 1
        return None

    async def _count_stale(self) -> int:
        """Return how many conversations are told wrongly, when nobody writes any more."""
        stale, conversations = 0, self._tenant.conversations
        await usable(self._store)
        for number in range(self.plan.conversations):
            told = await conversations.get_by_id(f"c-{number}")
            stale += told != await conversations.get_by_id(f"c-{number}", fresh=True)
        return stale


@asynccontextmanager
async def _opened(plan: Plan, *, losing: bool = False) -> AsyncIterator[ConvoStore]:
    parts = urlsplit(plan.redis)
    mongodb = MongoSettings(mongodb_uri=SecretStr(plan.mongodb), database_name=plan.database)
    async with AsyncExitStack() as stack:
        url = plan.redis
        if losing:
            proxy = await stack.enter_async_context(RedisProxy(str(parts.hostname), int(parts.port or 0)))
            proxy.rule, url = Losses(plan.lost, random.Random(f"{plan.seed} {os.getpid()}")), proxy.url
        room = 1_000_000 if plan.near else 0
        redis = RedisSettings(
            redis_url=SecretStr(url), cache_deadline=1, breaker_pause=0.02, near_cache_bytes=room, near_cache_lag=LAG
        )
        store = await stack.enter_async_context(ConvoStore.open(mongodb, redis))
        if plan.near == "blind":
            store.redis.cache.tracking._changed = lambda _: None
        epoch = CacheEpoch(EpochCounter(store.mongodb), plan.lease)
        store.mongodb.cache_through(CACHES[plan.cache](store.redis.cache, store.mongodb, epoch))
        yield store


async def _work(plan: Plan, number: int, board: Board, place: Path) -> None:
    log = CallLog(place / f"{number}.calls", number, lasting=ROLES[number] != "reader")
    truth = RedisGateway.connect(plan.redis, deadline=10)
    losing = bool(plan.lost) and ROLES[number] in ("writer", "appender", "victim")
    async with AsyncMongoClient(plan.mongodb) as raw, _opened(plan, losing=losing) as store:
        counts = await Worker(plan, number, board, log).run(store, raw[plan.database], truth)
    await truth.aclose()
    log.close()
    (place / f"{number}.counts").write_text(json.dumps(counts))


async def _synchronize(plan: Plan, board: Board) -> None:
    async with _opened(plan) as store:
        running = asyncio.create_task(store.synchronizer().run())
        board[SYNCHRONIZER] = Progress.READY
        await board.reached(Stage.LOOK)
        running.cancel()
        await asyncio.wait([running])


async def _prepare(plan: Plan) -> None:
    async with _opened(plan) as store:
        for number in range(plan.conversations):
            new = ConversationDocument.start(user_id="u", conversation_id=f"c-{number}")
            await store.tenant(plan.tenant).conversations.create(new)
        await store.synchronizer().run_once()


async def _settle(plan: Plan) -> None:
    async with _opened(plan) as store:
        await store.synchronizer().run_once()


class Processes:
    """The forks of this program."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.board, self.kills = plan, Board(), 0
        self._pids: dict[int, int] = {}

    def run(self, place: Path) -> None:
        """Let them loose until there are enough reads, kills and losses, then end them all."""
        try:
            self._run(place)
        finally:
            for pid in self._pids.values():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _run(self, place: Path) -> None:
        self._alone(_prepare(self.plan))
        for number in range(len(ROLES)):
            self._fork(number, _work(self.plan, number, self.board, place))
        self._fork(SYNCHRONIZER, _synchronize(self.plan, self.board))
        self._wait(Progress.READY, [*range(len(ROLES)), SYNCHRONIZER])
        self.board.stage = Stage.WORK
        self._kill_at_random(place)
        self.board.stage = Stage.END
        self._wait(Progress.ENDED, range(len(ROLES)))
        self._alone(_settle(self.plan))
        self.board.stage = Stage.LOOK
        for number in list(self._pids):
            self._ended(number)

    def _kill_at_random(self, place: Path) -> None:
        draw, victim = random.Random(self.plan.seed), ROLES.index("victim")
        readers = [number for number, role in enumerate(ROLES) if role == "reader"]
        while (
            self.kills < self.plan.kills
            or any(self.board[each] < Progress.ENOUGH for each in readers)
            or (self.plan.lost and not self.board.has_lost)
        ):
            time.sleep(draw.uniform(0.05, 1.0))
            self._look_for_deaths()
            if self.board[victim] < Progress.READY:
                continue  # the last one is not there yet
            os.kill(self._pids[victim], signal.SIGKILL)
            os.waitpid(self._pids.pop(victim), 0)
            self.kills += 1
            self.board[victim] = Progress.NONE
            self._fork(victim, _work(self.plan, victim, self.board, place))

    def _wait(self, progress: Progress, numbers: Any) -> None:
        while any(self.board[number] < progress for number in numbers):
            time.sleep(0.01)
            if self.board.stage is not Stage.END:
                self._look_for_deaths()

    def _look_for_deaths(self) -> None:
        for number, pid in list(self._pids.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._pids[number]
                raise AssertionError(f"process {number} has ended early")

    def _alone(self, work: Any) -> None:
        self._fork(-1, work)
        self._ended(-1)

    def _ended(self, number: int) -> None:
        status = os.waitpid(self._pids.pop(number), 0)[1]
        assert status == 0, f"process {number} has ended with {status}"

    def _fork(self, number: int, work: Any) -> None:
        pid = os.fork()
        if pid:
            work.close()
            self._pids[number] = pid
            return
        signal.alarm(self.plan.limit)
        try:
            asyncio.run(work)
            os._exit(0)
        finally:
            sys.excepthook(*sys.exc_info())
            os._exit(1)


def _main(plan: Plan) -> None:
    with TemporaryDirectory() as directory:
        place, processes = Path(directory), Processes(plan)
        processes.run(place)
        counts: Counter[str] = Counter()
        for file in place.glob("*.counts"):
            counts.update(json.loads(file.read_text()))
        verdict = judged(noted(place.glob("*.calls")), LAG if plan.near else 0)
    found = {"reads": verdict.reads, "old": verdict.old, "behind": verdict.behind, "oldest": verdict.oldest}
    seen = {f"elsewhere_{name}": verdict.elsewhere_at(part) for name, part in (("p50", 0.5), ("longest", 1.0))}
    print(json.dumps({"stale": 0, **counts, **found, **seen, "kills": processes.kills}), flush=True)


def check(plan: Plan) -> dict[str, Any]:
    """Let the processes loose, and return what came of it."""
    command = [sys.executable, __file__, json.dumps(asdict(plan))]
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    _main(Plan(**json.loads(sys.argv[1])))
