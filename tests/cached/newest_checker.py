"""Readers, appenders, editors and units of work in several processes, and a count of the reads that were too old.

Each process has a store of its own, on one database and one Redis. What a write has returned is noted past the cache:
the last sequence of a conversation, the version and the delivery of each message. A reader looks there before he reads:
nothing that he is given may be older. Loads and telling are slow, cells evicted, callers cancelled, writers killed.

Run as ``python newest_checker.py <plan as JSON>`` it is one of the processes.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from cached_support import eventually
from pydantic import SecretStr

from convostore import ConcurrencyError, ConversationDocument, ConvoStore, DeliveryStatus, MessageDocument
from convostore.database.settings import MongoSettings, RedisSettings
from convostore.gateways.epoch_counter import EpochCounter
from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.scripts import Script
from convostore.models.keys import redis_key
from convostore.repositories import cache_extending
from convostore.repositories.cache_epoch import CacheEpoch
from convostore.repositories.entity_spaces import NEWEST
from convostore.repositories.exceptions import EntityNotFoundError, RepositoryError, TransactionError
from convostore.repositories.message_reader import HistoryPage
from convostore.repositories.newest_cache import NewestCache
from convostore.repositories.told_cache import keys_of

READ = Operation("get", "truth", "Truth", repeatable=True)
WRITE = Operation("set", "truth", "Truth", writes=True)
RAISE = """for i = 1, #ARGV, 2 do
  if tonumber(ARGV[i + 1]) > tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or 0) then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end"""
SLOWEST = 0.02
LAST = 8  # messages that are changed
RANK: dict[Any, int] = {None: 0, **{status: rank for rank, status in enumerate(DeliveryStatus, start=1)}}


@dataclass(frozen=True)
class Plan:
    """What one process does.

    Attributes:
        mongodb, database, redis: the servers.
        tenant: whose conversations.
        cache: the class of the cache in this module.
        seconds: for how long.
        readers, appenders: tasks; of appenders so many of each kind.
        changers: tasks that edit, delete or deliver, and as many that evict.
        uniters: tasks with units of work.
        conversations: how many there are.
        seed: of its random choices.
    """

    mongodb: str
    database: str
    redis: str
    tenant: str
    cache: str
    seconds: float
    readers: int
    appenders: int
    changers: int
    uniters: int
    conversations: int
    seed: int


@dataclass
class Outcome:
    """What came of it.

    Attributes:
        reads, hits, appends, changes, units, evictions, cancelled, kills: how many there were.
        old: reads that were older than a write that had returned before them.
        torn: reads with a gap, or with a part of what was appended as one.
        stale: conversations that the cache still tells wrongly when all is quiet.
    """

    reads: int = 0
    hits: int = 0
    appends: int = 0
    changes: int = 0
    units: int = 0
    evictions: int = 0
    cancelled: int = 0
    kills: int = 0
    old: int = 0
    torn: int = 0
    stale: int = 0

    def plus(self, other: "Outcome") -> "Outcome":
        """Return both together."""
        return Outcome(**{name: value + getattr(other, name) for name, value in asdict(self).items()})


class SlowCache(NewestCache):
    """The library's, with loads that are slow, and appends that are slow to tell."""

    slowest_telling: ClassVar = SLOWEST

    async def get(self, tenant_id: str, conversation_id: str, load: Callable[[], Awaitable[Any]]) -> Any:
        return await super().get(tenant_id, conversation_id, lambda: _slowly(load))

    async def append(self, identity: str, append: Callable[[], Awaitable[Any]]) -> Any:
        return await super().append(identity, lambda: _slowly(append, self.slowest_telling))


class BlindCache(SlowCache):
    """Extends whatever is there."""

    class _Blind(Script):
        text = cache_extending.EXTEND.text.replace("or cell.version ~= first - 1 ", "")

    slowest_telling: ClassVar = 0.1
    blind: ClassVar = _Blind("cache_extend")

    async def _tell_appended(self, identity: str, messages: Any) -> None:
        cache_extending.EXTEND = self.blind
        await super()._tell_appended(identity, messages)


