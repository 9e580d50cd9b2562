"""An overload is twice what can be served, and what becomes of each call is told in the second in which it was due."""

import asyncio

import pytest
from benchmarks.clocks import Clocks
from benchmarks.contest import Call, Contestant
from benchmarks.overload import CALLERS, TOO_LATE, Overload, Plan, overload
from virtual_loop import VirtualLoop, run

from convostore import DeadlineExceededError

SERVICE = 0.001
PLAN = Plan(10, before=2, during=3, after=3)


@pytest.fixture
def loop() -> VirtualLoop:
    return VirtualLoop()


def measured(loop: VirtualLoop, call: Call) -> Overload:
    return run(overload("work", Contestant("anybody", call), PLAN, Clocks(wall=loop.time)), loop)


def server(most: int) -> Call:
    """Return a call that is served one at a time, and turned away where so many wait."""
    one_at_a_time, waiting = asyncio.Lock(), 0

    async def call() -> None:
        nonlocal waiting
        if waiting >= most:
            raise DeadlineExceededError("database", message="too many calls wait")
        waiting += 1
        async with one_at_a_time:
            waiting -= 1
            await asyncio.sleep(SERVICE)

    return call


def test_what_cannot_be_served_is_refused_and_what_waited_is_served_soon_after(loop):
    found = measured(loop, server(most=1_000))
    before, during, after = found.phases
    assert found.capacity == pytest.approx(1 / SERVICE, rel=0.01)
    assert [round(sum(each.arrived for each in found.of(phase)), -2) for phase in found.phases] == [1000, 6000, 1500]
    assert sum(second.refused for second in found.of(before)) == 0
    assert sum(second.refused for second in found.of(during)) == pytest.approx(2_000, abs=100)
    assert found.tail(during) == pytest.approx(1.0, rel=0.1)
    assert found.tails(after)[0] == pytest.approx(1.0, rel=0.1)
    assert found.back_after == 2
    assert all(
        second.arrived == len(second.latencies) + second.refused and second.resident > 0 for second in found.seconds
    )


def test_calls_that_end_by_their_deadline_or_wrongly_are_told_apart(loop):
    calls, serve = 0, server(most=100_000)

    async def call() -> None:
        nonlocal calls
        await serve()
        calls += 1
        if calls % 4 == 0:
            raise DeadlineExceededError("database", message="time is over")
        if calls % 4 == 1:
            raise OSError

    found = measured(loop, call)
    arrived = sum(second.arrived for second in found.seconds)
    assert sum(second.late for second in found.seconds) == pytest.approx(arrived / 4, rel=0.1)
    assert sum(second.failed for second in found.seconds) == pytest.approx(arrived / 4, rel=0.1)
    assert sum(second.refused for second in found.seconds) == 0


def test_calls_that_the_caller_is_too_late_for_are_not_made(loop):
    made, serve = 0, server(most=100_000)

    async def call() -> None:
        nonlocal made
        await serve()
        made += 1
        if made == (2 + PLAN.calls) * CALLERS + 500:  # after those of the closed loop
            loop.stall(TOO_LATE + 0.5)

    found = measured(loop, call)
    missed = [second.missed for second in found.seconds]
    rate = found.capacity * found.phases[0].factor
    assert sum(missed) == pytest.approx(0.5 * rate, rel=0.2)
    assert sum(len(second.latencies) for second in found.seconds) == sum(s.arrived for s in found.seconds) - sum(missed)
