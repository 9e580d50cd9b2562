"""What a caller of the rate limits sees, on real servers."""

import asyncio
import copy
import inspect
import math
import re

import pytest

from convostore.database.redis_client import current_redis
from convostore.gateways.operation import Operation
from convostore.models.redis.rate_limits import WHOLE_TENANT, AbuseGuard, Algorithm, RateLimitPolicy
from convostore.repositories.exceptions import RepositoryError, ValidationError
from convostore.repositories.rate_limit_keys import identity_key
from convostore.repositories.rate_limit_repository import RateLimitRepository, get_rate_limit_repository

LOOK = Operation("look", "limit", "Test")


@pytest.fixture
def limits(clients):
    return RateLimitRepository(
        clients.state,
        {"user": "10/hour", "tenant": "1000/hour", "tokens": "1000 per calendar month", "even": "2/hour burst 2"},
    )


def _names(function):
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_all_names_of_the_specification_are_there():
    kept = {
        "check_rate_limit": ["tenant_id", "identifier", "limit", "window_seconds"],
        "increment_counter": ["tenant_id", "identifier", "window_seconds"],
        "get_remaining_quota": ["tenant_id", "identifier", "limit", "window_seconds"],
        "reset_rate_limit": ["tenant_id", "identifier"],
        "get_rate_limit_info": ["tenant_id", "identifier", "limit", "window_seconds"],
    }
    for name, parameters in kept.items():
        assert _names(getattr(RateLimitRepository, name))[: len(parameters)] == parameters
    assert _names(RateLimitRepository.__init__)[0] == "redis_client"
    assert _names(get_rate_limit_repository) == []


async def test_a_limit_admits_as_many_as_it_says(limits, tenant):
    answers = [await limits.check_rate_limit(tenant, "u-1", 3, 3600) for _ in range(5)]
    assert [allowed for allowed, _, _ in answers] == [True, True, True, False, False]
    assert [count for _, count, _ in answers] == [1, 2, 3, 3, 3]
    assert [each.remaining for each in answers] == [2, 1, 0, 0, 0]
    assert all(type(each.reset_time) is int for each in answers)
    assert [each.retry_after > 0 for each in answers] == [False, False, False, True, True]
    assert (await limits.check_rate_limit(tenant, "u-2", 3, 3600)).allowed


async def test_a_result_is_the_tuple_of_the_specification_and_more(limits, tenant):
    result = await limits.check_rate_limit(tenant, "u-1", 3, 3600)
    allowed, count, reset_time = result
    assert (allowed, count, reset_time) == result == (True, 1, result.reset_time)
    assert isinstance(result, tuple)
    assert result.policy.name == "3600s"
    assert copy.deepcopy(result).remaining == 2
    with pytest.raises(AttributeError, match="does not change"):
        result.remaining = 5


async def test_the_window_leaves_room_again(limits, tenant):
    first = await limits.check_rate_limit(tenant, "u-1", 1, 1)
    denied = await limits.check_rate_limit(tenant, "u-1", 1, 1)
    assert first.allowed
    assert not denied.allowed
    assert denied.retry_after <= 1 + 1 / 60 + 0.001
    await asyncio.sleep(denied.retry_after)
    assert (await limits.check_rate_limit(tenant, "u-1", 1, 1)).allowed


async def test_reading_takes_nothing(limits, tenant):
    for _ in range(5):
        assert await limits.get_remaining_quota(tenant, "u-1", 2, 3600) == 2
        assert (await limits.get_rate_limit_info(tenant, "u-1", 2, 3600))["current_count"] == 0
        assert (await limits.peek_rate_limits(tenant, [("u-1", "2/hour")])).allowed
    await limits.check_rate_limit(tenant, "u-1", 2, 3600)
    info = await limits.get_rate_limit_info(tenant, "u-1", 2, 3600)
    assert list(info) == ["limit", "remaining", "reset_time", "window_seconds", "current_count"]
    assert (info["limit"], info["remaining"], info["window_seconds"], info["current_count"]) == (2, 1, 3600, 1)


