"""In an open loop a call's latency counts from the moment when it was due, whatever the earlier calls do."""

import asyncio
import math
from itertools import pairwise

import pytest
from benchmarks.clocks import Clocks
from benchmarks.contest import Call, Contestant
from benchmarks.open_loop import Load, OpenLoop, Tally
from virtual_loop import VirtualLoop, run

SERVICE = 0.001


@pytest.fixture
def loop() -> VirtualLoop:
    return VirtualLoop()


def measured(loop: VirtualLoop, call: Call, load: Load) -> Tally:
    clocks = Clocks(wall=loop.time, client=lambda: 2 * loop.time(), servers=lambda: 3 * loop.time())
    return run(OpenLoop(Contestant("anybody", call), load, clocks).run(), loop)


def test_arrivals_are_a_poisson_process_and_the_same_every_time():
    load = Load(rate=1_000, seconds=20)
    arrivals = list(load.arrivals())
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    mean = math.fsum(gaps) / len(gaps)
    deviation = math.sqrt(math.fsum((gap - mean) ** 2 for gap in gaps) / len(gaps))
    assert arrivals == list(load.arrivals())
    assert arrivals == sorted(arrivals)
    assert mean == pytest.approx(1 / 1_000, rel=0.05)
    assert deviation == pytest.approx(mean, rel=0.05)  # of an exponential distribution both are equal
    assert list(load._replace(seed=8).arrivals()) != arrivals


def test_a_server_that_keeps_up_answers_each_call_in_its_own_time(loop):
    load = Load(rate=1_000, seconds=1)
    tally = measured(loop, lambda: asyncio.sleep(SERVICE), load)
    assert tally.arrived == tally.served == len(list(load.arrivals()))
    assert (tally.late, tally.failed, tally.given_up) == (0, 0, 0)
    assert tally.percentile(0.5) == pytest.approx(SERVICE)
    assert tally.worst == pytest.approx(SERVICE, rel=0.1)
    assert tally.servers == pytest.approx(1.5 * tally.client)


def test_a_stalled_call_shows_in_the_latencies_of_those_that_were_due_meanwhile(loop):
    load = Load(rate=1_000, seconds=2, late=0.1)
    arrivals = list(load.arrivals())
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        if calls == 200:
            loop.stall(0.5)
        await asyncio.sleep(SERVICE)

    tally = measured(loop, call, load)
    stalled = arrivals[199]
    waited = [due for due in arrivals if stalled <= due < stalled + 0.5 + SERVICE - load.late]
    assert tally.served == len(arrivals)
    assert tally.late == pytest.approx(len(waited), abs=3)
    assert tally.percentile(0.5) == pytest.approx(SERVICE, rel=0.1)
    assert tally.percentile(0.99) > 0.45
    assert tally.worst == pytest.approx(0.5 + SERVICE, rel=0.02)


def test_a_server_too_slow_leaves_a_queue_and_those_given_up_count_with_their_age(loop):
    one_at_a_time = asyncio.Lock()

    async def call() -> None:
        async with one_at_a_time:
            await asyncio.sleep(0.002)

    load = Load(rate=1_000, seconds=1, patience=0.5)
    tally = measured(loop, call, load)
    assert tally.queue == pytest.approx(tally.arrived - 500, abs=2)
    assert tally.served == pytest.approx(750, abs=2)
    assert tally.given_up == tally.arrived - tally.served
    assert len(tally.latencies) == tally.arrived
    assert tally.worst > load.patience


def test_failed_calls_are_counted_and_have_no_latency(loop):
    calls = 0

    async def call() -> None:
        nonlocal calls
        calls += 1
        if calls % 10 == 0:
            raise OSError

    tally = measured(loop, call, Load(rate=1_000, seconds=1))
    assert tally.failed == tally.arrived // 10
    assert tally.served == tally.arrived - tally.failed
    assert tally.queue == 0


def test_turns_add_up():
    total = Tally(arrived=2, latencies=[1.0, 2.0], late=1, queue=3, client=0.5, servers=0.25)
    total.add(Tally(arrived=3, latencies=[3.0], failed=2, queue=1, client=0.5, servers=0.25))
    assert (total.arrived, total.served, total.late, total.failed, total.queue) == (5, 3, 1, 2, 3)
    assert (total.client, total.servers, total.worst) == (1.0, 0.5, 3.0)
