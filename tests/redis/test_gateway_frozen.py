"""P11, P16: every call ends by its deadline, whatever the server does, and what comes back works again."""

import asyncio
import time

import pytest
from gateway_support import ADD, ECHO, READ, WRITE, ended, eventually, opened, works

from convostore.gateways.breaker import Breaker
from convostore.repositories.exceptions import ConnectionError as OurConnectionError
from convostore.repositories.exceptions import DeadlineExceededError, Outcome

pytestmark = pytest.mark.one_server
DEADLINE = 0.3
SLACK = 1.5  # the machine has few cores and many tests


def never_open():
    return Breaker(failures=10**9)


async def _each_way(gateway):
    return await asyncio.gather(
        ended(gateway.command(WRITE, "SET", "k", "v")),
        ended(gateway.commands(READ, [("GET", "a"), ("GET", "b")])),
        ended(gateway.script(WRITE, ADD, ["n"], 1)),
        ended(gateway.scripts(READ, ECHO, [(["k"], ["x"])] * 3)),
        ended(gateway.each_node(READ, "DBSIZE")),
        ended(anext(gateway.scan(READ, "*"))),
    )


async def test_every_call_to_a_frozen_server_ends_by_its_deadline_and_works_after_the_thaw(own_server):
    async with opened(own_server.url, deadline=DEADLINE, breaker=never_open()) as gateway:
        await gateway.command(WRITE, "SET", "k", "1")
        own_server.pause()
        for error, seconds in await _each_way(gateway):
            assert isinstance(error, DeadlineExceededError)
            assert seconds < DEADLINE + SLACK
        own_server.resume()
        gateway.deadline = 5
        assert await works(gateway)
        assert not [error for error, _ in await _each_way(gateway) if isinstance(error, Exception)]


async def test_500_calls_at_once_to_a_frozen_server_end_by_their_deadline(own_server, capsys):
    async with opened(own_server.url, size=8, deadline=DEADLINE, breaker=never_open()) as gateway:
        await works(gateway)
        own_server.pause()
        calls = await asyncio.gather(*(ended(gateway.command(WRITE, "INCR", "k")) for _ in range(500)))
        own_server.resume()
        assert all(isinstance(error, DeadlineExceededError) for error, _ in calls)
        assert max(seconds for _, seconds in calls) < DEADLINE + SLACK
        sent = [error for error, _ in calls if error.outcome is Outcome.UNKNOWN]
        assert len(sent) >= int(own_server.ask("GET", "k") or 0)
        gateway.deadline = 5
        assert await gateway.command(WRITE, "INCR", "k") <= len(sent) + 1
    with capsys.disabled():
        print(f"\n500 calls to a frozen server: slowest {max(seconds for _, seconds in calls):.2f} s of {DEADLINE} s")


async def test_the_breaker_spares_callers_the_wait_until_the_server_answers_again(own_server):
    async with opened(own_server.url, deadline=DEADLINE, breaker=Breaker(3, 0.2)) as gateway:
        await works(gateway)
        own_server.pause()
        await asyncio.gather(*(ended(gateway.command(WRITE, "INCR", "k")) for _ in range(3)))
        assert gateway.breaker.is_open
        started = time.monotonic()
        calls = await asyncio.gather(*(ended(gateway.command(WRITE, "INCR", "k")) for _ in range(1_000)))
        quick = [error for error, _ in calls if not isinstance(error, DeadlineExceededError)]
        waited = len(calls) - len(quick)
        assert waited <= 1 + (time.monotonic() - started) / 0.2, "one in each pause may go through"
        assert {str(error) for error in quick} == {"Redis does not answer: write was not sent"}
        assert {error.outcome for error in quick} == {Outcome.NOT_APPLIED}
        own_server.resume()
        await eventually(lambda: works(gateway))
        assert not gateway.breaker.is_open


async def test_a_trial_that_is_cancelled_does_not_keep_the_breaker_open(own_server):
    async with opened(own_server.url, deadline=5, breaker=Breaker(1, 0.05)) as gateway:
        own_server.kill()
        await ended(gateway.command(READ, "ECHO", "x"))
        own_server.start()
        await asyncio.sleep(0.06)
        trial = asyncio.ensure_future(gateway.command(READ, "BLPOP", "k", 5))
        await asyncio.sleep(0.02)
        trial.cancel()
        await asyncio.wait([trial])
        assert gateway.breaker.is_open
        await eventually(lambda: works(gateway))


async def test_a_server_that_comes_back_empty_is_used_again_without_a_restart(own_server):
    async with opened(own_server.url, size=8, breaker=never_open()) as gateway:
        for round_ in range(3):
            await asyncio.gather(*(gateway.script(WRITE, ADD, ["k"], 1) for _ in range(30)))
            own_server.restart()
            await asyncio.sleep(0.05)  # the loop learns that the old connections are closed
            assert await gateway.script(WRITE, ADD, ["k"], 1) == 1, round_
            assert await gateway.scripts(WRITE, ADD, [(["k"], [1])] * 3) == [2, 3, 4]
            own_server.ask("FLUSHALL")


async def test_while_the_server_is_away_calls_fail_at_once_and_nothing_was_applied(own_server):
    async with opened(own_server.url, breaker=never_open()) as gateway:
        await works(gateway)
        own_server.kill()
        await asyncio.sleep(0.05)
        for error, _ in await _each_way(gateway):
            assert isinstance(error, OurConnectionError)
            assert not isinstance(error, DeadlineExceededError)
            assert error.outcome is Outcome.NOT_APPLIED
            assert "no connection to Redis could be made for" in str(error)
        own_server.start()
        assert await works(gateway)