async def test_a_counter_counts_beyond_any_limit(limits, tenant):
    assert [await limits.increment_counter(tenant, "u-1", 3600) for _ in range(3)] == [1, 2, 3]
    assert await limits.increment_counter(tenant, "u-1", 3600, cost=2**31 - 1) == 2**31 + 2
    assert await limits.increment_counter(tenant, "u-1", 3600, cost=2**31 - 1) == 2**32 - 1
    assert await limits.increment_counter(tenant, "u-1", 3600, cost=2**31 - 1) == 2**32 - 1
    assert not (await limits.check_rate_limit(tenant, "u-1", 2**31 - 1, 3600)).allowed


async def test_a_cost_is_taken_whole_or_not_at_all(limits, tenant):
    assert (await limits.check_rate_limit(tenant, "u-1", 5, 3600, cost=3)).current_count == 3
    assert not (await limits.check_rate_limit(tenant, "u-1", 5, 3600, cost=3)).allowed
    assert (await limits.check_rate_limit(tenant, "u-1", 5, 3600, cost=2)).current_count == 5


async def test_what_is_counted_stays_when_the_limit_changes(limits, tenant):
    for _ in range(4):
        await limits.check_rate_limit(tenant, "u-1", 5, 3600)
    assert not (await limits.check_rate_limit(tenant, "u-1", 4, 3600)).allowed
    assert not (await limits.check_rate_limit(tenant, "u-1", 2, 3600)).allowed
    assert (await limits.check_rate_limit(tenant, "u-1", 6, 3600)).current_count == 5


async def test_what_is_counted_stays_when_the_window_of_a_policy_changes(clients, tenant):
    short = RateLimitRepository(clients.state, {"plan": "5/minute"})
    long = RateLimitRepository(clients.state, {"plan": "5/hour"})
    for _ in range(3):
        await short.check_rate_limit(tenant, "u-1", policy="plan")
    assert await long.get_remaining_quota(tenant, "u-1", policy="plan") == 2
    await long.check_rate_limit(tenant, "u-1", policy="plan")
    assert await short.get_remaining_quota(tenant, "u-1", policy="plan") == 1


async def test_a_policy_that_changes_its_algorithm_begins_anew(clients, tenant):
    for text in ("5/hour", "5/hour burst 5", "5 per calendar day", "5 per calendar month"):
        limits = RateLimitRepository(clients.state, {"plan": text})
        assert (await limits.check_rate_limit(tenant, "u-1", policy="plan")).current_count == 1


async def test_a_reset_forgets_every_policy_of_an_identity_and_nothing_else(limits, tenant):
    for identifier in ("u-1", "u-2", WHOLE_TENANT):
        await limits.check_rate_limit(tenant, identifier, 1, 60)
        await limits.check_rate_limit(tenant, identifier, policy="tokens")
    assert await limits.reset_rate_limit(tenant, "u-1") is True
    assert await limits.reset_rate_limit(tenant, "u-1") is False
    assert await limits.get_remaining_quota(tenant, "u-1", 1, 60) == 1
    assert await limits.get_remaining_quota(tenant, "u-1", policy="tokens") == 1000
    assert await limits.get_remaining_quota(tenant, "u-2", 1, 60) == 0
    assert await limits.get_remaining_quota(tenant, WHOLE_TENANT, 1, 60) == 0


async def test_a_reset_is_seen_at_once_by_who_was_just_denied(limits, tenant):
    for _ in range(3):
        await limits.check_rate_limit(tenant, "u-1", 1, 3600)
    await limits.reset_rate_limit(tenant, "u-1")
    assert (await limits.check_rate_limit(tenant, "u-1", 1, 3600)).allowed


async def test_a_denied_user_costs_his_tenant_nothing(limits, tenant):
    both = [("u-1", "user"), (WHOLE_TENANT, "tenant")]
    answers = [await limits.check_rate_limits(tenant, both) for _ in range(200)]
    assert sum(answer.allowed for answer in answers) == 10
    assert await limits.get_remaining_quota(tenant, WHOLE_TENANT, policy="tenant") == 990
    assert answers[-1].policy.name == "user"
    assert [part.policy.name for part in answers[-1].each] == ["user", "tenant"]
    assert [part.allowed for part in answers[-1].each] == [False, True]


