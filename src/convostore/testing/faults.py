"""The faults of a replica set and of a Redis with its replica, for a nemesis to choose from."""

import random
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

from convostore.testing.nemesis import Step, StepFault
from convostore.testing.proxy import Fault, Proxy, Rule
from convostore.testing.redis_pair import RedisPair
from convostore.testing.replica_set import Member, ReplicaSet

__all__ = ["mongodb_faults", "redis_faults"]

CUT_SHARE = 0.1
STALL_SHARE = 0.05
SLOWEST = 0.2  # seconds, each way
FAILED_COMMANDS = ("insert", "update", "find", "aggregate", "findAndModify", "commitTransaction")
FAILURES: tuple[dict[str, Any], ...] = (
    {"closeConnection": True},
    {"errorCode": 91, "errorLabels": ["RetryableWriteError"]},  # ShutdownInProgress
    {"errorCode": 11602, "errorLabels": ["RetryableWriteError"]},  # InterruptedDueToReplStateChange
    {"writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"}},
    {"blockConnection": True, "blockTimeMS": 700},
)


def mongodb_faults(replica_set: ReplicaSet, app_name: str = "convostore") -> Mapping[str, StepFault]:
    """Return the faults of a replica set by their names.

    Args:
        replica_set: what they befall.
        app_name: of the clients whose commands a fail point fails.
    """
    faults = _MongoFaults(replica_set, app_name)
    return {
        "mongodb: kill primary": faults.kill_primary,
        "mongodb: kill secondary": faults.kill_secondary,
        "mongodb: freeze primary": faults.freeze_primary,
        "mongodb: freeze secondary": faults.freeze_secondary,
        "mongodb: step down": faults.step_down,
        "mongodb: fail commands": faults.fail_commands,
        "mongodb: isolate primary from members": faults.isolate_primary,
        "mongodb: cut off primary from all": faults.cut_off_primary,
        "mongodb: lose connections": faults.lose_connections,
        "mongodb: stall connections": faults.stall_connections,
        "mongodb: delay": faults.delay,
    }


def redis_faults(pair: RedisPair) -> Mapping[str, StepFault]:
    """Return the faults of a Redis with its replica by their names."""
    faults = _RedisFaults(pair)
    return {
        "redis: kill": faults.kill,
        "redis: freeze": faults.freeze,
        "redis: fail over": faults.fail_over,
        "redis: cut off": faults.cut_off,
        "redis: lose connections": faults.lose_connections,
        "redis: stall connections": faults.stall_connections,
        "redis: delay": faults.delay,
    }


class _MongoFaults:
    """What befalls a replica set."""

    def __init__(self, replica_set: ReplicaSet, app_name: str) -> None:
        self._set, self._app_name = replica_set, app_name

    async def _secondary(self, step: Step) -> Member:
        return _rng(step).choice(await self._set.secondaries())

    @property
    def _proxies(self) -> list[Proxy]:
        return [member.proxy for member in self._set.members]

    @asynccontextmanager
    async def kill_primary(self, _: Step) -> AsyncIterator[str]:
        async with self._set.killed(await self._set.primary()) as member:
            yield f"member {member.number}"

    @asynccontextmanager
    async def kill_secondary(self, step: Step) -> AsyncIterator[str]:
        async with self._set.killed(await self._secondary(step)) as member:
            yield f"member {member.number}"

    @asynccontextmanager
    async def freeze_primary(self, _: Step) -> AsyncIterator[str]:
        async with self._set.frozen(await self._set.primary()) as member:
            yield f"member {member.number}"

    @asynccontextmanager
    async def freeze_secondary(self, step: Step) -> AsyncIterator[str]:
        async with self._set.frozen(await self._secondary(step)) as member:
            yield f"member {member.number}"

    @asynccontextmanager
    async def step_down(self, _: Step) -> AsyncIterator[str]:
        yield f"member {(await self._set.step_down()).number}"

    @asynccontextmanager
    async def fail_commands(self, step: Step) -> AsyncIterator[str]:
        rng = _rng(step)
        commands, failure = rng.sample(FAILED_COMMANDS, 2), rng.choice(FAILURES)
        member = await self._set.primary()
        filters = {"failCommands": commands, "appName": self._app_name}
        await member.fail({"activationProbability": 0.3}, **filters, **failure)
        try:
            yield f"member {member.number}: {next(iter(failure))} of {', '.join(commands)}"
        finally:
            await member.fail("off")

    @asynccontextmanager
    async def isolate_primary(self, _: Step) -> AsyncIterator[str]:
        member = await self._set.primary()
        with self._set.isolated(member):
            yield f"member {member.number}"

    @asynccontextmanager
    async def cut_off_primary(self, _: Step) -> AsyncIterator[str]:
        member = await self._set.primary()
        with self._set.isolated(member), blocked(member.proxy):
            yield f"member {member.number}"

    @asynccontextmanager
    async def lose_connections(self, step: Step) -> AsyncIterator[str]:
        with ruled(self._proxies, losses(step)):
            yield "some commands"

    @asynccontextmanager
    async def stall_connections(self, step: Step) -> AsyncIterator[str]:
        with ruled(self._proxies, stalls(step)):
            yield "some commands"

    @asynccontextmanager
    async def delay(self, step: Step) -> AsyncIterator[str]:
        with delayed(self._proxies, step) as seconds:
            yield f"{seconds:.3f} s"


