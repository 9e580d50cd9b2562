"""What a process decides by itself: its share of a limit, and the denials that it remembers."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convostore.models.redis.rate_limit_result import RateLimitResult
from convostore.models.redis.rate_limits import RateLimitPolicy
from convostore.repositories import denials as denials_module
from convostore.repositories import local_limiter
from convostore.repositories.denials import Denials
from convostore.repositories.local_limiter import LocalLimiter
from convostore.repositories.rate_limit_keys import BUCKETS, Policies, Request
from convostore.repositories.rate_limit_repository import RateLimitRepository

POLICIES = Policies()
MICROSECONDS = 1_000_000


def asked(text="5/minute", identifier="u", cost=1, tenant="t"):
    return Request(tenant, (POLICIES.subject(identifier, text),), cost)


class Clock:
    def __init__(self):
        self.now = 1_000_000_000

    def __call__(self):
        return self.now


moves = st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 3), st.integers(1, 3)), max_size=120)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 4), st.integers(1, 20), moves)
def test_together_the_shares_never_exceed_the_limit(processes, limit, schedule):
    clock, window, width = Clock(), 2 * MICROSECONDS, -(-2 * MICROSECONDS // BUCKETS)
    limiters = [LocalLimiter(processes, clock) for _ in range(processes)]
    taken = [[] for _ in limiters]
    for pause, which, cost in schedule:
        clock.now += pause * 10
        number = which % processes
        request = asked(f"{limit}/2s", cost=min(cost, limit))
        result = limiters[number].check(request)
        share = limit // processes
        if result.allowed:
            taken[number].append((clock.now, request.cost))
            assert sum(units for each in taken for at, units in each if at >= clock.now - window) <= limit
        else:
            slack = sum(units for at, units in taken[number] if at > clock.now - (BUCKETS + 1) * width)
            assert slack + request.cost > share
            if request.cost <= share:
                clock.now += round(result.retry_after * MICROSECONDS) - 1
                assert not limiters[number].check(request, take=False).allowed
                clock.now += 1
                assert limiters[number].check(request, take=False).allowed


def test_a_local_denial_takes_nothing_from_any_policy():
    limiter = LocalLimiter(1)
    both = Request("t", (POLICIES.subject("u", "2/hour"), POLICIES.subject("v", "5/hour")), 1)
    assert [limiter.check(both).allowed for _ in range(4)] == [True, True, False, False]
    assert limiter.check(asked("5/hour", "v"), take=False).current_count == 2


def test_tenants_identities_and_policies_count_apart_in_the_process():
    limiter = LocalLimiter(1)
    for request in (asked("1/hour"), asked("1/minute"), asked("1/hour", "v"), asked("1/hour", tenant="s")):
        assert limiter.check(request).allowed
        assert not limiter.check(request).allowed
    limiter.forget("t", "u")
    assert limiter.check(asked("1/hour")).allowed
    assert not limiter.check(asked("1/hour", "v")).allowed


def test_the_process_keeps_a_bounded_number_of_rings(monkeypatch):
    monkeypatch.setattr(local_limiter, "MOST_RINGS", 10)
    limiter = LocalLimiter(1)
    for number in range(100):
        limiter.check(asked(identifier=f"u-{number}"))
    assert len(limiter) == 10


def denial(retry_after, reset_after=60.0):
    policy = RateLimitPolicy.parse("5/minute")
    details = {"policy": policy, "remaining": 0, "retry_after": retry_after, "reset_after": reset_after,
               "degraded": False, "blocked": False, "_parts": ()}  # fmt: skip
    return RateLimitResult.of((False, 5, 1_900_000_000), details)


def test_a_denial_is_remembered_until_it_is_not_true_any_more():
    clock = Clock()
    clock.now = 100.0
    denials = Denials(1.0, clock)
    began = denials.began()
    clock.now += 0.1  # until the answer
    denials.remember(asked(), denial(0.5), began)
    clock.now = 100.4
    assert denials.recall(asked()).retry_after == pytest.approx(0.1)
    assert denials.recall(asked(cost=2)) is not None
    assert denials.recall(asked("6/minute")) is None
    assert denials.recall(asked(identifier="v")) is None
    assert denials.recall(asked(tenant="s")) is None
    clock.now = 100.5
    assert denials.recall(asked()) is None
    assert len(denials) == 0


def test_a_denial_is_remembered_no_longer_than_the_bound_and_what_costs_less_is_asked():
    clock = Clock()
    denials = Denials(1.0, clock)
    denials.remember(asked(cost=3), denial(50), denials.began())
    assert denials.recall(asked(cost=2)) is None
    clock.now += 0.99
    assert denials.recall(asked(cost=3)) is not None
    clock.now += 0.02
    assert denials.recall(asked(cost=3)) is None


def test_a_denial_on_its_way_is_not_remembered_after_a_reset():
    denials = Denials(1.0)
    began = denials.began()
    denials.forget()
    denials.remember(asked(), denial(50), began)
    assert denials.recall(asked()) is None


def test_the_process_remembers_a_bounded_number_of_denials(monkeypatch):
    monkeypatch.setattr(denials_module, "MOST_DENIALS", 10)
    denials = Denials(1.0)
    for number in range(100):
        denials.remember(asked(identifier=f"u-{number}"), denial(50), denials.began())
    assert len(denials) == 10
    assert denials.recall(asked(identifier="u-99")) is not None


@pytest.mark.one_server
async def test_who_is_denied_does_not_reach_the_server_again(clients, tenant):
    seen = []
    limits = RateLimitRepository(clients.state)
    await limits.check_rate_limit(tenant, "u", 1, 3600)
    began = time.monotonic()
    ask = limits._server.check

    async def counted(request):
        seen.append(request)
        return await ask(request)

    limits._server.check = counted
    answers = [await limits.check_rate_limit(tenant, "u", 1, 3600) for _ in range(50)]
    assert not any(answer.allowed for answer in answers)
    assert len(seen) <= 1 + (time.monotonic() - began)
    assert answers[-1].retry_after < answers[0].retry_after
    assert (await limits.check_rate_limit(tenant, "u", 2, 3600)).allowed