async def test_many_at_once_get_exactly_the_limit(clients, tenant):
    limits = RateLimitRepository(clients.state, {"user": "10/hour", "tenant": "1000/hour"}, remember_denials=0)
    both = [("u-1", "user"), (WHOLE_TENANT, "tenant")]
    answers = await asyncio.gather(*[limits.check_rate_limits(tenant, both) for _ in range(200)])
    assert sum(answer.allowed for answer in answers) == 10
    assert await limits.get_remaining_quota(tenant, WHOLE_TENANT, policy="tenant") == 990


async def test_tenants_do_not_share_a_limit(limits, tenant):
    await limits.check_rate_limit(tenant, "u-1", 1, 3600)
    assert (await limits.check_rate_limit(f"{tenant}x", "u-1", 1, 3600)).allowed


async def test_headers_are_structured_fields(limits, tenant):
    both = [("u-1", "10/hour"), (WHOLE_TENANT, "tenant")]
    result = await limits.check_rate_limits(tenant, both, cost=4)
    assert result.headers()["RateLimit-Policy"] == '"3600s";q=10;w=3600, "tenant";q=1000;w=3600'
    told = re.fullmatch(r'"3600s";r=6;t=(\d+), "tenant";r=996;t=(\d+)', result.headers()["RateLimit"])
    assert all(3600 <= int(seconds) <= 3661 for seconds in told.groups())
    assert "Retry-After" not in result.headers()
    await limits.check_rate_limits(tenant, both, cost=4)
    denied = await limits.check_rate_limits(tenant, both, cost=4)
    assert denied.headers()["Retry-After"] == str(math.ceil(denied.retry_after))


async def test_smoothing_admits_a_burst_and_then_one_by_one(limits, tenant):
    answers = [await limits.check_rate_limit(tenant, "u-1", policy="even") for _ in range(3)]
    assert [each.allowed for each in answers] == [True, True, False]
    assert 1700 < answers[-1].retry_after <= 1800


async def test_a_reservation_is_corrected_to_what_was_needed(limits, tenant):
    both = [("u-1", "tokens"), (WHOLE_TENANT, "tokens")]
    reservation = await limits.reserve(tenant, both, 600)
    assert reservation.allowed
    refused = await limits.reserve(tenant, both, 600)
    assert not refused.allowed
    assert refused.result.remaining == 400
    assert await limits.commit(reservation, 100) is True
    assert await limits.commit(reservation, 100) is True
    assert await limits.get_remaining_quota(tenant, "u-1", policy="tokens") == 900
    assert await limits.get_remaining_quota(tenant, WHOLE_TENANT, policy="tokens") == 900
    with pytest.raises(ValidationError, match="reservation"):
        await limits.commit(refused, 1)


@pytest.mark.parametrize("policy", ["tokens", "1000/hour", "1000/hour burst 1000"])
async def test_what_is_released_is_free_and_what_was_missing_is_taken(limits, tenant, policy):
    released = await limits.reserve(tenant, [("u-1", policy)], 900)
    assert not (await limits.check_rate_limit(tenant, "u-1", policy=policy, cost=900)).allowed
    assert await limits.release(released)
    assert (await limits.check_rate_limit(tenant, "u-1", policy=policy, cost=900)).allowed
    short = await limits.reserve(tenant, [("u-1", policy)], 10)
    assert await limits.commit(short, 500)
    assert await limits.get_remaining_quota(tenant, "u-1", policy=policy) == 0


async def test_an_abandoned_reservation_comes_back_when_its_lease_is_over(limits, tenant):
    abandoned = await limits.reserve(tenant, [("u-1", "tokens")], 1000, lease_seconds=0.5)
    assert await limits.get_remaining_quota(tenant, "u-1", policy="tokens") == 0
    await asyncio.sleep(0.55)
    assert await limits.get_remaining_quota(tenant, "u-1", policy="tokens") == 1000
    assert await limits.reset_rate_limit(tenant, "u-1")
    assert await limits.commit(abandoned, 7) is False
    assert await limits.get_remaining_quota(tenant, "u-1", policy="tokens") == 1000