class _RedisFaults:
    """What befalls a Redis with its replica."""

    def __init__(self, pair: RedisPair) -> None:
        self._pair = pair

    @asynccontextmanager
    async def kill(self, _: Step) -> AsyncIterator[str]:
        async with self._pair.killed():
            yield "the primary"

    @asynccontextmanager
    async def freeze(self, _: Step) -> AsyncIterator[str]:
        async with self._pair.frozen():
            yield "the primary"

    @asynccontextmanager
    async def fail_over(self, _: Step) -> AsyncIterator[str]:
        await self._pair.fail_over()
        yield "to the replica"

    @asynccontextmanager
    async def cut_off(self, _: Step) -> AsyncIterator[str]:
        with blocked(self._pair.proxy):
            yield "the primary"

    @asynccontextmanager
    async def lose_connections(self, step: Step) -> AsyncIterator[str]:
        with ruled([self._pair.proxy], losses(step)):
            yield "some commands"

    @asynccontextmanager
    async def stall_connections(self, step: Step) -> AsyncIterator[str]:
        with ruled([self._pair.proxy], stalls(step)):
            yield "some commands"

    @asynccontextmanager
    async def delay(self, step: Step) -> AsyncIterator[str]:
        with delayed([self._pair.proxy], step) as seconds:
            yield f"{seconds:.3f} s"


@contextmanager
def blocked(proxy: Proxy) -> Iterator[None]:
    """Let nothing pass a proxy until the end; then it arrives."""
    proxy.block()
    try:
        yield
    finally:
        proxy.heal()


@contextmanager
def ruled(proxies: Iterable[Proxy], rule: Rule) -> Iterator[None]:
    """Let a rule say what befalls each command until the end; then all connections are made anew."""
    with ExitStack() as ends:
        for proxy in proxies:
            proxy.rule = rule
            ends.callback(proxy.cut_connections)
            ends.callback(proxy.heal)
        yield


@contextmanager
def delayed(proxies: Iterable[Proxy], step: Step) -> Iterator[float]:
    """Be late by some time, until the end; gives the seconds, each way."""
    seconds = _rng(step).uniform(SLOWEST / 10, SLOWEST)
    with ExitStack() as ends:
        for proxy in proxies:
            proxy.latency = seconds
            ends.callback(proxy.heal)
        yield seconds


def losses(step: Step) -> Rule:
    """Return a rule by which some commands lose their connection, before or after they are carried out."""
    return _some(step, CUT_SHARE, (Fault.CUT_BEFORE, Fault.CUT_AFTER))


def stalls(step: Step) -> Rule:
    """Return a rule by which some commands are never answered, carried out or not."""
    return _some(step, STALL_SHARE, (Fault.STALL, Fault.STALL_AFTER))


def _some(step: Step, share: float, faults: tuple[Fault, ...]) -> Rule:
    rng = _rng(step)
    return lambda _: rng.choice(faults) if rng.random() < share else None


def _rng(step: Step) -> random.Random:
    return random.Random(step.seed)  # noqa: S311 - it is to be predictable
