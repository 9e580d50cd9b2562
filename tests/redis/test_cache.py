"""What the cache answers: values and misses, nothing there, versions, tags, limits, what cannot be read."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from convostore import ConversationDocument, MessageDocument, ValidationError
from convostore.database.redis_client import RedisClients
from convostore.gateways.operation import Operation
from convostore.models.keys import redis_key
from convostore.repositories.cache_codec import DocumentCodec
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.cache_space import CacheSpace

PLAIN: CacheSpace[Any] = CacheSpace("plain")
VERSIONED: CacheSpace[dict[str, Any]] = CacheSpace("versioned", version_of=lambda value: value["version"])
OPERATION = Operation("test", "test", "Test", writes=True)


@pytest.fixture
async def cache(clients: RedisClients) -> AsyncIterator[CacheRepository]:
    async with CacheRepository(clients.cache) as repository:
        yield repository


def source(*values: Any) -> Callable[[], Any]:
    """Return a load that answers these values, one after the other, and fails when they are used up."""
    left = list(values)

    async def load() -> Any:
        return left.pop(0)

    return load


def cell_key(tenant: str, space: CacheSpace[Any], key: str) -> str:
    return redis_key("cache", (tenant, space.name, key), "0")


async def test_what_was_set_is_found_until_it_is_deleted(cache: CacheRepository, tenant: str) -> None:
    assert await cache.get(tenant, PLAIN, "k") is None
    assert not await cache.exists(tenant, PLAIN, "k")
    assert await cache.set(tenant, PLAIN, "k", {"a": 1})
    assert await cache.set(tenant, PLAIN, "k", {"a": [1, None, "é"]})
    found = await cache.get(tenant, PLAIN, "k")
    assert found is not None
    assert (found.value, found.version, found.is_negative) == ({"a": [1, None, "é"]}, 0, False)
    assert await cache.exists(tenant, PLAIN, "k")
    assert await cache.delete(tenant, PLAIN, "k")
    assert not await cache.delete(tenant, PLAIN, "k")
    assert await cache.get(tenant, PLAIN, "k") is None


async def test_a_value_is_loaded_once_and_found_from_then_on(cache: CacheRepository, tenant: str) -> None:
    load = source({"version": 3})
    for _ in range(3):
        assert await cache.get_or_load(tenant, VERSIONED, "k", load) == {"version": 3}
    found = await cache.get(tenant, VERSIONED, "k")
    assert found is not None
    assert found.version == 3
    counted = cache.statistics
    assert (counted.hits, counted.misses, counted.loads, counted.failed_loads) == (3, 1, 1, 0)
    assert counted.hit_ratio == 0.75


async def test_nothing_there_is_remembered_and_told_from_a_miss(cache: CacheRepository, tenant: str) -> None:
    load = source(None)
    assert await cache.get_or_load(tenant, PLAIN, "k", load) is None
    assert await cache.get_or_load(tenant, PLAIN, "k", load) is None, "not loaded again"
    found = await cache.get(tenant, PLAIN, "k")
    assert found is not None
    assert found.is_negative
    assert not await cache.exists(tenant, PLAIN, "k")
    assert await cache.set(tenant, PLAIN, "k", 0)
    assert await cache.get_or_load(tenant, PLAIN, "k", load) == 0
    assert await cache.set(tenant, PLAIN, "k", None)
    assert await cache.get_or_load(tenant, PLAIN, "k", load) is None


async def test_nothing_there_is_not_remembered_where_that_is_not_wanted(cache: CacheRepository, tenant: str) -> None:
    space = replace(PLAIN, negative_ttl=0)
    load = source(None, None, 7)
    assert [await cache.get_or_load(tenant, space, "k", load) for _ in range(4)] == [None, None, 7, 7]


@pytest.mark.parametrize("seconds", [0.5, 100.0])
async def test_the_time_to_live_is_shortened_within_its_bounds(
    cache: CacheRepository, clients: RedisClients, tenant: str, seconds: float
) -> None:
    space = replace(PLAIN, ttl=seconds, negative_ttl=seconds / 10, jitter=0.2)
    lives = []
    for number in range(40):
        key = f"k{number}"
        await cache.set(tenant, space, key, 1)
        lives.append(await clients.cache.command(OPERATION, "PTTL", cell_key(tenant, space, key)) / 1000)
    assert max(lives) <= seconds
    assert len({round(life, 3) for life in lives}) > 10, "they do not end together"
    if seconds > 1:
        assert min(lives) > seconds * 0.8 - 1
        await cache.set(tenant, space, "nothing", None)
        assert 0 < await clients.cache.command(OPERATION, "PTTL", cell_key(tenant, space, "nothing")) <= seconds * 100


async def test_a_value_ends_with_its_time(cache: CacheRepository, tenant: str) -> None:
    space = replace(PLAIN, ttl=0.05, beta=0)
    load = source(1, 2)
    assert await cache.get_or_load(tenant, space, "k", load) == 1
    await asyncio.sleep(0.06)
    assert await cache.get(tenant, space, "k") is None
    assert await cache.get_or_load(tenant, space, "k", load) == 2


async def test_an_invalidation_removes_what_is_older_and_only_that(cache: CacheRepository, tenant: str) -> None:
    load = source({"version": 5}, {"version": 6})
    await cache.get_or_load(tenant, VERSIONED, "k", load)
    assert not await cache.invalidate(tenant, VERSIONED, "k", 4)
    assert not await cache.invalidate(tenant, VERSIONED, "k", 5)
    assert await cache.exists(tenant, VERSIONED, "k")
    assert await cache.invalidate(tenant, VERSIONED, "k", 6)
    assert await cache.get(tenant, VERSIONED, "k") is None
    assert not await cache.invalidate(tenant, VERSIONED, "k", 6), "a second time it finds nothing"
    assert await cache.get_or_load(tenant, VERSIONED, "k", load) == {"version": 6}


async def test_several_keys_are_invalidated_each_at_its_version(cache: CacheRepository, tenant: str) -> None:
    for number in range(5):
        await cache.get_or_load(tenant, VERSIONED, f"k{number}", source({"version": 3}))
    versions = {f"k{number}": number + 1 for number in range(5)}
    gone = await cache.invalidate_many(tenant, VERSIONED, versions)
    assert gone == {"k0": False, "k1": False, "k2": False, "k3": True, "k4": True}
    assert list(await cache.get_many(tenant, VERSIONED, versions)) == ["k0", "k1", "k2"]
    assert await cache.invalidate_many(tenant, VERSIONED, {}) == {}


async def test_a_source_that_lags_behind_is_not_cached(cache: CacheRepository, tenant: str) -> None:
    await cache.invalidate(tenant, VERSIONED, "k", 6)
    assert await cache.get_or_load(tenant, VERSIONED, "k", source({"version": 5})) == {"version": 5}
    assert await cache.get(tenant, VERSIONED, "k") is None
    assert cache.statistics.refused_fills == 1
    assert await cache.get_or_load(tenant, VERSIONED, "k", source({"version": 6})) == {"version": 6}, "at once"
    assert await cache.exists(tenant, VERSIONED, "k")


async def test_a_written_value_goes_over_an_older_one_and_over_nothing_else(
    cache: CacheRepository, tenant: str
) -> None:
    assert not await cache.write_through(tenant, VERSIONED, "k", {"version": 4}), "what was there is not known"
    await cache.get_or_load(tenant, VERSIONED, "k", source({"version": 4}))
    assert await cache.write_through(tenant, VERSIONED, "k", {"version": 6})
    assert not await cache.write_through(tenant, VERSIONED, "k", {"version": 5})
    assert not await cache.write_through(tenant, VERSIONED, "k", {"version": 6})
    found = await cache.get(tenant, VERSIONED, "k")
    assert found is not None
    assert found.value == {"version": 6}
    await cache.invalidate(tenant, VERSIONED, "k", 7)
    assert not await cache.write_through(tenant, VERSIONED, "k", {"version": 8})
    await cache.get_or_load(tenant, VERSIONED, "k", source(None))
    assert not await cache.write_through(tenant, VERSIONED, "k", {"version": 9}), "deleted, as far as is known"
    assert await cache.get(tenant, VERSIONED, "k") is None


async def test_a_written_value_that_is_too_large_removes_the_older_one(cache: CacheRepository, tenant: str) -> None:
    space = replace(VERSIONED, max_bytes=100)
    await cache.get_or_load(tenant, space, "k", source({"version": 1}))
    assert not await cache.write_through(tenant, space, "k", {"version": 2, "text": "x" * 100})
    assert await cache.get(tenant, space, "k") is None


async def test_what_is_loaded_when_it_is_deleted_is_not_put_in(cache: CacheRepository, tenant: str) -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def load() -> str:
        begun.set()
        await go.wait()
        return "old"

    reading = asyncio.create_task(cache.get_or_load(tenant, PLAIN, "k", load))
    await begun.wait()
    await cache.delete(tenant, PLAIN, "k")
    go.set()
    assert await reading == "old", "it was asked for before the deletion"
    assert await cache.get(tenant, PLAIN, "k") is None


async def test_many_are_found_at_once(cache: CacheRepository, tenant: str) -> None:
    for number in range(20):
        await cache.set(tenant, PLAIN, f"k{number}", number)
    found = await cache.get_many(tenant, PLAIN, [f"k{number}" for number in range(0, 40, 2)])
    assert {key: each.value for key, each in found.items()} == {f"k{number}": number for number in range(0, 20, 2)}
    assert await cache.get_many(tenant, PLAIN, []) == {}


async def test_a_tag_forgets_what_bears_it_and_nothing_else(cache: CacheRepository, tenant: str) -> None:
    tags = {"a": ["red", "round"], "b": ["red"], "c": ["round"], "d": []}
    for key, own in tags.items():
        await cache.get_or_load(tenant, PLAIN, key, source(key), own)
    await cache.get_or_load(f"{tenant}2", PLAIN, "b", source("rival"), ["red"])
    assert all([await cache.exists(tenant, PLAIN, key, own) for key, own in tags.items()])
    await cache.invalidate_tag(tenant, "red")
    assert [await cache.exists(tenant, PLAIN, key, own) for key, own in tags.items()] == [False, False, True, True]
    assert await cache.exists(f"{tenant}2", PLAIN, "b", ["red"])
    assert await cache.get_or_load(tenant, PLAIN, "a", source("new"), ["round", "red", "red"]) == "new"
    assert list(await cache.get_many(tenant, PLAIN, tags, ["red", "round"])) == ["a"]


async def test_a_value_is_not_found_without_its_tags(cache: CacheRepository, tenant: str) -> None:
    await cache.set(tenant, PLAIN, "k", 1, ["red"])
    assert await cache.exists(tenant, PLAIN, "k", ["red"])
    for tags in ([], ["round"], ["red", "round"]):
        assert not await cache.exists(tenant, PLAIN, "k", tags)


async def test_a_tag_whose_generation_was_evicted_forgets_as_well(
    cache: CacheRepository, clients: RedisClients, tenant: str
) -> None:
    await cache.get_or_load(tenant, PLAIN, "k", source("old"), ["red"])
    await clients.cache.command(OPERATION, "DEL", redis_key("cachetag", (tenant, "red"), "0"))
    assert await cache.get(tenant, PLAIN, "k", ["red"]) is None
    await cache.get_or_load(tenant, PLAIN, "other", source("x"), ["red"])
    assert await cache.get(tenant, PLAIN, "k", ["red"]) is None, "a generation never comes back"


async def test_what_is_loaded_when_its_tag_is_invalidated_does_not_count(cache: CacheRepository, tenant: str) -> None:
    async def load() -> str:
        await cache.invalidate_tag(tenant, "red")
        return "old"

    assert await cache.get_or_load(tenant, PLAIN, "k", load, ["red"]) == "old"
    assert await cache.get(tenant, PLAIN, "k", ["red"]) is None


async def test_a_new_epoch_forgets_everything(cache: CacheRepository, clients: RedisClients, tenant: str) -> None:
    await cache.set(tenant, PLAIN, "k", 1)
    assert not await CacheRepository(clients.cache, epoch="1").exists(tenant, PLAIN, "k")
    cache.epoch = "1"
    assert not await cache.exists(tenant, PLAIN, "k")


@pytest.mark.parametrize("loaded", [{"text": "x" * 2000}, object(), {"number": 2**70}])
async def test_what_cannot_be_cached_is_returned_all_the_same(
    cache: CacheRepository, tenant: str, loaded: object
) -> None:
    space = replace(PLAIN, max_bytes=1000)
    load = source(loaded, loaded)
    assert await cache.get_or_load(tenant, space, "k", load) is loaded
    assert await cache.get_or_load(tenant, space, "k", load) is loaded, "and the next one need not wait"
    assert (cache.statistics.uncacheable, cache.statistics.waits) == (2, 0)
    with pytest.raises(ValidationError) as caught:
        await cache.set(tenant, space, "k", loaded)
    assert caught.value.field == "value"


async def test_moments_and_documents_come_back_as_they_were(cache: CacheRepository, tenant: str) -> None:
    zone = timezone(timedelta(hours=2))
    moments = [datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC), datetime(1969, 1, 1, tzinfo=zone)]
    value = {"moments": moments, "bytes": b"\0\xff", "number": -(2**63), "text": "\u2028é"}
    await cache.set(tenant, PLAIN, "k", value)
    assert (await cache.get_or_load(tenant, PLAIN, "k", source())) == value
    conversation = ConversationDocument.start("u", metadata={"$ref": {"%": [1.5, None]}}, tags=("a",), title="")
    message = MessageDocument.user("Hello")
    for number, (kind, document) in enumerate([(ConversationDocument, conversation), (MessageDocument, message)]):
        space: CacheSpace[Any] = CacheSpace(f"documents{number}", DocumentCodec(kind), lambda each: each.version)
        assert await cache.get_or_load(tenant, space, "k", source(document)) is document
        found = await cache.get(tenant, space, "k")
        assert found is not None
        assert (found.value, found.version) == (document, 1)


@pytest.mark.parametrize(
    "foreign",
    [
        b"",
        b"x",
        b"\xc5\x01V",
        b"\xc5\x01V" + b"\xff" * 44 + b"\x20",
        b"\xc5\x02V" + b"\0" * 60,
        b"\x80\x04\x95" + b"x" * 90,
    ],
)
async def test_foreign_bytes_are_a_miss_and_give_way(
    cache: CacheRepository, clients: RedisClients, tenant: str, foreign: bytes
) -> None:
    await clients.cache.command(OPERATION, "SET", cell_key(tenant, PLAIN, "k"), foreign)
    assert await cache.get(tenant, PLAIN, "k") is None
    assert cache.statistics.foreign == 1
    assert await cache.get_many(tenant, PLAIN, ["k"]) == {}
    assert not await cache.exists(tenant, PLAIN, "k")
    assert await cache.get_or_load(tenant, PLAIN, "k", source("own")) == "own"
    assert await cache.exists(tenant, PLAIN, "k")


async def test_a_value_that_its_codec_cannot_read_gives_way(
    cache: CacheRepository, clients: RedisClients, tenant: str
) -> None:
    key = cell_key(tenant, PLAIN, "k")
    await cache.set(tenant, PLAIN, "k", "text")
    size = await clients.cache.command(OPERATION, "STRLEN", key)
    await clients.cache.command(OPERATION, "SETRANGE", key, size - 4, b"\xc1\xc1\xc1\xc1")
    assert await cache.get(tenant, PLAIN, "k") is None
    assert await cache.get_or_load(tenant, PLAIN, "k", source("own")) == "own"
    assert await cache.get_or_load(tenant, PLAIN, "k", source()) == "own"


async def test_a_key_of_another_type_is_a_miss_and_gives_way(
    cache: CacheRepository, clients: RedisClients, tenant: str
) -> None:
    await clients.cache.command(OPERATION, "LPUSH", cell_key(tenant, PLAIN, "k"), "x")
    assert await cache.get(tenant, PLAIN, "k") is None
    assert await cache.get_or_load(tenant, PLAIN, "k", source(1, 2)) == 1
    await clients.cache.command(OPERATION, "DEL", cell_key(tenant, PLAIN, "j"))
    await clients.cache.command(OPERATION, "LPUSH", cell_key(tenant, PLAIN, "j"), "x")
    assert await cache.set(tenant, PLAIN, "j", 3)
    assert await cache.get_or_load(tenant, PLAIN, "j", source()) == 3


_BAD_CALLS: list[tuple[str, Callable[[CacheRepository], Any]]] = [
    ("tenant_id", lambda cache: cache.get("", PLAIN, "k")),
    ("tenant_id", lambda cache: cache.invalidate_tag("a\0", "red")),
    ("key", lambda cache: cache.get("t", PLAIN, "")),
    ("key", lambda cache: cache.get_many("t", PLAIN, ["k", "\n"])),
    ("key", lambda cache: cache.delete("t", PLAIN, 7)),  # type: ignore[arg-type]
    ("space", lambda cache: cache.get("t", "plain", "k")),  # type: ignore[arg-type]
    ("space", lambda cache: cache.set("t", VERSIONED, "k", {"version": 1})),
    ("space", lambda cache: cache.write_through("t", PLAIN, "k", {"version": 1})),
    ("version", lambda cache: cache.invalidate("t", VERSIONED, "k", -1)),
    ("version", lambda cache: cache.invalidate("t", VERSIONED, "k", 2**53)),
    ("version", lambda cache: cache.invalidate("t", VERSIONED, "k", True)),
    ("version", lambda cache: cache.invalidate("t", VERSIONED, "k", 1.0)),  # type: ignore[arg-type]
    ("version", lambda cache: cache.write_through("t", VERSIONED, "k", {"version": "1"})),
    ("tags", lambda cache: cache.get("t", PLAIN, "k", "red")),
    ("tags", lambda cache: cache.get("t", PLAIN, "k", [""])),
    ("tags", lambda cache: cache.get("t", PLAIN, "k", [str(number) for number in range(33)])),
]


@pytest.mark.one_server
@pytest.mark.parametrize(("field", "call"), _BAD_CALLS)
async def test_bad_input_is_refused_by_name(
    cache: CacheRepository, field: str, call: Callable[[CacheRepository], Any]
) -> None:
    with pytest.raises(ValidationError) as caught:
        await call(cache)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""), ("ttl", 0), ("ttl", float("nan")), ("ttl", 31 * 86400), ("negative_ttl", -1), ("jitter", 1),
        ("beta", -1), ("patience", None), ("max_bytes", 0), ("max_bytes", True),
    ],
)  # fmt: skip
def test_a_space_that_cannot_be_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        CacheSpace(**{"name": "s", field: value})  # type: ignore[arg-type]
    assert caught.value.field == field