async def test_who_keeps_being_denied_is_blocked_for_a_growing_time(clients, tenant):
    guard = AbuseGuard(denials=3, block_seconds=0.3, longest_block_seconds=100)
    limits = RateLimitRepository(clients.state, guard=guard, remember_denials=0)
    both = [("u-1", "1/second"), (WHOLE_TENANT, "1000/hour")]
    blocks = []
    for _ in range(2):
        while not (answer := await limits.check_rate_limits(tenant, both)).blocked:
            assert await limits.get_block(tenant, "u-1") is None
        block = await limits.get_block(tenant, "u-1")
        blocks.append(block)
        assert not answer.allowed
        assert 0 < block.retry_after <= answer.retry_after
        assert (await limits.check_rate_limit(tenant, "u-1", 1000, 7)).blocked
        assert not (await limits.reserve(tenant, [("u-1", "1000/hour")], 1)).allowed
        assert (await limits.check_rate_limit(tenant, "u-2", 1000, 7)).allowed
        await asyncio.sleep(block.retry_after)
        assert await limits.get_block(tenant, "u-1") is None
    assert blocks[0].retry_after <= 0.3 < blocks[1].retry_after <= 0.6
    assert [block.times for block in blocks] == [1, 2]


async def test_a_block_can_be_lifted(clients, tenant):
    limits = RateLimitRepository(clients.state, guard=AbuseGuard(denials=1))
    for _ in range(2):
        await limits.check_rate_limit(tenant, "u-1", 1, 60)
    assert (await limits.get_block(tenant, "u-1")).retry_after > 50
    assert await limits.lift_block(tenant, "u-1") is True
    assert await limits.lift_block(tenant, "u-1") is False
    assert await limits.get_block(tenant, "u-1") is None
    assert (await limits.check_rate_limit(tenant, "u-1", 2, 60)).allowed


async def test_nobody_is_blocked_without_a_guard(limits, tenant):
    for _ in range(50):
        await limits.check_rate_limit(tenant, "u-1", 1, 60)
    assert await limits.get_block(tenant, "u-1") is None


async def test_a_key_lives_as_long_as_any_of_its_policies_needs(clients, limits, tenant):
    key = identity_key(tenant, "u-1")
    await limits.check_rate_limit(tenant, "u-1", 5, 3600)
    await limits.check_rate_limit(tenant, "u-1", 5, 1)
    life = await clients.state.command(LOOK, "PTTL", key)
    assert 3_600_000 <= life <= 3_662_000
    await limits.check_rate_limit(tenant, "u-2", 5, 1)
    assert 1_000 <= await clients.state.command(LOOK, "PTTL", identity_key(tenant, "u-2")) <= 2_100


async def test_the_dependency_gives_a_repository_on_the_current_way(clients, tenant):
    with current_redis(clients):
        limits = await get_rate_limit_repository()
        assert (await limits.check_rate_limit(tenant, "u-1", 1, 60)).allowed
    with pytest.raises(RepositoryError, match="current"):
        await get_rate_limit_repository()


NUMBERS = [0, -1, True, 1.0, float("nan"), float("inf"), 2**31, 2**70, "5", None, [5], {"$gt": 1}]


@pytest.mark.one_server
@pytest.mark.parametrize("bad", NUMBERS, ids=repr)
async def test_a_number_that_is_none_is_refused_by_name(limits, tenant, bad):
    calls = [
        ("limit", lambda: limits.check_rate_limit(tenant, "u", bad, 60)),
        ("window_seconds", lambda: limits.check_rate_limit(tenant, "u", 5, bad)),
        ("cost", lambda: limits.check_rate_limit(tenant, "u", 5, 60, cost=bad)),
        ("window_seconds", lambda: limits.increment_counter(tenant, "u", bad)),
        ("limit", lambda: limits.get_remaining_quota(tenant, "u", bad, 60)),
        ("window_seconds", lambda: limits.get_rate_limit_info(tenant, "u", 5, bad)),
        ("cost", lambda: limits.reserve(tenant, [("u", "5/hour")], bad)),
    ]
    for field, call in calls:
        with pytest.raises(ValidationError) as caught:
            await call()
        assert caught.value.field == field
    assert await limits.reset_rate_limit(tenant, "u") is False  # nothing was sent


@pytest.mark.one_server
@pytest.mark.parametrize("bad", ["", None, 5, b"u", "x" * 257, "a\0b", "\ud800", ["u"], {"$ne": 1}], ids=ascii)
async def test_an_identifier_that_is_none_is_refused_by_name(limits, tenant, bad):
    for call in (limits.reset_rate_limit, limits.get_block, limits.lift_block):
        for arguments, field in (((bad, "u"), "tenant_id"), ((tenant, bad), "identifier")):
            with pytest.raises(ValidationError) as caught:
                await call(*arguments)
            assert caught.value.field == field
    with pytest.raises(ValidationError, match="identifier"):
        await limits.check_rate_limits(tenant, [("u", "user"), (bad, "user")])


