"""What is erased is gone from both stores, and nothing of anybody else is."""

import asyncio
import uuid
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest
from erasing_support import QUOTA, documents, erasure, in_redis, settle_in, slot, talk

from convostore import (
    ConvoStore,
    DuplicateEntityError,
    EntityNotFoundError,
    Erasure,
    ErasureCounts,
    MessageDocument,
    RedisSettings,
    ValidationError,
)
from convostore.database.redis_client import RedisClients
from convostore.models.types import utc_now
from convostore.operations.deletions import together
from convostore.operations.doctor import Doctor, Level
from convostore.operations.repair import Repair
from convostore.repositories.exceptions import RepositoryError
from convostore.repositories.message_log import MessageLog
from convostore.testing.redis_servers import RedisServer

USER = "u:1*{%}"
OF_USER = ErasureCounts(conversations=3, imports=1, messages=10, usage=1, outbox=1, sessions=3, limits=1, cached=1)


@pytest.fixture
def name():
    """A tenant that no other test uses, with what has a meaning in keys and patterns."""
    return f"acme*[{uuid.uuid4().hex[:12]}]?:\\"


@pytest.fixture
def tenant(store, name):
    return store.tenant(name)


@pytest.fixture
def sibling(store, name):
    """One whose name begins with the other's, and stands behind his in every order."""
    return store.tenant(name + "x")


async def of_tenant(store, tenant):
    """Return all documents below a tenant's name."""
    await store.mongodb.activity.flush()
    begin = tenant.database.identity("")
    return [each for found in (await documents(store)).values() for each in found if each["_id"].startswith(begin)]


async def assert_only_places_left(store, tenant):
    """Nothing is left but what the server removes by itself, and it holds nothing."""
    for stored in await of_tenant(store, tenant):
        assert "purge_at" in stored, stored
        assert "secret" not in str(stored)
        assert "user_id" not in stored


async def assert_only_marks_left(store, tenant):
    for key, value in (await in_redis(store, tenant)).items():
        assert key.startswith("cs:session:")
        assert value[::2] == [b"gone"], "a used id stays used"


async def test_a_user_is_erased_from_both_stores_and_nobody_else_is(store, tenant, sibling):
    talks, session = await settle_in(store, tenant, USER)
    kept, alive = await settle_in(store, tenant, "other")
    await settle_in(store, sibling, USER)
    spared = [each for each in await of_tenant(store, tenant) if not _is_of(each, talks)]
    theirs = await of_tenant(store, sibling), await in_redis(store, sibling)
    assert await erasure(store, tenant, USER).look() == OF_USER
    report = await erasure(store, tenant, USER).run()
    assert (report.before, report.after, report.is_complete) == (OF_USER, ErasureCounts(), True)
    assert (await of_tenant(store, sibling), await in_redis(store, sibling)) == theirs
    now = await of_tenant(store, tenant)
    assert [each for each in now if not _is_of(each, talks)] == spared
    assert all("purge_at" in each and "secret" not in str(each) for each in now if each not in spared)
    assert USER.encode() not in str(await in_redis(store, tenant)).encode().replace(b"\\\\", b"\\")
    await expect_gone(store, tenant, talks, session)
    assert await tenant.conversations.count() == len(kept)
    assert await store.sessions.get_session(tenant.tenant_id, alive.session_id) is not None
    assert await used(store, tenant) == ["other"]
    assert await erasure(store, tenant, USER).look() == ErasureCounts()
    assert await erasure(store, tenant, "other").look() == OF_USER


def _is_of(stored, talks):
    of_claim = f"claimed-{USER.encode().hex()}"
    owned = stored.get("user_id") == USER or stored.get("identifier") == USER
    return owned or any(name in stored["_id"] for name in [*talks, of_claim])


async def used(store, tenant):
    return [each["identifier"] for each in await of_tenant(store, tenant) if "identifier" in each]


async def expect_gone(store, tenant, talks, session):
    assert await store.sessions.get_session(tenant.tenant_id, session.session_id) is None
    assert not await store.sessions.create_session(session), "a used id stays used"
    for conversation in talks:
        assert await tenant.conversations.get_by_id(conversation) is None
        with pytest.raises(EntityNotFoundError):
            await tenant.messages.append(conversation, MessageDocument.user("late"))
        with pytest.raises(DuplicateEntityError):
            await talk(tenant, USER, conversation)


async def test_a_tenant_is_erased_with_whatever_stands_below_his_name(store, tenant, sibling, name):
    talks, session = await settle_in(store, tenant, USER)
    await settle_in(store, tenant, "other")
    await settle_in(store, sibling, USER)
    await store.mongodb.database["messages"].insert_many(
        [slot(tenant, "orphan", 1), slot(tenant, "half deleted", 1), slot(tenant, "zzz", 7)]
    )
    tombstone = {"_id": tenant.database.identity("half deleted"), "version": 2}
    await store.mongodb.database["conversations"].insert_one(
        {**tombstone, "deleted_at": utc_now(), "purge_at": utc_now() + timedelta(days=30)}
    )
    theirs = await of_tenant(store, sibling), await in_redis(store, sibling)
    report = await erasure(store, tenant).run()
    assert (report.before.conversations, report.before.imports, report.before.messages) == (6, 2, 23)
    assert (report.before.usage, report.before.outbox, report.before.sessions, report.before.limits) == (2, 2, 6, 2)
    assert report.before.cached >= 4  # two cells, two tags, and indexes of sessions
    assert report.after == ErasureCounts()
    assert (await of_tenant(store, sibling), await in_redis(store, sibling)) == theirs
    await assert_only_places_left(store, tenant)
    await assert_only_marks_left(store, tenant)
    await expect_gone(store, tenant, talks, session)
    assert (await Repair(store.mongodb).plan()).cases["unsealed"].count == 0
    levels = [finding.level async for finding in Doctor(store.mongodb.administration).examine()]
    assert Level.PROBLEM not in levels
    again = await erasure(store, tenant).run()
    assert (again.before, again.after) == (ErasureCounts(), ErasureCounts())