class PlainDelCache(SlowCache):
    """What is usually done: read, else load and store; delete after a write."""

    async def get(self, tenant_id: str, conversation_id: str, load: Callable[[], Awaitable[Any]]) -> Any:
        (key,) = keys_of(f"{tenant_id}:{conversation_id}", [0], NEWEST)
        found = await self._cells.redis.command(READ, "GET", key)
        if found is not None and not found.startswith(b"\xc5"):  # or the synchronizer has put a tombstone there
            self.statistics.hits += 1
            return NEWEST.codec.decode(found)
        value = await _slowly(load)
        await self._cells.redis.command(WRITE, "SET", key, NEWEST.codec.encode(value), "EX", 60)
        return value

    async def _tell_appended(self, identity: str, _: Any) -> None:
        await self.tell([identity])


class HastyCache(SlowCache):
    """Tells before it writes."""

    async def _write(self, identity: str, write: Callable[[], Awaitable[Any]], _: Any) -> Any:
        await _slowly(partial(self.tell, [identity]))
        return await write()


CACHES = {cls.__name__: cls for cls in (SlowCache, BlindCache, PlainDelCache, HastyCache)}


async def _slowly(call: Callable[[], Awaitable[Any]], slowest: float = SLOWEST) -> Any:
    value = await call()
    await asyncio.sleep(random.uniform(0, slowest))
    return value


