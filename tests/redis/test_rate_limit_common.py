"""The common case of a check is a shorter way to the same end: answers and what is stored are those of the long way."""

import uuid
from dataclasses import replace
from functools import cached_property
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rate_limit_support import MICROSECONDS, ClockedScript, clocked, limit_bench
from redis_scale import scaled

from convostore.gateways.operation import Operation
from convostore.gateways.scripts import Script
from convostore.models.redis.rate_limits import WHOLE_TENANT, AbuseGuard, RateLimitPolicy
from convostore.repositories.rate_limit_keys import identity_key
from convostore.repositories.rate_limit_server import LimitScripts

pytestmark = pytest.mark.one_server

START = 1_900_000_000 * MICROSECONDS
GUARD = AbuseGuard(denials=2, within_seconds=30, block_seconds=3, longest_block_seconds=20)
LOOK = Operation("look", "limit", "RateLimit")
WINDOWS = [RateLimitPolicy(name="p", limit=limit, window_seconds=window) for limit, window in ((4, 6), (9, 6), (6, 20))]
OTHERS = [
    RateLimitPolicy(name="p", limit=5, window_seconds=6, algorithm="smooth", burst=3),
    RateLimitPolicy(name="p", limit=50, algorithm="day"),
]
BESIDE = RateLimitPolicy(name="q", limit=7, window_seconds=6)
_COMMON = Script("limit_common")


class LongWay(ClockedScript):
    """A check that takes nothing for common."""

    @cached_property
    def text(self) -> str:
        """The source, without the common case."""
        assert _COMMON.text in super().text
        return super().text.replace(_COMMON.text, "local present, seen = now(), {}")


def long_way(guarded: bool) -> LimitScripts:
    scripts = clocked(LimitScripts.of(guarded=guarded))
    check = scripts.check
    return replace(scripts, check=LongWay(check.name, check.parts, check.writes, check.repeatable))


class Way:
    """A tenant whose checks all go the one way, or the other."""

    def __init__(self, bench, long: bool) -> None:
        self.bench, self.tenant = bench, uuid.uuid4().hex
        self.limits = [self._limits(guard, long) for guard in (None, GUARD)]
        self.held: dict[str, Any] = {}

    def _limits(self, guard, long):
        scripts = {"scripts": long_way(guard is not None)} if long else {}
        return self.bench.limits(guard=guard, **scripts)

    async def step(self, now, guarded, kind, policy, cost, name):
        await self.bench.set_clock(self.tenant, now)
        limits = self.limits[guarded]
        subjects = [("u", policy), ("u", BESIDE), (WHOLE_TENANT, policy)]
        if kind == "force":
            return await limits.increment_counter(self.tenant, "u", 6, cost=cost)
        if kind == "reserve":
            self.held[name] = await limits.reserve(
                self.tenant, subjects[:2], cost, lease_seconds=4, reservation_id=name
            )
            return told(self.held[name].result)
        if kind == "commit":
            held = self.held.get(name)
            return held and held.allowed and await limits.commit(held, cost)
        return told(await limits.check_rate_limits(self.tenant, subjects[: int(kind)], cost=cost))

    async def stored(self):
        keys = [identity_key(self.tenant, identifier) for identifier in ("u", WHOLE_TENANT)]
        hashes = [await self.bench.clients.state.command(LOOK, "HGETALL", key) for key in keys]
        return [sorted(zip(found[::2], found[1::2], strict=True)) for found in hashes]


def told(result):
    return [
        (*part, part.policy.name, part.remaining, part.retry_after, part.reset_after, part.blocked)
        for part in result.each
    ]


pauses = st.one_of(
    st.just(0), st.sampled_from([1, 99_999, 100_000, 2_000_000, 6_000_000]), st.integers(-50_000, 900_000)
)
kinds = st.sampled_from(["1", "1", "1", "2", "3", "force", "reserve", "commit"])
policies = st.sampled_from(WINDOWS * 5 + OTHERS)
moves = st.tuples(pauses, st.booleans(), kinds, policies, st.integers(1, 3), st.sampled_from(["a", "b", "c"]))


@pytest.mark.slow
def test_the_common_case_answers_and_stores_what_the_long_way_does(redis_settings):
    with limit_bench(redis_settings) as bench:

        async def run_both(schedule):
            short, long, now = Way(bench, long=False), Way(bench, long=True), START
            for pause, *move in schedule:
                now += pause
                assert await short.step(now, *move) == await long.step(now, *move), move
                assert await short.stored() == await long.stored(), move

        @settings(
            max_examples=scaled(120),
            deadline=None,
            database=None,
            print_blob=True,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
            phases=[Phase.generate],
        )
        @given(st.lists(moves, min_size=60, max_size=60))
        def run(schedule):
            bench.run(run_both(schedule))

        run()
