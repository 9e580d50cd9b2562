"""A chaos run: servers, processes that write and read, a nemesis, and what the checkers say once all is quiet."""

import asyncio
import json
import random
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import chaos_checkers as checkers
from chaos_checkers import HIDDEN, Truth
from chaos_mutants import NO_UNIQUE_KEY
from chaos_plan import Plan
from chaos_work import LIMIT, LOGS, NOTEBOOK, TENANT, WINDOW, prepare
from pymongo import AsyncMongoClient

from convostore import ConvoStore
from convostore.database.mongodb import open_mongodb
from convostore.database.redis_client import RedisClients
from convostore.testing.faults import mongodb_faults, redis_faults
from convostore.testing.nemesis import Entry, Nemesis
from convostore.testing.redis_pair import RedisPair
from convostore.testing.replica_set import ReplicaSet

WORKER = Path(__file__).with_name("chaos_worker.py")
MONGODB, REDIS = 5.0, 0.5  # deadlines of the workers' calls
SLACK = 1.5  # on a machine that is busy with all of this
CALLS = ("append", "append_keyed", "append_many", "tail", "look", "read", "update", "raise", "edit", "foreign")
REDIS_CALLS = ("session_start", "session_end", "session_get", "limit", "count")
DEADLINES = {  # a call that consists of several has one for all of them
    **dict.fromkeys(CALLS, MONGODB + SLACK),
    "unit": MONGODB + 1 + SLACK,  # it is taken back in a second
    **dict.fromkeys(REDIS_CALLS, REDIS + SLACK),
}
STALE_READS = "stale reads, not promised while primaries change"


@dataclass(frozen=True)
class Crowd:
    """Who writes and reads.

    Attributes:
        processes: how many.
        writers, readers: how many of each in a process.
        skews: seconds by which the clocks of the processes are wrong, in turn.
        mutant: what is broken in the workers, or nothing.
        only: the kinds of calls that writers make; all if there are none.
        pause: seconds between two calls of a writer or reader, at most.
    """

    processes: int = 4
    writers: int = 4
    readers: int = 4
    skews: Sequence[float] = (0.0, 300.0, -300.0)
    mutant: str = ""
    only: tuple[str, ...] = ()
    pause: float = 0.1


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        history: all records of all processes.
        journal: what the nemesis did.
        violations: what each checker found, by its name.
    """

    history: Sequence[Mapping[str, object]]
    journal: Sequence[Entry]
    violations: Mapping[str, Sequence[str]]

    @property
    def all_violations(self) -> list[str]:
        """What all checkers of promises found."""
        promised = {name: found for name, found in self.violations.items() if name != STALE_READS}
        return [f"{name}: {each}" for name, found in promised.items() for each in found]


class Servers:
    """The servers of a run, the store that looks at them undisturbed, and the faults that they know."""

    def __init__(self, replica_set: ReplicaSet, pair: RedisPair) -> None:
        self.replica_set, self.pair = replica_set, pair
        self.faults = {**mongodb_faults(replica_set), **redis_faults(pair)}

    def plan(self, crowd: Crowd, seed: int, process: int, folder: Path) -> Plan:
        """Return what a process does, on a database that no other run has."""
        return Plan(
            mongodb=self.replica_set.uri,
            database=folder.name,
            redis=self.pair.url,
            history=str(folder / f"history-{process}.jsonl"),
            process=process,
            writers=crowd.writers,
            readers=crowd.readers,
            seed=seed,
            skew=crowd.skews[process % len(crowd.skews)] if crowd.skews else 0.0,
            mutant=crowd.mutant,
            only=crowd.only,
            pause=crowd.pause,
        )

    async def heal(self) -> None:
        """Let everything pass, and wait until the groups are whole."""
        for proxy in [*(member.proxy for member in self.replica_set.members), self.pair.proxy]:
            proxy.heal()
        await self.replica_set.settled()
        await self.pair.settled()


@asynccontextmanager
async def servers() -> AsyncIterator[Servers]:
    """Start the servers of a run."""
    async with ReplicaSet() as replica_set, RedisPair() as pair:
        yield Servers(replica_set, pair)


async def run(served: Servers, nemesis: Nemesis, crowd: Crowd, seed: int) -> Outcome:
    """Let a crowd and a nemesis loose, and say what came of it."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        plans = [served.plan(crowd, seed, process, folder) for process in range(crowd.processes)]
        served.pair.primary.ask("FLUSHALL")
        await _prepare(plans[0])
        async with _workers(plans) as workers:
            journal = await nemesis.run(served.faults, lambda: any(each.returncode is not None for each in workers))
            await served.heal()
            await _finish(workers)
        history = _read(plans)
        return Outcome(history, journal, _check(history, await read_truth(plans[0], history)))