@dataclass
class Checker:
    """One process of it."""

    plan: Plan
    store: ConvoStore
    truth: RedisGateway
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        self.tenant = self.store.tenant(self.plan.tenant)
        self.messages = self.tenant.messages
        self.counter = EpochCounter(self.store.mongodb)
        self.random = random.Random(self.plan.seed)

    async def run(self) -> Outcome:
        """Do what the plan says."""
        self.end = time.monotonic() + self.plan.seconds
        crowd = {
            self._read: self.plan.readers,
            **dict.fromkeys((self._append, self._append_many), self.plan.appenders),
            **dict.fromkeys((self._change, self._evict), self.plan.changers),
            self._unite: self.plan.uniters,
        }
        async with asyncio.TaskGroup() as tasks:
            for work, count in crowd.items():
                for _ in range(count):
                    tasks.create_task(self._repeat(work))
        await self.store.mongodb.newest.finish_writes()
        self.outcome.hits = self.store.mongodb.newest.statistics.hits
        return self.outcome

    async def _repeat(self, work: Callable[[str], Awaitable[None]]) -> None:
        while time.monotonic() < self.end:
            with suppress(ConcurrencyError, TransactionError, EntityNotFoundError):
                # A few are hot, most are not.
                await work(f"c-{int(self.plan.conversations * self.random.random() ** 2)}")

    async def _read(self, cid: str) -> None:
        noted = await self.truth.command(READ, "HGETALL", self._truth(cid))
        known = {name.decode(): int(value) for name, value in zip(noted[::2], noted[1::2], strict=True)}
        found = await self._unless_cancelled(self.messages.history(cid, 20, include_deleted=True))
        if found is not None:
            self.outcome.reads += 1
            self.outcome.old += _is_old(found, known)
            self.outcome.torn += _is_torn(found)
        await asyncio.sleep(self.random.uniform(0, 0.002))

    async def _append(self, cid: str) -> None:
        sent = await self._unless_cancelled(self.messages.append(cid, MessageDocument.user("1/1")))
        if sent is not None:
            await self._note(cid, {"last": sent.sequence, f"v{sent.sequence}": 1})
            self.outcome.appends += 1
        await asyncio.sleep(self.random.uniform(0, 0.03))

    async def _append_many(self, cid: str) -> None:
        texts = [MessageDocument.user(f"{number}/3") for number in (1, 2, 3)]
        sent = await self._unless_cancelled(self.messages.append_many(cid, texts))
        if sent is not None:
            await self._note(cid, {"last": sent[-1].sequence, **{f"v{message.sequence}": 1 for message in sent}})
            self.outcome.appends += 1
        await asyncio.sleep(self.random.uniform(0, 0.06))

    async def _change(self, cid: str) -> None:
        last = (await self.messages.history(cid, LAST, fresh=self.random.random() < 0.5)).items
        if last:
            read = self.random.choice(last[-LAST:])
            change = self.random.choice([self._edit, self._delete, self._deliver])
            done = await self._unless_cancelled(change(cid, read))
            if done:
                await self._note(cid, done)
                self.outcome.changes += 1
        await asyncio.sleep(self.random.uniform(0, 0.03))

    async def _edit(self, cid: str, read: MessageDocument) -> dict[str, int]:
        edited = await self.messages.edit(cid, read.sequence, external_id=uuid.uuid4().hex)
        return {f"v{read.sequence}": edited.version}

    async def _delete(self, _: str, read: MessageDocument) -> dict[str, int]:
        deleted = self.random.random() < 0.5 and await self.messages.delete(read.id, read.version)
        return {f"v{read.sequence}": read.version + 1} if deleted else {}

    async def _deliver(self, cid: str, read: MessageDocument) -> dict[str, int]:
        status = self.random.choice([DeliveryStatus.SENT, DeliveryStatus.DELIVERED, DeliveryStatus.READ])
        moved = await self.messages.update_delivery_status(cid, read.sequence, status)
        return {f"d{read.sequence}": RANK[status]} if moved else {}

    async def _unite(self, cid: str) -> None:
        async def work(_: Any) -> tuple[int, int, int]:
            (last,) = (await self.messages.history(cid, 1)).items
            edited = await self.messages.edit(cid, last.sequence, external_id=uuid.uuid4().hex)
            sent = await self.messages.append(cid, MessageDocument.user("1/1"))
            return last.sequence, edited.version, sent.sequence

        with suppress(ValueError):  # there is none
            sequence, version, last = await self.store.in_transaction(work)
            await self._note(cid, {f"v{sequence}": version, "last": last})
            self.outcome.units += 1
        await asyncio.sleep(self.random.uniform(0, 0.1))

    async def _evict(self, cid: str) -> None:
        keys = keys_of(self.tenant.database.identity(cid), (await self.counter.read()).numbers, NEWEST)
        self.outcome.evictions += await self.truth.command(WRITE, "DEL", *keys)
        await asyncio.sleep(self.random.uniform(0, 0.05))

    async def _unless_cancelled(self, call: Awaitable[Any]) -> Any:
        """Return what a call answers, or None if it was cancelled, which happens now and then."""
        calling = asyncio.ensure_future(call)
        if self.random.random() < 0.05:
            await asyncio.wait([calling], timeout=self.random.uniform(0, 0.01))
            if not calling.done():
                calling.cancel()
                await asyncio.wait([calling])
                self.outcome.cancelled += 1
                return None
        return await calling

    async def count_stale(self) -> int:
        """Return how many conversations are told wrongly, when nobody writes any more."""
        stale = 0
        await eventually(lambda: self.store.mongodb.newest.epoch.usable() is not None)
        for number in range(self.plan.conversations):
            told = [await self.messages.history(f"c-{number}", fresh=fresh) for fresh in (False, True)]
            stale += told[0] != told[1]
        return stale

    def _truth(self, cid: str) -> str:
        return redis_key("truth", (self.plan.tenant, cid))

    async def _note(self, cid: str, numbers: dict[str, int]) -> None:
        flat = [part for item in numbers.items() for part in item]
        await self.truth.command(WRITE, "EVAL", RAISE, 1, self._truth(cid), *flat)


