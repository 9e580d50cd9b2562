"""P16: under each kind of fault every public call ends by its deadline, with one of our errors if any."""

import asyncio
import time
from contextlib import ExitStack, asynccontextmanager

import pytest
import pytest_asyncio
from chaos_plan import SESSION_KEY
from chaos_run import servers
from public_calls import STEPS, mongodb_calls, redis_calls
from pydantic import SecretStr

from convostore import ConvoStore, RepositoryError
from convostore.database.settings import MongoSettings, RedisSettings
from convostore.testing import Fault
from convostore.testing.faults import FAILED_COMMANDS, blocked, ruled

MONGODB, REDIS = 1.5, 0.4
SLACK = 1.5

pytestmark = [
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
    # The driver forgets a socket when it is cancelled between connecting and its handshake.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served():
    async with servers() as served:
        yield served


@pytest_asyncio.fixture(loop_scope="module")
async def store(served):
    await served.heal()
    mongodb = MongoSettings(
        mongodb_uri=SecretStr(served.replica_set.uri),
        database_name="deadlines",
        heartbeat=0.5,
        connect_timeout=1,
        deadline=10,
    )
    redis = RedisSettings(
        redis_url=SecretStr(served.pair.url),
        redis_deadline=5,
        cache_deadline=5,
        breaker_failures=100_000,
        session_key=SecretStr(SESSION_KEY),
    )
    async with ConvoStore.open(mongodb, redis) as store:
        yield store
        await served.heal()


def _always(fault):
    return lambda _: fault


@asynccontextmanager
async def _ruled(served, fault):
    proxies = [*(member.proxy for member in served.replica_set.members), served.pair.proxy]
    with ruled(proxies, _always(fault)):
        yield


@asynccontextmanager
async def _frozen(served):
    primary = await served.replica_set.primary()
    async with served.replica_set.frozen(primary), served.pair.frozen():
        yield


@asynccontextmanager
async def _killed(served):
    async with served.replica_set.killed(await served.replica_set.primary()), served.pair.killed():
        yield


@asynccontextmanager
async def _blocked(served):
    with ExitStack() as ends:
        for proxy in [*(member.proxy for member in served.replica_set.members), served.pair.proxy]:
            ends.enter_context(blocked(proxy))
        yield


@asynccontextmanager
async def _isolated(served):
    with served.replica_set.isolated(await served.replica_set.primary()), blocked(served.pair.proxy):
        yield


@asynccontextmanager
async def _stepping_down(served):
    await asyncio.gather(served.replica_set.step_down(), served.pair.fail_over())
    yield


@asynccontextmanager
async def _slow_server(served):
    primary = await served.replica_set.primary()
    await primary.fail("alwaysOn", failCommands=list(FAILED_COMMANDS), blockConnection=True, blockTimeMS=4000)
    served.pair.proxy.latency = 4.0
    try:
        yield
    finally:
        await primary.fail("off")
        served.pair.proxy.heal()


FAULTS = {
    "frozen": _frozen,
    "killed": _killed,
    "blocked": _blocked,
    "primary isolated": _isolated,
    "stepping down": _stepping_down,
    "slow server": _slow_server,
    "cut before": lambda served: _ruled(served, Fault.CUT_BEFORE),
    "cut after": lambda served: _ruled(served, Fault.CUT_AFTER),
    "stalled after": lambda served: _ruled(served, Fault.STALL_AFTER),
}


class Lag:
    """How long the loop was kept from turning, by a machine that is busy with other things."""

    def __init__(self):
        self.seconds = 0.0

    async def measure(self):
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.01)
            self.seconds += max(0.0, time.monotonic() - before - 0.02)


async def _timed(call):
    started = time.monotonic()
    error = None
    try:
        await call()
    except RepositoryError as raised:
        error = raised
    return time.monotonic() - started, error


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_public_call_ends_by_its_deadline(fault, served, store, capsys):
    on_mongodb, on_redis = await mongodb_calls(store), await redis_calls(store)
    calls = {**on_mongodb, **on_redis}
    lag = Lag()
    async with FAULTS[fault](served):
        measuring = asyncio.create_task(lag.measure())
        store.mongodb.deadline, store.redis.state.deadline, store.redis.cache.deadline = MONGODB, REDIS, REDIS
        ended = dict(zip(calls, await asyncio.gather(*(_timed(call) for call in calls.values())), strict=True))
        store.mongodb.deadline, store.redis.state.deadline, store.redis.cache.deadline = 10, 5, 5
        measuring.cancel()
    late = {
        name: f"{seconds:.1f} s, {type(error).__name__}"
        for name, (seconds, error) in ended.items()
        if seconds > (MONGODB if name in on_mongodb else REDIS) * STEPS.get(name, 1) + SLACK + lag.seconds
    }
    slowest = max((seconds, name) for name, (seconds, _) in ended.items())
    failed = sum(error is not None for _, error in ended.values())
    slow = f"slowest {slowest[0]:.2f} s ({slowest[1]}), lag {lag.seconds:.2f} s"
    with capsys.disabled():
        print(f"\n{fault}: {len(calls)} calls, {failed} failed, {slow}")
    assert late == {}