def _read(plans: Sequence[Plan]) -> list[dict[str, object]]:
    lines = [line for plan in plans for line in Path(plan.history).read_text(encoding="utf-8").splitlines()]
    return [json.loads(line) for line in lines]


async def _prepare(plan: Plan) -> None:
    async with ConvoStore.open(plan.mongo_settings(), plan.redis_settings()) as store:
        await prepare(store)
        if plan.mutant == NO_UNIQUE_KEY:
            await store.mongodb.database.messages.drop_index("by_idempotency_key")


@asynccontextmanager
async def _workers(plans: Sequence[Plan]) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Start the processes, let them begin together, and make sure that none is left behind."""
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    workers = [
        await asyncio.create_subprocess_exec(sys.executable, str(WORKER), plan.to_json(), **pipes) for plan in plans
    ]
    try:
        await _hear(workers, b"ready\n")
        _tell(workers, b"go\n")
        yield workers
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
            await worker.wait()


async def _finish(workers: Sequence[asyncio.subprocess.Process]) -> None:
    _tell(workers, b"enough\n")
    async with asyncio.timeout(90):
        await _hear(workers, b"done\n")


async def _hear(workers: Sequence[asyncio.subprocess.Process], word: bytes) -> None:
    lines = await asyncio.gather(*(worker.stdout.readline() for worker in workers))
    assert lines == [word] * len(workers), f"a worker has ended: {lines}"


def _tell(workers: Sequence[asyncio.subprocess.Process], word: bytes) -> None:
    for worker in workers:
        worker.stdin.write(word)


async def read_truth(plan: Plan, history: checkers.History) -> Truth:
    """Read what is in the databases, the logs past the library."""
    # Opened without a look at the indexes, of which one may be missing on purpose.
    opened = ConvoStore(open_mongodb(plan.mongo_settings()), RedisClients.open(plan.redis_settings()))
    async with (
        AsyncMongoClient(plan.mongodb, readConcernLevel="majority") as client,
        aclosing(opened) as store,
    ):
        database, acme = client[plan.database], store.tenant(TENANT)
        logs = {f"log-{n}": await _slots(database, f"log-{n}") for n in range(LOGS)}
        documents = await database.conversations.find({"conversation_id": {"$regex": "^register"}}).to_list()
        notes = await database.messages.find({"conversation_id": NOTEBOOK}).to_list()
        begun = [record["session"] for record in checkers.acknowledged(checkers.of(history, "session_start"))]
        living = [name for name in begun if await store.sessions.get_session(TENANT, name)]
        counter = await store.rate_limits.get_rate_limit_info(acme.tenant_id, "counter", 1_000_000, 86_400)
    return Truth(
        logs=logs,
        registers={
            each["conversation_id"]: (each["version"], each.get("metadata", {}).get("number", 0)) for each in documents
        },
        notes={each["sequence"]: (each["version"], each["content"]) for each in notes},
        living=frozenset(living),
        counter=counter["current_count"],
    )


async def _slots(database, log):
    slots = await database.messages.find({"conversation_id": log}).sort("sequence", 1).to_list()
    members: dict[str, int] = {}
    for slot in slots:
        if "batch" in slot:
            members[slot["batch"]["id"]] = members.get(slot["batch"]["id"], 0) + 1
    return [(slot["sequence"], _shown(slot, members)) for slot in slots]


def _shown(slot, members):
    whole = "batch" not in slot or members[slot["batch"]["id"]] == slot["batch"]["size"]
    return slot["content"] if whole and not slot.get("kind") else f"{HIDDEN} {slot['sequence']}"


def _check(history: checkers.History, truth: Truth) -> dict[str, list[str]]:
    return {
        "logs": checkers.check_logs(history, truth),
        "units of work": checkers.check_units(history, truth),
        "idempotency keys": checkers.check_keys(history),
        "tails": checkers.check_tails(history, truth),
        "registers": checkers.check_registers(history, truth),
        "edits": checkers.check_notes(history, truth),
        "sessions": checkers.check_sessions(history, truth),
        "rate limits": checkers.check_limits(history, LIMIT, WINDOW),
        "counter": checkers.check_counter(history, truth),
        "tenants": checkers.check_tenants(history),
        "deadlines": checkers.check_ends(history, DEADLINES),
        STALE_READS: checkers.check_reads(history, truth),
    }


def nemesis_of(served: Servers, seed: int, duration: float, **how) -> Nemesis:
    """Return a nemesis with all faults."""
    return Nemesis(seed, duration, sorted(served.faults), **how)


def any_seed() -> int:
    """Return a seed that is not known before."""
    return random.SystemRandom().randrange(10**6)