async def test_names_that_a_program_has_given_the_user_are_erased_if_they_are_told(store, tenant, name):
    for identifier in (USER, f"key-of-{USER}", "other"):
        await store.rate_limits.check_rate_limits(name, [(identifier, QUOTA)])
    assert (await erasure(store, tenant, USER, identifiers=[f"key-of-{USER}", USER]).look()).limits == 2
    await erasure(store, tenant, USER, identifiers=[f"key-of-{USER}"]).run()
    assert [key[-5:] for key in await in_redis(store, tenant)] == ["other"]


async def test_while_redis_is_away_it_fails_and_the_next_run_does_the_rest(store, convostore_settings, tenant, name):
    await settle_in(store, tenant, USER)
    with RedisServer() as server:
        clients = RedisClients.open(store_settings(server))
        try:
            server.kill()
            with pytest.raises(RepositoryError):
                await Erasure(store.mongodb, clients, name, USER).run()
        finally:
            await clients.aclose()
    assert await tenant.conversations.count() == 3, "nothing was begun"
    assert (await erasure(store, tenant, USER).run()).is_complete


def store_settings(server):
    return RedisSettings(redis_url=server.url, redis_deadline=0.5, cache_deadline=0.5)


async def test_without_any_redis_what_lies_in_mongodb_is_erased(store, tenant, name):
    await settle_in(store, tenant, USER)
    without = ConvoStore(store.mongodb)
    report = await without.erasure(name, USER).run()
    assert (report.before.sessions, report.before.messages, report.after) == (0, 10, ErasureCounts())
    assert await tenant.conversations.count() == 0
    assert (await store.erasure(name, USER).run()).before == ErasureCounts(sessions=3, limits=1)


async def test_a_run_goes_on_with_what_one_that_failed_had_begun(store, tenant, name, monkeypatch):
    """It dies between a tombstone and the seal: the conversation is not found by its user any more."""
    await settle_in(store, tenant, USER)
    close, calls = MessageLog.close, iter(range(100))

    async def failing(log, conversation_id):
        if next(calls) > 0:
            raise RepositoryError("the log does not answer")
        await close(log, conversation_id)

    with monkeypatch.context() as patched:
        patched.setattr(MessageLog, "close", failing)
        with pytest.raises(RepositoryError):
            await erasure(store, tenant, USER).run()
    assert await tenant.conversations.count() == 0
    assert "secret" in str(await of_tenant(store, tenant))
    report = await erasure(store, tenant, USER).run()
    assert report.is_complete
    assert report.before.outbox == 2
    await assert_only_places_left(store, tenant)


@pytest.mark.parametrize("user", [USER, None])
async def test_what_others_have_put_where_nothing_can_be_goes_and_takes_nobody_along(store, tenant, name, user):
    """An identity that reads as another user's conversation, one that cannot be read, one that cannot be an id."""
    kept = await talk(tenant, "other", "a")
    for strange in ("a:b", "%FF", "a%0Ab", ""):
        stored = {"_id": tenant.database.identity("") + strange, "version": 1, "tenant_id": name, "user_id": USER}
        await store.mongodb.database["conversations"].insert_one(stored)
    for strange in ("a:b:c", "%FF:1", "x"):
        await store.mongodb.database["messages"].insert_one(
            {"_id": tenant.database.identity("") + strange, "version": 1}
        )
    assert (await erasure(store, tenant, user).run()).is_complete
    assert await tenant.conversations.count() == (0 if user is None else 1)
    assert await tenant.conversations.exists(kept) == (user is not None)


async def test_what_cannot_be_right_is_refused_before_anything_is_sent(store):
    for tenant_id, user, options, field in [
        ("", None, {}, "tenant_id"),
        ("acme", "", {}, "user_id"),
        ("acme", {"$ne": None}, {}, "user_id"),
        ("acme", "u", {"identifiers": ["a\nb"]}, "identifiers"),
        ("acme", None, {"identifiers": ["a"]}, "identifiers"),
        ("acme", "u", {"identifiers": "ip"}, "identifiers"),
        ("acme", "u", {"identifiers": None}, "identifiers"),
        ("acme", "u", {"identifiers": 5}, "identifiers"),
    ]:
        with pytest.raises(ValidationError) as caught:
            store.erasure(tenant_id, user, **options)
        assert caught.value.field == field


async def test_of_work_that_is_cancelled_nothing_more_is_begun() -> None:
    begun: list[int] = []
    started = asyncio.Event()

    async def wait(number: int) -> None:
        started.set()
        await asyncio.Event().wait()

    def begin(number: int) -> Coroutine[Any, Any, None]:
        begun.append(number)
        return wait(number)

    working = asyncio.create_task(together(begin, range(100)))
    await started.wait()
    working.cancel()
    await asyncio.wait([working])
    assert working.cancelled()
    assert len(begun) < 100
