"""Commands of concurrent callers travel together, and each caller has exactly his own reply, error and outcome."""

import asyncio
import contextlib
import functools
import time

import pytest
import pytest_asyncio
from gateway_support import ADD, ECHO, READ, WRITE, ended, eventually, inline, keys_of, opened, works

from convostore.gateways import batching
from convostore.gateways.breaker import Breaker
from convostore.gateways.flights import BatchLimits
from convostore.gateways.operation import Operation
from convostore.models.keys import redis_key
from convostore.repositories.exceptions import ConnectionError as OurConnectionError
from convostore.repositories.exceptions import DeadlineExceededError, Outcome, RepositoryError, ValidationError
from convostore.testing.redis_proxy import Fault, RedisProxy

NOTHING = "$-1"
SLACK = 1.5  # seconds; the machine has few cores and many tests


@contextlib.asynccontextmanager
async def watched(url, **options):
    """A gateway, and the list of what its wire is given at once."""
    async with opened(url, **options) as gateway:
        sent, execute = [], gateway._wire.execute

        async def noted(commands, *rest):
            sent.append([command[0] for command in commands])
            return await execute(commands, *rest)

        gateway._wire.execute = noted
        yield gateway, sent


def never_open():
    return Breaker(10**9)


async def _together(*calls):
    """Make calls at the same time and return how each ended."""
    return [result for result, _ in await asyncio.gather(*(ended(call) for call in calls))]


async def test_in_one_batch_each_gets_his_own_reply_or_error(redis_url, tenant):
    text, hash_, nothing, counter = keys_of(tenant, 4)
    unheard = inline("return 'unheard of' .. ARGV[1]")
    async with watched(redis_url) as (gateway, sent):
        await gateway.command(WRITE, "SET", text, "t")
        await gateway.command(WRITE, "HSET", hash_, "f", 1)
        sent.clear()
        ends = await _together(
            *(gateway.command(READ, "GET", text) for _ in range(5)),
            gateway.command(READ, "GET", hash_),
            gateway.command(READ, "GET", nothing),
            gateway.command(READ, "GET", "\ud800"),
            gateway.command(READ, "GET"),
            gateway.command(READ, "EVALSHA", "0" * 40, 1, text),
            gateway.script(WRITE, unheard, [text], tenant),
            gateway.command(WRITE, "INCR", text),
            gateway.command(WRITE, "INCR", counter),
            *(gateway.script(READ, ECHO, [key], key) for key in (text, hash_, nothing)),
        )
    assert ends[:5] == [b"t"] * 5
    assert str(ends[5]) == "Redis refused read: WRONGTYPE"
    assert ends[6] is None
    assert isinstance(ends[7], ValidationError)
    assert str(ends[8]) == "Redis refused read: ERR"
    assert str(ends[9]) == "Redis refused read: NOSCRIPT"
    assert ends[10] == b"unheard of" + tenant.encode()
    assert str(ends[11]) == "Redis refused write: ERR"
    assert ends[12] == 1
    assert ends[13:] == [key.encode() for key in (text, hash_, nothing)]
    assert max(map(len, sent)) > 2, "they went together"


@pytest.mark.one_server
async def test_who_brings_many_commands_delays_no_other_tenant(redis_url, tenant):
    one, other = redis_key("limit", (tenant,), "u"), redis_key("limit", (f"{tenant}-other",), "u")
    async with watched(redis_url, deadline=30) as (gateway, sent):
        many = [gateway.command(WRITE, "INCR", one) for _ in range(3000)]
        ends = await _together(*many, gateway.command(READ, "TYPE", other), gateway.script(READ, ECHO, [other], "x"))
    assert sorted(ends[:3000]) == list(range(1, 3001))
    assert ends[3000:] == [b"none", b"x"]
    batches = [batch for batch in sent if len(batch) > 1]
    assert "TYPE" in batches[0]
    assert "EVALSHA" in batches[0]


