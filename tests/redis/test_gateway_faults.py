"""P15: an error tells what became of the call, and nothing that must not be is sent twice."""

import asyncio

import pytest
import pytest_asyncio
from gateway_support import ADD, READ, REPEATABLE_WRITE, WRITE, ended, eventually, opened, works

from convostore.gateways import redis_gateway
from convostore.gateways.operation import Operation
from convostore.repositories.exceptions import ConnectionError as OurConnectionError
from convostore.repositories.exceptions import DeadlineExceededError, Outcome, RepositoryError
from convostore.testing.redis_proxy import Fault, RedisProxy

pytestmark = pytest.mark.one_server


@pytest_asyncio.fixture
async def proxy(own_server):
    async with RedisProxy("127.0.0.1", own_server.port) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def gateway(proxy):
    async with opened(proxy.url, size=4, deadline=1) as gateway:
        yield gateway


CALLS = {
    "command": lambda gateway, operation: gateway.command(operation, "INCR", "k"),
    "commands": lambda gateway, operation: gateway.commands(operation, [("INCR", "k")]),
    "script": lambda gateway, operation: gateway.script(operation, ADD, ["k"], 1),
    "scripts": lambda gateway, operation: gateway.scripts(operation, ADD, [(["k"], [1])]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(("fault", "applied"), [(Fault.CUT_BEFORE, 0), (Fault.CUT_AFTER, 1), (Fault.STALL_AFTER, 1)])
async def test_a_write_whose_answer_is_lost_is_sent_once_and_its_outcome_unknown(
    proxy, gateway, own_server, call, fault, applied
):
    await call(gateway, WRITE)  # the script is loaded
    proxy.rule = lambda _: fault
    error, _ = await ended(call(gateway, WRITE))
    assert isinstance(error, OurConnectionError)
    assert isinstance(error, DeadlineExceededError) == (fault is Fault.STALL_AFTER)
    assert error.outcome is Outcome.UNKNOWN
    assert len(proxy.struck) == 1
    assert own_server.ask("GET", "k") == str(1 + applied)
    proxy.heal()
    await call(gateway, WRITE)


@pytest.mark.parametrize("operation", [READ, REPEATABLE_WRITE])
async def test_what_may_be_repeated_survives_one_loss_and_not_two(proxy, gateway, own_server, operation):
    proxy.cut_after(1)
    assert await gateway.command(operation, "SET", "k", "v") == b"OK"
    proxy.cut_after(1, times=2)
    error, _ = await ended(gateway.command(operation, "SET", "k", "v"))
    assert isinstance(error, OurConnectionError)
    assert error.outcome is (Outcome.UNKNOWN if operation.writes else Outcome.NOT_APPLIED)
    assert proxy.commands == ["SET"] * 4


async def test_under_lost_connections_there_are_never_more_increments_than_calls(proxy, gateway, own_server):
    calls = 400
    seen = 0

    def rule(_):
        nonlocal seen
        seen += 1
        return (Fault.CUT_AFTER, Fault.CUT_BEFORE, None, None, None)[seen % 5]

    proxy.rule = rule
    gateway.breaker._threshold = 10**9  # the breaker would spare the server what is tested
    gateway.deadline = 60  # most of them wait for a place; whose time is over there is not sent
    results = [
        result
        for result, _ in await asyncio.gather(*(ended(gateway.command(WRITE, "INCR", "k")) for _ in range(calls)))
    ]
    answered = [result for result in results if isinstance(result, int)]
    unknown = [error for error in results if isinstance(error, RepositoryError) and error.outcome is Outcome.UNKNOWN]
    assert len(set(answered)) == len(answered)
    assert unknown
    assert len(answered) + len(unknown) == calls >= len(proxy.commands)  # some were lost behind one that was cut
    assert len(answered) < int(own_server.ask("GET", "k")) <= len(proxy.commands)


async def test_a_driver_that_repeats_everything_is_seen(proxy, gateway, own_server, monkeypatch):
    async def twice(_, attempt):
        try:
            return await attempt()
        except Exception:  # noqa: BLE001 - as the driver's own client does
            return await attempt()

    monkeypatch.setattr(redis_gateway, "_attempts", twice)
    proxy.cut_after(1)
    await gateway.command(WRITE, "INCR", "k")
    assert own_server.ask("GET", "k") == "2"


async def test_a_refused_connection_applied_nothing_although_the_connection_was_there_before(gateway, own_server):
    await gateway.command(WRITE, "INCR", "k")
    own_server.kill()
    await asyncio.sleep(0.05)
    error, _ = await ended(gateway.command(WRITE, "INCR", "k"))
    assert isinstance(error, OurConnectionError)


async def test_whoever_waited_for_a_place_to_the_end_has_applied_nothing(proxy, own_server):
    async with opened(proxy.url, size=1, deadline=0.3) as gateway:
        await gateway.command(WRITE, "INCR", "k")
        proxy.stall()
        first = asyncio.ensure_future(ended(gateway.command(WRITE, "INCR", "k")))
        await asyncio.sleep(0.01)
        late, _ = await ended(_waiting(gateway))
        (stalled, _) = await first
    assert stalled.outcome is Outcome.UNKNOWN
    assert isinstance(late, DeadlineExceededError)
    assert late.outcome is Outcome.NOT_APPLIED


async def _waiting(gateway):
    gateway.deadline = 0.1  # shorter than that of the call which has the place
    return await gateway.command(WRITE, "INCR", "k")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), "Redis has become a replica and refused write"),
        (("CONFIG", "SET", "maxmemory", "1"), "Redis is out of memory and refused write"),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), "Redis has too few replicas and refused write"),
    ],
)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_server_that_cannot_serve_is_a_connection_error_that_may_be_repeated(
    gateway, own_server, call, words, message
):
    await call(gateway, WRITE)
    own_server.ask(*words)
    result, _ = await ended(call(gateway, WRITE))
    error = result[0] if isinstance(result, list) else result
    assert isinstance(error, OurConnectionError)
    assert error.retryable
    assert error.outcome is Outcome.NOT_APPLIED
    assert str(error).startswith(message)
    assert not gateway.breaker.is_open
    own_server.ask("REPLICAOF", "NO", "ONE")
    own_server.ask("CONFIG", "SET", "maxmemory", "0")
    own_server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
    assert await call(gateway, WRITE) in (2, [2])


async def test_a_connection_to_what_has_become_a_replica_is_not_used_again(own_server):
    async with opened(own_server.url, size=1) as gateway:
        own_server.ask("REPLICAOF", "127.0.0.1", "1")
        ids = []
        for _ in range(3):
            await ended(gateway.command(WRITE, "SET", "k", "v"))
            ids.append(await gateway.command(READ, "CLIENT", "ID"))
        assert len(set(ids)) == 3, "behind the same address there may be another server"
        assert await gateway.command(READ, "CLIENT", "ID") == ids[-1]


async def test_a_server_that_is_busy_with_a_script_refuses(gateway, own_server):
    own_server.ask("CONFIG", "SET", "busy-reply-threshold", "1")
    async with opened(own_server.url, deadline=0.2) as other:
        endless = Operation("endless", "test", "Thing")
        _, _ = await ended(other.command(endless, "EVAL", "while true do end", 0))
        error, _ = await ended(other.command(WRITE, "SET", "k", "v"))
        assert isinstance(error, OurConnectionError)
        assert str(error) == "Redis is busy with a script and refused write"
        own_server.ask("SCRIPT", "KILL")
        await eventually(lambda: works(gateway))
