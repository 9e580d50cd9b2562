"""P9: what the scripts decide, against oracles that remember everything, at moments that hypothesis chooses."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rate_limit_support import MICROSECONDS, Bench, limit_bench
from redis_scale import scaled

from convostore.models.redis.rate_limits import WHOLE_TENANT, RateLimitPolicy

pytestmark = pytest.mark.one_server

BUCKETS = 60
START = 1_900_000_000 * MICROSECONDS
STEPS = 100
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
windows = st.sampled_from([1, 2, 7, 60, 3600])
# Fractions of a window in 1/6000, many on the edge of a sub-bucket (100), and a clock that goes back.
pauses = st.one_of(st.just(0), st.sampled_from([1, 99, 100, 101, 3000, 5999, 6000, 6001, 6100]), st.integers(-50, 900))
steps = st.lists(st.tuples(pauses, st.integers(0, 9), st.integers(1, 5)), min_size=STEPS, max_size=STEPS)


def profile(examples: int) -> settings:
    """Return how a property is tried; so many examples at full size."""
    return settings(
        max_examples=scaled(examples),
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=_SLOW,
        phases=[Phase.generate],
    )


@pytest.fixture
def bench(redis_settings):
    with limit_bench(redis_settings) as opened:
        yield opened


class WindowOracle:
    """Every unit ever taken and its moment; moments never go back, as the ring's do not."""

    def __init__(self, window: int) -> None:
        self.window = window * MICROSECONDS
        self.width = -(-self.window // BUCKETS)
        self.taken: list[tuple[int, int]] = []
        self.newest = 0

    def take(self, now: int, units: int) -> None:
        self.newest = max(self.newest, now // self.width)
        self.taken.append((max(now, self.newest * self.width), units))

    def trailing(self, now: int) -> int:
        """Return the units in the window that ends now, both ends included."""
        now = max(now, self.newest * self.width)
        return sum(units for moment, units in self.taken if moment >= now - self.window)

    def with_slack(self, now: int) -> int:
        """Return the units in a window that is longer by one sub-bucket."""
        now = max(now, self.newest * self.width)
        return sum(units for moment, units in self.taken if moment > now - (BUCKETS + 1) * self.width)


async def _is_true(bench: Bench, tenant: str, now: int, retry_after: float, peek: Callable[[], Any]) -> None:
    """Make sure that a call is admitted after ``retry_after``, and not before."""
    moment = now + round(retry_after * MICROSECONDS)
    await bench.set_clock(tenant, moment - 1)
    assert not (await peek()).allowed
    await bench.set_clock(tenant, moment)
    assert (await peek()).allowed
    await bench.set_clock(tenant, now)


class Tally:
    """How much has been tried, so that a test can say that it was enough."""

    def __init__(self) -> None:
        self.steps = self.admitted = self.denied = self.backwards = 0


async def _run_window(
    bench: Bench, window: int, limit: int, schedule: list[tuple[int, int, int]], tally: Tally
) -> None:
    limits, tenant, now = bench.limits(), uuid.uuid4().hex, START
    oracle = WindowOracle(window)
    for pause, kind, cost in schedule:
        now += pause * oracle.window // 6000
        tally.backwards += pause < 0
        await bench.set_clock(tenant, now)
        tally.steps += 1
        if kind == 9:  # taken in any case
            count = await limits.increment_counter(tenant, "u", window, cost=cost)
            oracle.take(now, cost)
            assert oracle.trailing(now) <= count <= oracle.with_slack(now)
            continue
        if kind == 8:  # a plan changes, and what is counted stays
            limit = 1 + (limit + cost) % 20
        units = min(cost, limit)
        result = await limits.check_rate_limit(tenant, "u", limit, window, cost=units)
        if result.allowed:
            oracle.take(now, units)
            assert oracle.trailing(now) <= limit
            assert result.retry_after == 0
            tally.admitted += 1
        else:
            assert oracle.with_slack(now) + units > limit
            await _is_true(
                bench, tenant, now, result.retry_after,
                lambda: limits.peek_rate_limits(tenant, [("u", f"{limit}/{window}s")], cost=units),
            )  # fmt: skip
            tally.denied += 1
        assert oracle.trailing(now) <= result.current_count <= oracle.with_slack(now)
        assert result.remaining == max(0, limit - result.current_count)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_trailing_window_ever_sees_more_than_the_limit_and_no_denial_is_without_cause(bench):
    tally = Tally()

    @profile(210)
    @given(windows, st.integers(1, 20), steps)
    def run(window, limit, schedule):
        bench.run(_run_window(bench, window, limit, schedule, tally))

    run()
    assert tally.steps >= scaled(20_000)
    assert min(tally.admitted, tally.denied, tally.backwards) > scaled(200)


class SmoothOracle:
    """A leaking bucket in exact numbers."""

    def __init__(self, limit: int, window: int, burst: int) -> None:
        self.rate = Fraction(limit, window * MICROSECONDS)
        self.burst = burst
        self.units, self.at = Fraction(0), 0

    def level(self, now: int) -> Fraction:
        return max(Fraction(0), self.units - (max(now, self.at) - self.at) * self.rate)

    def take(self, now: int, units: int) -> None:
        self.units, self.at = self.level(now) + units, max(now, self.at)


async def _run_smooth(bench: Bench, window: int, limit: int, burst: int, schedule: list[Any]) -> None:
    policy = RateLimitPolicy(name="even", limit=limit, window_seconds=window, algorithm="smooth", burst=burst)
    limits, tenant, now = bench.limits(policies=[policy]), uuid.uuid4().hex, START
    oracle = SmoothOracle(limit, window, burst)
    for pause, _, cost in schedule:
        now += pause * window * MICROSECONDS // 6000 // limit
        await bench.set_clock(tenant, now)
        units = min(cost, burst)
        result = await limits.check_rate_limit(tenant, "u", policy="even", cost=units)
        missing = oracle.level(now) + units - burst
        if abs(missing) > Fraction(1, 1_000_000):
            assert result.allowed == (missing < 0)
        if result.allowed:
            oracle.take(now, units)
        else:
            await _is_true(
                bench, tenant, now, result.retry_after,
                lambda: limits.peek_rate_limits(tenant, [("u", "even")], cost=units),
            )  # fmt: skip
        assert abs(result.current_count - oracle.level(now)) <= 1
        assert (
            abs(result.reset_after - (max(0, oracle.at - now) + oracle.level(now) / oracle.rate) / MICROSECONDS) < 0.01
        )


@pytest.mark.slow
def test_smoothing_admits_what_an_exact_bucket_admits(bench):
    @profile(40)
    @given(windows, st.integers(1, 50), st.integers(1, 10), steps)
    def run(window, limit, burst, schedule):
        bench.run(_run_smooth(bench, window, limit, burst, schedule))

    run()


def _period(algorithm: str, moment: int) -> tuple[datetime, int]:
    now = datetime.fromtimestamp(moment // MICROSECONDS, UTC)
    begin = now.replace(hour=0, minute=0, second=0)
    following = begin + timedelta(days=1)
    if algorithm == "month":
        begin = begin.replace(day=1)
        following = (begin + timedelta(days=32)).replace(day=1)
    return begin, round(following.timestamp()) * MICROSECONDS


async def _run_calendar(bench: Bench, algorithm: str, limit: int, first: int, schedule: list[Any]) -> None:
    policy = RateLimitPolicy(name="quota", limit=limit, algorithm=algorithm)
    limits, tenant, now = bench.limits(policies=[policy]), uuid.uuid4().hex, first * MICROSECONDS
    taken: dict[datetime, int] = {}
    for hours, cost in schedule:
        now += hours * 3600 * MICROSECONDS + 1
        await bench.set_clock(tenant, now)
        period, end = _period(algorithm, now)
        units = min(cost, limit)
        result = await limits.check_rate_limit(tenant, "u", policy="quota", cost=units)
        assert result.allowed == (taken.get(period, 0) + units <= limit)
        if result.allowed:
            taken[period] = taken.get(period, 0) + units
        else:
            assert round(result.retry_after * MICROSECONDS) == end - now
        assert result.current_count == taken.get(period, 0)
        assert result.reset_time * MICROSECONDS == end


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["day", "month"])
def test_quotas_follow_the_calendar(bench, algorithm):
    moments = st.integers(0, 4_000_000_000)
    hours = st.one_of(st.integers(0, 30), st.sampled_from([0, 24, 672, 696, 744, 8784]))

    @profile(100)
    @given(st.integers(1, 12), moments, st.lists(st.tuples(hours, st.integers(1, 4)), min_size=1, max_size=40))
    def run(limit, first, schedule):
        bench.run(_run_calendar(bench, algorithm, limit, first, schedule))

    run()


async def _run_several(bench: Bench, schedule: list[tuple[int, list[int], int]]) -> None:
    known = [("a", "3/2s"), ("a", "5/7s"), ("b", "3/2s"), (WHOLE_TENANT, "8/7s"), (WHOLE_TENANT, "9/60s")]
    bounds = [3, 5, 3, 8, 9]
    oracles = [WindowOracle(seconds) for seconds in (2, 7, 2, 7, 60)]
    limits, tenant, now = bench.limits(), uuid.uuid4().hex, START
    for pause, chosen, cost in schedule:
        now += pause * 2 * MICROSECONDS // 6000
        await bench.set_clock(tenant, now)
        result = await limits.check_rate_limits(tenant, [known[number] for number in chosen], cost=cost)
        if result.allowed:
            for number in chosen:
                oracles[number].take(now, cost)
                assert oracles[number].trailing(now) <= bounds[number]
        else:
            assert any(oracles[number].with_slack(now) + cost > bounds[number] for number in chosen)
            await _is_true(
                bench, tenant, now, result.retry_after,
                lambda: limits.peek_rate_limits(tenant, [known[number] for number in chosen], cost=cost),
            )  # fmt: skip
        for number, oracle in enumerate(oracles):
            told = await limits.peek_rate_limits(tenant, [known[number]])
            assert oracle.trailing(now) <= told.current_count <= oracle.with_slack(now)


@pytest.mark.slow
def test_several_policies_take_from_all_or_from_none(bench):
    chosen = st.lists(st.integers(0, 4), min_size=1, max_size=5, unique=True)
    moves = st.lists(st.tuples(pauses.filter(lambda pause: pause >= 0), chosen, st.integers(1, 3)), max_size=40)

    @profile(60)
    @given(moves)
    def run(schedule):
        bench.run(_run_several(bench, schedule))

    run()


async def _run_reservations(bench: Bench, schedule: list[tuple[int, int, int, int]]) -> None:
    limits, tenant, now = bench.limits(policies={"tokens": "1000 per calendar month"}), uuid.uuid4().hex, START
    held: dict[str, tuple[Any, int, int]] = {}
    used, settled = 0, {}
    for pause, kind, units, which in schedule:
        now += pause * MICROSECONDS
        await bench.set_clock(tenant, now)
        names = sorted(held | settled)
        name = names[which % len(names)] if names else ""
        if kind <= 1:
            reservation = await limits.reserve(
                tenant, [("u", "tokens"), (WHOLE_TENANT, "tokens")], units, lease_seconds=10
            )
            again = await limits.reserve(
                tenant, [("u", "tokens"), (WHOLE_TENANT, "tokens")], units, lease_seconds=10,
                reservation_id=reservation.reservation_id,
            )  # fmt: skip
            assert reservation.allowed
            assert again.allowed
            held[reservation.reservation_id] = (reservation, now + 10 * MICROSECONDS, units)
        elif kind == 2 and name in held:
            reservation, ends, _ = held.pop(name)
            known = await limits.commit(reservation, which)
            assert known or now >= ends + 10 * MICROSECONDS
            used += which if known else 0
            settled[name] = reservation
        elif kind == 3 and name in settled:
            await limits.commit(settled[name], units)  # again: nothing changes
        living = sum(units for _, ends, units in held.values() if ends > now)
        for identifier in ("u", WHOLE_TENANT):
            info = await limits.get_rate_limit_info(tenant, identifier, policy="tokens")
            assert info["current_count"] == used + living


@pytest.mark.slow
def test_a_reservation_counts_until_it_is_settled_or_its_lease_is_over(bench):
    moves = st.tuples(
        st.sampled_from([0, 1, 3, 9, 10, 11, 25]), st.integers(0, 3), st.integers(1, 9), st.integers(0, 12)
    )

    @profile(60)
    @given(st.lists(moves, max_size=40))
    def run(schedule):
        bench.run(_run_reservations(bench, schedule))

    run()