def _is_old(found: HistoryPage, known: dict[str, int]) -> bool:
    shown = {message.sequence: message for message in found.items}
    if max(shown, default=0) < known.pop("last", 0):
        return True
    return any(_lacks(shown, name[0], int(name[1:]), number) for name, number in known.items())


def _lacks(shown: dict[int, MessageDocument], kind: str, sequence: int, number: int) -> bool:
    """Say whether a message is not there, or not as it was, although it is no older than those that are shown."""
    message = shown.get(sequence)
    if message is None:
        return sequence > min(shown, default=sequence)
    if kind == "v":
        return message.version < number
    return not message.is_deleted and RANK[message.delivery_status] < number


def _is_torn(found: HistoryPage) -> bool:
    """Say whether a message that was appended as one with others is shown without those behind it."""
    shown = {message.sequence: message.content for message in found.items if not message.is_deleted}
    last = found.items[-1].sequence if found.items else 0
    ends = [sequence + int(text[2]) - int(text[0]) for sequence, text in shown.items()]
    sequences = [message.sequence for message in found.items]
    return any(end > last for end in ends) or sequences != sorted(set(sequences))


@asynccontextmanager
async def _opened(plan: Plan) -> Any:
    mongodb = MongoSettings(mongodb_uri=SecretStr(plan.mongodb), database_name=plan.database)
    redis = RedisSettings(redis_url=SecretStr(plan.redis), cache_deadline=2)
    truth = RedisGateway.connect(plan.redis, deadline=10)
    async with ConvoStore.open(mongodb, redis) as store:
        cache = CACHES[plan.cache]
        store.mongodb.newest = cache(store.redis.cache, store.mongodb, CacheEpoch(EpochCounter(store.mongodb)))
        yield Checker(plan, store, truth)
    await truth.aclose()


async def _run_plan(plan: Plan) -> Outcome:
    async with _opened(plan) as checker:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        return await checker.run()


class _Process:
    """One of the processes, seen from the one that started it."""

    def __init__(self, plan: Plan) -> None:
        command = [sys.executable, __file__, json.dumps(asdict(plan))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def outcome(self, seconds: float) -> Outcome:
        return Outcome(**json.loads(self._process.communicate(timeout=seconds)[0]))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


async def check(plan: Plan, processes: int, victims: int) -> Outcome:
    """Let several processes loose, kill others of which each only writes, and return what came of it."""
    async with _opened(plan) as checker:
        for number in range(plan.conversations):
            new = ConversationDocument.start(user_id="u", conversation_id=f"c-{number}")
            await checker.tenant.conversations.create(new)
        await checker.store.synchronizer().run_once()
        total = await asyncio.to_thread(_let_loose, plan, processes, victims)
        # Who was killed between his write and the telling has left it to this.
        await checker.store.synchronizer().run_once()
        return total.plus(Outcome(stale=await checker.count_stale()))


def _let_loose(plan: Plan, processes: int, victims: int) -> Outcome:
    workers = [_Process(replace(plan, seed=plan.seed * 100 + number)) for number in range(processes)]
    # A transaction whose process has died is ended by the server after a minute, and holds up others for so long.
    victim_plan = replace(plan, readers=0, uniters=0, seconds=60)
    killed = [_Process(replace(victim_plan, seed=plan.seed * 1000 + number)) for number in range(victims)]
    try:
        for worker in workers:
            worker.start()
        for victim in killed:
            victim.start()
            time.sleep(random.uniform(0.1, plan.seconds / victims))
            victim.kill()
        outcomes = [worker.outcome(plan.seconds + 60) for worker in workers]
    finally:
        for process in (*workers, *killed):
            process.kill()
    total = Outcome(kills=victims)
    for outcome in outcomes:
        total = total.plus(outcome)
    return total


if __name__ == "__main__":
    with suppress(RepositoryError):
        print(json.dumps(asdict(asyncio.run(_run_plan(Plan(**json.loads(sys.argv[1])))))), flush=True)
