"""What is older than an age goes and nothing else does; sequences stay dense; what somebody is at stays."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from erasing_support import documents, talk

from convostore import ConvoStore, DeliveryStatus, EntityNotFoundError, MessageDocument, Retention, ValidationError
from convostore.gateways.operation import Operation
from convostore.models.redis.session_identity import place_of
from convostore.models.types import utc_now
from convostore.operations.ages import parse_age
from convostore.operations.deletions import Deletions
from convostore.operations.doctor import Doctor, Level
from convostore.operations.repair import Repair
from convostore.repositories.entity_spaces import NEWEST
from convostore.repositories.log_reader import LogReader

AGE = timedelta(days=90)
OLD = utc_now() - timedelta(days=91)
YOUNG = utc_now() - timedelta(days=89)


@pytest.fixture
def name():
    return f"acme-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def tenant(store, name):
    return store.tenant(name)


async def aged(store, tenant, cid, moment):
    """Make a conversation as old as it would be had nothing happened since."""
    await store.mongodb.activity.flush()
    fields = ("created_at", "started_at", "updated_at", "last_activity_at", "last_message.created_at")
    one = {"_id": tenant.database.identity(cid)}
    await store.mongodb.database["conversations"].update_one(one, {"$set": dict.fromkeys(fields, moment)})
    await store.mongodb.database["messages"].update_many({"conversation_id": cid}, {"$set": {"created_at": moment}})


@pytest.fixture
async def talks(store, tenant):
    """Two old conversations and two young ones."""
    names = [await talk(tenant, user, messages=("secret", "secret")) for user in ("u", "v", "u", "v")]
    for cid, moment in zip(names, (OLD, OLD, YOUNG, utc_now()), strict=True):
        await aged(store, tenant, cid, moment)
    return names


def retention(store, tenant, age=AGE):
    return store.retention(tenant.tenant_id, age)


async def test_conversations_in_which_nothing_has_happened_are_deleted(store, tenant, talks):
    foreign = store.tenant(f"{tenant.tenant_id}2")
    theirs = await talk(foreign, "u")
    await aged(store, foreign, theirs, OLD)
    assert await retention(store, tenant).count_conversations() == 2
    assert await retention(store, tenant).delete_conversations() == 2
    assert [await tenant.conversations.exists(cid) for cid in talks] == [False, False, True, True]
    assert await foreign.conversations.exists(theirs)
    with pytest.raises(EntityNotFoundError):
        await tenant.messages.append(talks[0], MessageDocument.user("late"))
    found = await documents(store)
    assert {each["conversation_id"] for each in found["messages"] if "content" in each} == {*talks[2:], theirs}
    assert found["outbox"] == []
    assert (await Repair(store.mongodb).plan()).count == 0
    assert await retention(store, tenant).delete_conversations() == 0


async def test_a_conversation_into_which_somebody_has_just_written_stays(store, tenant, talks):
    """The log knows it, although the conversation does not tell of it yet."""
    late = tenant.database.identity(talks[0])
    await tenant.messages.append(talks[0], MessageDocument.user("back"))
    await store.mongodb.activity.flush()
    change = {"$set": {"last_activity_at": OLD}}
    await store.mongodb.database["conversations"].update_one({"_id": late}, change)
    assert await retention(store, tenant).delete_conversations() == 1
    assert [await tenant.conversations.exists(cid) for cid in talks[:2]] == [True, False]
    assert (await tenant.messages.append(talks[0], MessageDocument.user("more"))).sequence == 4


async def test_of_an_append_and_a_deletion_at_once_either_is_as_if_the_other_had_not_been(store, tenant):
    """Whoever was told that his message is stored finds it; else he was told that the conversation is gone."""
    names = [await talk(tenant, "u") for _ in range(100)]
    for cid in names:
        await aged(store, tenant, cid, OLD)

    async def append(cid):
        try:
            return await tenant.messages.append(cid, MessageDocument.user("back"))
        except EntityNotFoundError:
            return None

    async def append_all():
        return [await append(cid) for cid in sorted(names, reverse=True)]

    appended, deleted = await asyncio.gather(append_all(), retention(store, tenant).delete_conversations())
    alive = [cid for cid in sorted(names, reverse=True) if await tenant.conversations.exists(cid)]
    assert alive == [message.conversation_id for message in appended if message is not None]
    assert deleted == 100 - len(alive)
    assert 0 < deleted < 100, "they never met"
    for cid in alive:
        assert [message.content for message in (await tenant.messages.history(cid)).items] == ["secret", "back"]


async def test_from_the_tombstone_on_nobody_is_told_that_he_has_appended(store, tenant, talks, monkeypatch):
    """Before its log is emptied somebody appends who remembers where it ends."""
    carry_out, refused = Deletions.carry_out, []

    async def appending(deletions, entry, names, **options):
        for cid in names:
            with pytest.raises(EntityNotFoundError):
                await tenant.messages.append(cid, MessageDocument.user("late"))
            refused.append(cid)
        await carry_out(deletions, entry, names, **options)

    monkeypatch.setattr(Deletions, "carry_out", appending)
    assert await retention(store, tenant).delete_conversations() == 2
    assert sorted(refused) == sorted(talks[:2])


async def test_old_messages_lose_what_they_hold_and_keep_their_places(store, tenant, name):
    cid = await talk(tenant, "u", messages=["secret"])
    await tenant.messages.append(
        cid, MessageDocument.user("secret", external_id="secret", payload={"secret": 1}), idempotency_key="secret"
    )
    await tenant.messages.update_delivery_status(cid, 2, DeliveryStatus.SENT)
    await tenant.messages.append_many(cid, [MessageDocument.user("secret")] * 3)
    await tenant.messages.delete(MessageDocument.identify(cid, 4))
    await aged(store, tenant, cid, OLD)
    young = await tenant.messages.append(cid, MessageDocument.user("young"))
    await store.mongodb.activity.flush()
    other = await talk(tenant, "u", messages=["secret"])
    await aged(store, tenant, other, OLD)
    reader = LogReader(tenant.database)
    await store.cache.get_or_load(name, NEWEST, cid, lambda: reader.newest_slots(cid))
    assert await store.cache.get(name, NEWEST, cid) is not None
    assert await retention(store, tenant).count_messages() == 5
    assert await retention(store, tenant).blank_messages() == 5
    assert "secret" not in str(await documents(store))
    history = await tenant.messages.history(cid, include_deleted=True)
    assert [message.sequence for message in history.items] == [1, 2, 3, 4, 5, 6]
    assert [message.content for message in (await tenant.messages.history(cid)).items] == ["young"]
    assert (await tenant.messages.append(cid, MessageDocument.user("next"))).sequence == young.sequence + 1
    await store.mongodb.activity.flush()
    shown = await tenant.conversations.get_by_id(other)
    assert (shown.message_count, shown.last_message.preview, shown.last_message.version) == (1, "", 2)
    assert await store.cache.get(name, NEWEST, cid) is None
    assert (await documents(store))["outbox"] == []
    assert (await Repair(store.mongodb).plan()).count == 0
    levels = [finding.level async for finding in Doctor(store.mongodb.administration).examine()]
    assert Level.PROBLEM not in levels
    assert await retention(store, tenant).blank_messages() == 0


async def test_messages_of_many_portions_go_and_an_edit_meanwhile_does_not_stay(store, tenant, monkeypatch):
    monkeypatch.setattr("convostore.operations.retention._MESSAGES_AT_ONCE", 7)
    names = [await talk(tenant, "u", messages=["secret"] * 5) for _ in range(10)]
    for cid in names:
        await aged(store, tenant, cid, OLD)
    edits = [tenant.messages.edit(cid, 5, content="secret edit") for cid in names]
    _, *edited = await asyncio.gather(retention(store, tenant).blank_messages(), *edits, return_exceptions=True)
    assert all(isinstance(each, MessageDocument | EntityNotFoundError) for each in edited), edited
    assert await retention(store, tenant).blank_messages() == 0
    await store.mongodb.activity.flush()
    assert "secret" not in str(await documents(store))


async def test_sessions_that_nobody_has_used_are_ended(store, tenant, name):
    idle, used = [await store.sessions.start_session(name, "u", lifetime_seconds=90_000) for _ in range(2)]
    foreign = await store.sessions.start_session(f"{name}2", "u")
    for session in (idle, foreign):
        await _used_at(store, session, utc_now() - timedelta(hours=2))
    old = retention(store, tenant, timedelta(hours=1))
    assert (await old.count_sessions(), await old.end_sessions(), await old.count_sessions()) == (1, 1, 0)
    found = [await store.sessions.get_session(each.tenant_id, each.session_id) for each in (idle, used, foreign)]
    assert [each is not None for each in found] == [False, True, True]
    with pytest.raises(ValidationError, match="redis_url"):
        await Retention(store.mongodb, None, name, AGE).end_sessions()


async def _used_at(store, session, moment):
    where = place_of(session.tenant_id, session.session_id)
    milliseconds = str(round(moment.timestamp() * 1000))
    await store.redis.state.command(
        Operation("HSET", "session", "Session", writes=True), "HSET", where.key, "last_activity_at", milliseconds
    )


async def test_without_redis_conversations_and_messages_are_kept_no_longer_either(store, tenant, talks):
    without = ConvoStore(store.mongodb).retention(tenant.tenant_id, AGE)
    assert (await without.blank_messages(), await without.delete_conversations()) == (4, 2)
    assert (await documents(store))["outbox"] == []


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("1h", timedelta(hours=1)),
        ("90d", timedelta(days=90)),
        ("8 w", timedelta(weeks=8)),
        ("2y", timedelta(days=730)),
        ("100y", timedelta(days=36_500)),
    ],
)
def test_an_age_is_read(text, age):
    assert parse_age(text) == age


@pytest.mark.parametrize(
    "text",
    ["", "90", "d", "0d", "-1d", "1.5d", "90D", "1m", "90d ", "٣d", "101y", "999999999d", "9" * 400 + "d", None, 9],
)
def test_what_is_no_age_is_refused(text):
    with pytest.raises(ValidationError) as caught:
        parse_age(text)
    assert caught.value.field == "older_than"


@pytest.mark.parametrize("age", [timedelta(minutes=59), timedelta(0), timedelta(days=-1), timedelta.max, 90, None])
def test_what_cannot_be_an_age_is_refused_before_anything_is_sent(store, age):
    with pytest.raises(ValidationError, match="older_than"):
        store.retention("acme", age)
    with pytest.raises(ValidationError, match="tenant_id"):
        store.retention("", AGE)
