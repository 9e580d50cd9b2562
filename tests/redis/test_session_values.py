"""SessionData and session ids without a server: what they hold, what they refuse, and that no two share a key."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from redis_scale import scaled

from convostore.models.redis.session_cache import LARGEST_DATA, SessionData
from convostore.models.redis.session_identity import (
    fingerprint_of,
    is_made_for,
    new_session_id,
    place_of,
    successor_id,
    user_tag,
)
from convostore.repositories.exceptions import CorruptDocumentError, ValidationError

KEY = b"a key of thirty-two bytes or more"
NOW = datetime(2030, 1, 1, tzinfo=UTC)
nasty = st.sampled_from(
    [":", "%", "%3A", "%7B", "{", "}", ".", "a", "A", "-", "_", "~", "%~", "é", "\u2028", "\U0001f600"]
)
identifiers = st.one_of(
    st.lists(nasty, min_size=1, max_size=8).map("".join),
    st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=40),
    st.text("ab", min_size=90, max_size=110),
)
session_ids = st.one_of(st.text(st.characters(), min_size=1, max_size=60), identifiers)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(blacklist_categories=["Cs"]), max_size=10),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("$%.:a é", max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
moments = st.datetimes(datetime(2001, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


def session(**fields: Any) -> SessionData:
    """Return a session of a user, made at a moment that is known."""
    return SessionData(**{"session_id": "id", "tenant_id": "acme", "user_id": "u-1", "created_at": NOW, **fields})


names = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6)
plain = st.dictionaries(names, values, max_size=5)


@given(plain, moments, st.floats(0.001, 10**6))
def test_a_session_comes_back_from_its_hash_as_it_was(data: dict[str, Any], moment: datetime, idle: float) -> None:
    before = session(data=data, created_at=moment, idle_seconds=round(idle, 3), version=7)
    for stored in (
        before.to_redis_hash(),
        {name.encode(): text.encode() for name, text in before.to_redis_hash().items()},
    ):
        after = SessionData.from_redis_hash(stored, "id")
        assert after == before
        assert repr(after.data) == repr(before.data)  # 1 is not 1.0, nor True


@given(st.lists(st.tuples(identifiers, session_ids), min_size=2, max_size=2, unique=True))
@settings(max_examples=scaled(1000))
def test_no_two_sessions_share_a_key(pair: list[tuple[str, str]]) -> None:
    first, second = (SessionData.get_cache_key(*each) for each in pair)
    assert first != second


@given(st.lists(st.tuples(identifiers, identifiers), min_size=2, max_size=2, unique=True))
@settings(max_examples=scaled(1000))
@example([("a", "ab"), ("aa", "b")])
@example([("a:b", "c"), ("a", "b:c")])
def test_no_two_users_share_an_index_a_tag_or_a_slot(pair: list[tuple[str, str]]) -> None:
    ids = [new_session_id(KEY, *each) for each in pair]
    places = [place_of(tenant, session_id) for (tenant, _), session_id in zip(pair, ids, strict=True)]
    assert places[0].of_user != places[1].of_user
    assert user_tag(KEY, *pair[0]) != user_tag(KEY, *pair[1])
    assert not is_made_for(ids[0], KEY, *pair[1])


@given(identifiers, identifiers, st.binary(min_size=32, max_size=40))
def test_an_id_leads_to_its_user_without_the_key_and_only_the_key_makes_it(
    tenant: str, user: str, other: bytes
) -> None:
    assume(other != KEY)
    session_id = new_session_id(KEY, tenant, user)
    assert place_of(tenant, session_id).of_user == place_of(tenant, successor_id(session_id)).of_user
    assert is_made_for(session_id, KEY, tenant, user)
    assert is_made_for(successor_id(session_id), KEY, tenant, user)
    assert not is_made_for(session_id, other, tenant, user)
    assert session_id not in repr(place_of(tenant, session_id))
    assert new_session_id(KEY, tenant, user) != session_id


@given(identifiers, session_ids)
def test_the_key_and_the_index_of_a_session_share_a_slot(tenant: str, session_id: str) -> None:
    where = place_of(tenant, session_id)
    tags = {key[key.index("{") : key.index("}") + 1] for key in where[:2]}
    assert len(tags) == 1
    assert all(key.count("{") == key.count("}") == 1 for key in where[:2])
    assert where.key.startswith("cs:session:")
    assert where.of_user.startswith("cs:sessions:")


def test_a_session_shows_neither_its_id_nor_its_data() -> None:
    secret = session(session_id="the-secret-id", data={"token": "the-token"})
    for text in (repr(secret), str(secret), repr(secret.to_redis_hash())):
        assert "the-secret-id" not in text
    assert "the-token" not in repr(secret)
    assert secret.fingerprint == fingerprint_of("the-secret-id")
    assert secret.name in repr(secret)


def test_the_defaults_are_an_hour_of_idleness_and_thirty_days() -> None:
    fresh = session()
    assert fresh.expires_at - fresh.created_at == timedelta(hours=1)
    assert fresh.ends_at - fresh.created_at == timedelta(days=30)
    assert fresh.idle_seconds == 3600
    assert session(expires_at=NOW + timedelta(hours=8)).idle_seconds == 8 * 3600
    assert session(expires_at=NOW + timedelta(days=90)).ends_at == NOW + timedelta(days=90)


def test_a_session_is_expired_from_the_moment_it_expires_or_ends() -> None:
    fresh = session()
    assert not fresh.is_expired(fresh.expires_at - timedelta(milliseconds=1))
    assert fresh.is_expired(fresh.expires_at)
    short = session(expires_at=NOW + timedelta(hours=2), ends_at=NOW + timedelta(hours=1))
    assert short.is_expired(NOW + timedelta(hours=1))
    assert session(created_at=datetime.now(UTC) - timedelta(days=1)).is_expired()


def test_use_and_extension_give_a_successor_that_lives_longer_but_never_beyond_the_end() -> None:
    now = datetime.now(UTC)
    old = session(created_at=now - timedelta(minutes=30), ends_at=now + timedelta(hours=3))
    used, extended, far = old.update_activity(), old.extend_session(2), old.extend_session(hours=100)
    assert old.last_activity_at < used.last_activity_at
    assert old.expires_at < used.expires_at < extended.expires_at < far.expires_at == old.ends_at
    assert old.extend_session(0.1).expires_at == old.expires_at  # never shorter
    assert extended.extended_seconds == 7200


@pytest.mark.parametrize("hours", [0, -1, True, "1", None, float("nan"), float("inf"), 10**9, 1j])
def test_hours_that_are_no_length_of_time_are_refused(hours: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        session().extend_session(hours)
    assert refusal.value.field == "hours"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant_id", ""),
        ("tenant_id", "a\0"),
        ("tenant_id", None),
        ("user_id", 1),
        ("user_id", "x" * 257),
        ("session_id", b"id"),
        ("session_id", "x" * 257),
        ("created_at", "now"),
        ("expires_at", datetime(2030, 1, 1)),  # noqa: DTZ001 - the point
        ("data", []),
        ("data", {"a": {1, 2}}),
        ("data", {"a": float("nan")}),
        ("data", {"a": 2**63}),
        ("data", {1: "a"}),
        ("data", {"a": "\ud800"}),
        ("version", 0),
        ("idle_seconds", 0),
        ("idle_seconds", float("inf")),
        ("unknown", 1),
    ],
)
def test_a_field_that_is_not_valid_is_refused_and_named(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as refusal:
        session(**{field: value})
    assert refusal.value.field == field


@pytest.mark.parametrize("data", [{"a": "x" * LARGEST_DATA}, {str(number): 1 for number in range(501)}])
def test_data_that_is_too_large_is_refused_when_it_is_to_be_stored(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refusal:
        session(data=data).to_redis_hash()
    assert refusal.value.field == "data"


@pytest.mark.parametrize("field", ["session_id", "user_id", "ends_at", "version", "fingerprint"])
def test_only_the_data_of_a_session_can_be_changed(field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        session().evolve(**{field: getattr(session(), field)})
    assert refusal.value.field == field


def test_moments_are_put_into_utc() -> None:
    there = timezone(timedelta(hours=2))
    assert session(created_at=NOW.astimezone(there)).created_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_id": None}, "user_id"),
        ({"created_at": "soon"}, "data"),
        ({"version": "0"}, "version"),
        ({"data:a": "{"}, "data"),
        ({"ends_at": "9" * 30}, "data"),
    ],
)
def test_a_hash_that_is_none_of_ours_is_told_without_its_content(change: dict[str, Any], field: str) -> None:
    stored: dict[str, Any] = {**session().to_redis_hash(), **change}
    with pytest.raises(CorruptDocumentError) as refusal:
        SessionData.from_redis_hash({name: text for name, text in stored.items() if text is not None}, "the-secret-id")
    assert refusal.value.field == field
    assert "secret" not in str(refusal.value)


def test_fields_that_a_later_release_may_write_are_ignored() -> None:
    assert SessionData.from_redis_hash({**session().to_redis_hash(), "later": "x", "token": "t"}, "id") == session()
