"""The closed loop tells what its clocks say: ratios within a round, processor time for each operation."""

import pytest
from benchmarks.clocks import Clocks
from benchmarks.contest import Call, Contestant
from benchmarks.figures import Spread, percentile
from benchmarks.measuring import Plan, Result, Sample, compare, take_turn
from made_up import case


class Machine:
    """A machine on which everything takes exactly as long as it is said to."""

    def __init__(self) -> None:
        self.wall = self.client = self.servers = 0.0
        self.turns: list[str] = []

    @property
    def clocks(self) -> Clocks:
        return Clocks(lambda: self.wall, lambda: self.client, lambda: self.servers)

    def work(self, name: str, seconds: float, *, every: int = 0, slow: float = 0.0) -> Call:
        """Return a call of a duration, or of another one every so many times."""
        calls = 0

        async def call() -> None:
            nonlocal calls
            calls += 1
            self.turns.append(name)
            self.wall += slow if every and calls % every == 0 else seconds
            self.client += seconds / 2
            self.servers += seconds / 4

        return call


@pytest.fixture
def machine() -> Machine:
    return Machine()


async def test_ratios_times_and_processors_are_those_of_the_clocks(machine):
    pair = case(("raw", machine.work("raw", 0.004)), ("ours", machine.work("ours", 0.001)))
    raw, ours = await compare(pair, 1, Plan(rounds=5, seconds=0.4), machine.clocks)
    assert (raw.contestant, ours.contestant) == ("raw", "ours")
    assert raw.throughput.median == raw.time.median == 1
    assert ours.throughput.median == pytest.approx(4)
    assert (ours.time.median, ours.tail.median) == pytest.approx((0.25, 0.25))
    assert ours.per_second == pytest.approx(1_000)
    assert ours.spent("client") == pytest.approx(0.0005)
    assert ours.spent("servers") == pytest.approx(0.00025)
    assert [sample.operations for sample in ours.samples] == [400] * 5
    assert [sample.operations for sample in raw.samples] == [100] * 5


async def test_contestants_take_turns_in_an_order_that_rotates(machine):
    three = case(*((name, machine.work(name, 0.01)) for name in "abc"))
    await compare(three, 1, Plan(rounds=3, seconds=0.01, at_most=1), machine.clocks)
    assert "".join(machine.turns) == "aabbcc" + "abc" + "bca" + "cab"


async def test_several_callers_call_often_enough_for_a_steady_state(machine):
    one = case(("raw", machine.work("raw", 0.01)))
    plan = Plan(rounds=2, seconds=0.01, at_least=6)
    assert [sample.operations for sample in (await compare(one, 4, plan, machine.clocks))[0].samples] == [24, 24]
    assert [sample.operations for sample in (await compare(one, 1, plan, machine.clocks))[0].samples] == [1, 1]


async def test_a_slow_call_in_fifty_is_in_the_tail_only(machine):
    pair = case(("raw", machine.work("raw", 0.001)), ("ours", machine.work("ours", 0.001, every=50, slow=0.02)))
    _, ours = await compare(pair, 1, Plan(rounds=4, seconds=0.2), machine.clocks)
    assert ours.time.median == pytest.approx(1)
    assert ours.tail.median == pytest.approx(20)


async def test_what_calls_leave_for_later_counts_for_throughput(machine):
    call = machine.work("ours", 0.001)
    sample = await take_turn(Contestant("ours", call, machine.work("settle", 0.1)), 4, 25, machine.clocks)
    assert sample.operations == 100
    assert sample.wall == pytest.approx(0.2)
    assert sample.each == pytest.approx(0.002)
    assert sample.client == pytest.approx(0.001)


async def test_failures_are_counted(machine):
    async def fail() -> None:
        raise OSError

    results = await compare(case(("raw", fail)), 2, Plan(rounds=3, seconds=1, at_most=5), Clocks())
    assert results[0].failed == sum(sample.operations for sample in results[0].samples) == 30


def test_a_spread_is_the_middle_half():
    assert Spread.of([8, 1, 2, 3, 4, 5, 6, 7]) == Spread(4.5, 3, 6)
    assert Spread.of([3]) == Spread(3, 3, 3)


def test_percentiles_are_of_the_nearest_rank():
    ordered = list(range(1, 101))
    assert [percentile(ordered, share) for share in (0, 0.5, 0.99, 1)] == [1, 50, 99, 100]
    assert percentile([7], 0.99) == 7
    assert percentile([], 0.5) != percentile([], 0.5)  # not a number


def test_processor_time_is_that_of_all_turns_together():
    turns = [Sample(100, 0, 1, 0.0, 0.0, 1, 1), Sample(300, 0, 1, 0.004, 0.0004, 1, 1)]
    assert Result("work", 1, "anybody", turns, turns).spent("servers") == pytest.approx(0.0003)