@pytest.mark.one_server
@pytest.mark.parametrize(
    "bad",
    [[], "user", None, [("u",)], ["u"], [("u", "nobody")], [("u", "user")] * 2, [("u", "user", 1)], [("u", 5)],
     [("u", "1/second"), ("u", "5/second")], [("u", "user")] * 40],
    ids=repr,
)  # fmt: skip
async def test_limits_that_are_none_are_refused(limits, tenant, bad):
    with pytest.raises(ValidationError) as caught:
        await limits.check_rate_limits(tenant, bad)
    assert caught.value.field in ("limits", "policy")


@pytest.mark.one_server
async def test_a_cost_that_can_never_be_admitted_is_the_callers_mistake(limits, tenant):
    with pytest.raises(ValidationError, match="'even'") as caught:
        await limits.check_rate_limit(tenant, "u", policy="even", cost=3)
    assert caught.value.field == "cost"
    with pytest.raises(ValidationError, match="policy"):
        await limits.check_rate_limit(tenant, "u", 5, 60, policy="user")


@pytest.mark.parametrize(
    ("text", "limit", "seconds", "algorithm", "burst"),
    [
        ("60/minute", 60, 60, "window", None),
        ("5 per 10 minutes", 5, 600, "window", None),
        ("1/s", 1, 1, "window", None),
        ("100/15m", 100, 900, "window", None),
        ("60/minute burst 10", 60, 60, "smooth", 10),
        ("7 per calendar day", 7, 86_400, "day", None),
        ("100000/calendar month", 100_000, 31 * 86_400, "month", None),
    ],
)
def test_policies_are_read_from_text(text, limit, seconds, algorithm, burst):
    policy = RateLimitPolicy.parse(text, "plan")
    assert (policy.name, policy.limit, policy.seconds, policy.burst) == ("plan", limit, seconds, burst)
    assert policy.algorithm is Algorithm(algorithm)
    assert RateLimitPolicy.parse(text).name[0].isdigit()


@pytest.mark.parametrize(
    "text", ["", "60", "60/", "/minute", "0/minute", "60/fortnight", "60/minute\n", "60/0 s", "-1/s", "٦/s", None, 60]
)
def test_other_texts_are_no_policies(text):
    with pytest.raises(ValidationError):
        RateLimitPolicy.parse(text)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("name", {"name": ""}), ("name", {"name": "a b"}), ("name", {"name": 'a"b'}), ("name", {"name": "61s"}),
        ("name", {"name": "@x"}), ("name", {"name": "!"}), ("limit", {"limit": 0}), ("limit", {"limit": True}),
        ("window_seconds", {"window_seconds": 0}), ("window_seconds", {"window_seconds": None}),
        ("window_seconds", {"algorithm": "day"}), ("algorithm", {"algorithm": "leap"}), ("burst", {"burst": 5}),
        ("when_unavailable", {"when_unavailable": "maybe"}), ("unknown", {"unknown": 1}),
    ],
)  # fmt: skip
def test_a_policy_that_is_not_valid_is_refused_by_field(field, fields):
    with pytest.raises(ValidationError) as caught:
        RateLimitPolicy(**{"name": "plan", "limit": 5, "window_seconds": 60, **fields})
    assert caught.value.field in (field, None)
    assert field in str(caught.value)


def test_the_longest_block_is_not_shorter_than_the_first():
    with pytest.raises(ValidationError) as caught:
        AbuseGuard(block_seconds=60, longest_block_seconds=59)
    assert caught.value.field == "longest_block_seconds"


@pytest.mark.one_server
async def test_policies_have_names_of_their_own(clients):
    plan = RateLimitPolicy.parse("5/hour", "plan")
    with pytest.raises(ValidationError, match="name of its own"):
        RateLimitRepository(clients.state, [plan, plan])
    with pytest.raises(ValidationError, match="name of its own"):
        RateLimitRepository(clients.state, {"other": plan})
    with pytest.raises(ValidationError):
        RateLimitRepository(clients.state, {"plan": "often"})