async def test_gets_become_one_command_where_all_keys_lie_together(redis_url, redis_kind, tenant, monkeypatch):
    # On a busy machine a flight may be found late, and let the next one leave early.
    monkeypatch.setattr(batching, "BatchLimits", functools.partial(BatchLimits, patience=None))
    keys = keys_of(tenant, 40)
    async with watched(redis_url) as (gateway, sent):
        for key in keys[::2]:
            await gateway.command(WRITE, "SET", key, key)
        sent.clear()
        found = await asyncio.gather(*(gateway.command(READ, "GET", key) for key in keys))
        assert found == [key.encode() if number % 2 == 0 else None for number, key in enumerate(keys)]
        assert any("MGET" in each for each in sent) == (redis_kind != "cluster")
        assert len(sent) <= 6 if redis_kind != "cluster" else len(sent) <= 12


@pytest.mark.one_server
@pytest.mark.parametrize("turns", range(14))
async def test_whoever_is_cancelled_at_whatever_point_changes_nothing_for_the_others(redis_url, tenant, turns):
    keys = keys_of(tenant, 30)
    async with opened(redis_url) as gateway:
        for round_ in range(3):
            calls = [
                gateway.command(READ, "ECHO", key)
                if number % 3 == 0
                else gateway.script(WRITE, ADD, [key], 1)
                if number % 3 == 1
                else gateway.command(READ, "GET", key)
                for number, key in enumerate(keys)
            ]
            tasks = [asyncio.ensure_future(call) for call in calls]
            for _ in range(turns):
                await asyncio.sleep(0)
            victims = [task for number, task in enumerate(tasks) if number % 4 == round_ % 4]
            for task in victims:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            for number, (key, task, end) in enumerate(zip(keys, tasks, ends, strict=True)):
                if task in victims and isinstance(end, asyncio.CancelledError):
                    continue
                if number % 3 == 0:
                    assert end == key.encode()
                elif number % 3 == 1:
                    assert 1 <= end <= round_ + 1
                else:
                    assert end is None
        assert await asyncio.wait_for(works(gateway), 5)


@pytest_asyncio.fixture
async def proxy(own_server):
    async with RedisProxy("127.0.0.1", own_server.port) as proxy:
        yield proxy


@pytest.mark.one_server
@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.STALL_AFTER])
async def test_a_fault_in_the_middle_of_a_batch_tells_each_the_truth(proxy, own_server, fault):
    for struck in (1, 2, 3, 7, 12):
        keys = [f"{fault}{struck}-{number}" for number in range(12)]
        async with opened(proxy.url, deadline=0.4, breaker=never_open()) as gateway:
            seen = 0

            def rule(_, struck=struck):
                nonlocal seen
                seen += 1
                return fault if seen == struck else None

            await works(gateway)
            proxy.commands.clear()
            proxy.rule = rule
            ends = await _together(*(gateway.command(WRITE, "INCR", key) for key in keys))
            proxy.heal()
            assert len(proxy.commands) <= len(keys), "nothing is sent twice"
            for key, end in zip(keys, ends, strict=True):
                stored = own_server.ask("GET", key)
                if isinstance(end, RepositoryError):
                    assert end.outcome in (Outcome.UNKNOWN, Outcome.NOT_APPLIED)
                    assert isinstance(end, OurConnectionError)
                    assert stored == NOTHING or (stored == "1" and end.outcome is Outcome.UNKNOWN)
                else:
                    assert (end, stored) == (1, "1")
            assert any(isinstance(end, RepositoryError) for end in ends)
            await eventually(lambda: works(gateway))


@pytest.mark.one_server
async def test_what_was_answered_before_the_connection_was_lost_is_an_answer(proxy):
    async with opened(proxy.url, breaker=never_open()) as gateway:
        await works(gateway)
        proxy.rule = lambda _: Fault.CUT_AFTER if len(proxy.commands) == 20 else None
        proxy.commands.clear()
        ends = await _together(*(gateway.command(WRITE, "INCR", str(number)) for number in range(40)))
        lost = [end for end in ends if isinstance(end, RepositoryError)]
        assert ends.count(1) >= 15
        assert len(lost) == 40 - ends.count(1) > 0


@pytest.mark.one_server
async def test_what_may_be_repeated_survives_a_loss_in_the_middle_of_a_batch(proxy):
    async with opened(proxy.url, breaker=never_open()) as gateway:
        await works(gateway)
        for struck in range(1, 12):
            proxy.cut_after(struck)
            ends = await _together(
                *(gateway.command(READ, "ECHO", str(number)) for number in range(12)),
                gateway.command(WRITE, "INCR", f"once-{struck}"),
            )
            assert ends[:12] == [str(number).encode() for number in range(12)]
            proxy.heal()
            assert await gateway.command(READ, "GET", f"once-{struck}") in (None, b"1")


@pytest.mark.one_server
async def test_a_server_that_freezes_in_the_middle_of_batches_keeps_nobody_longer_than_his_deadline(own_server):
    async with opened(own_server.url, deadline=0.4, breaker=never_open()) as gateway:
        done = 0

        async def caller(number):
            nonlocal done
            while True:
                end, took = await ended(gateway.command(WRITE, "INCR", f"k{number}"))
                assert took < 0.4 + SLACK
                if isinstance(end, RepositoryError):
                    return end
                done += 1

        callers = [asyncio.ensure_future(caller(number)) for number in range(40)]
        await eventually(lambda: done > 400)
        own_server.pause()
        ends = await asyncio.gather(*callers)
        own_server.resume()
        await eventually(lambda: works(gateway))
        applied = sum(int(own_server.ask("GET", f"k{number}")) for number in range(40))
        unknown = [end for end in ends if end.outcome is Outcome.UNKNOWN]
        assert all(isinstance(end, DeadlineExceededError) for end in ends)
        assert done <= applied <= done + len(unknown)


@pytest.mark.one_server
async def test_what_waits_at_the_server_holds_up_nobody_else(own_server):
    async with opened(own_server.url, size=16) as gateway:
        waiting = [asyncio.ensure_future(gateway.command(READ, "BLPOP", f"k{number}", 4)) for number in range(10)]
        await asyncio.sleep(0.05)
        began = time.monotonic()
        numbers = [str(number).encode() for number in range(200)]
        assert await asyncio.gather(*(gateway.command(READ, "ECHO", number) for number in numbers)) == numbers
        assert time.monotonic() - began < 4, "nobody has waited for what somebody else waits for"
        assert not any(task.done() for task in waiting)
        for number in range(10):
            await gateway.command(WRITE, "RPUSH", f"k{number}", "x")
        assert await asyncio.gather(*waiting) == [[f"k{number}".encode(), b"x"] for number in range(10)]


@pytest.mark.one_server
async def test_a_slow_script_breaks_no_deadline(own_server):
    slow = inline("for _ = 1, 2e8 do end return redis.call('INCR', KEYS[1])")  # about a second
    async with opened(own_server.url, deadline=0.3, breaker=never_open()) as gateway:
        await works(gateway)
        calls = [ended(gateway.script(WRITE, slow, ["slow"]))]
        calls += [ended(gateway.command(WRITE, "INCR", f"k{number}")) for number in range(60)]
        ends = await asyncio.gather(*calls)
        assert max(took for _, took in ends) < 0.3 + SLACK
        await eventually(lambda: works(gateway))
        assert own_server.ask("GET", "slow") == "1", "sent once, although its time was over"
        for number, (end, _) in enumerate(ends[1:]):
            stored = own_server.ask("GET", f"k{number}")
            if isinstance(end, RepositoryError):
                assert stored == NOTHING or (stored == "1" and end.outcome is Outcome.UNKNOWN)
            else:
                assert (end, stored) == (1, "1")


async def test_observers_and_the_breaker_see_each_call_of_a_batch(own_server):
    seen = []
    async with opened(own_server.url, deadline=0.3, observers=[seen.append], breaker=Breaker(30, 60)) as gateway:
        await asyncio.gather(*(gateway.command(Operation(str(n), "test", "Thing"), "ECHO", n) for n in range(25)))
        assert sorted(int(each.operation) for each in seen) == list(range(25))
        own_server.pause()
        await _together(*(gateway.command(READ, "ECHO", "x") for _ in range(29)))
        assert not gateway.breaker.is_open
        await _together(gateway.command(READ, "ECHO", "x"))
        assert gateway.breaker.is_open
        own_server.resume()
