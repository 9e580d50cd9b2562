"""Documents: frozen, validated, and the same after a trip through their stored form."""

import copy
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from convostore import (
    ChannelType,
    ConversationDocument,
    ConvoStore,
    CorruptDocumentError,
    DeliveryStatus,
    LastMessage,
    MessageDocument,
    MessageRole,
    TenantStore,
    TokenUsage,
    ValidationError,
)

NOW = datetime(2026, 2, 3, 4, 5, 6, 789000, UTC)
ODD: dict[str, Any] = {
    "$ref": "users",
    "$id": 1,
    "$where": {"$gt": [{"$date": 1}]},
    "a.b": {".": 1, "c.": 2},
    "": {"": None},
    "%": 1,
    "%$x": 2,
    "%%": [{"$": 1}],
    "_id": "x",
    "numbers": [0, -1, 2**63 - 1, -(2**63), 0.5, 1e300, -0.0],
    "truth": [True, False, None],
    "text": "nul \0 and \U0001f600 and \u2028",
    "empty": [{}, [], ""],
}
CONVERSATIONS = {
    "least": ConversationDocument.start("u"),
    "empty but said": ConversationDocument.start("u", title="", metadata={}, tags=[]),
    "most": ConversationDocument.start(
        "u",
        ChannelType.WHATSAPP,
        conversation_id="a:b%c{}",
        tenant_id="acme",
        status="waiting",
        title="A title",
        tags=["one", "two"],
        metadata=ODD,
        assignee="somebody",
        created_at=NOW,
        completed_at=NOW,
        message_count=3,
        last_message=LastMessage(sequence=3, version=1, role="user", preview="", created_at=NOW),
        version=7,
    ),
}
MESSAGES = {
    "least": MessageDocument(role="tool"),
    "empty but said": MessageDocument.user("", payload={}),
    "most": MessageDocument.assistant(
        "text \0",
        tenant_id="acme",
        conversation_id="c",
        sequence=4,
        payload=ODD,
        usage=TokenUsage(input_tokens=1, output_tokens=2**63 - 1),
        external_id="wamid.1",
        idempotency_key="key",
        delivery_status=DeliveryStatus.READ,
        created_at=NOW,
        edited_at=NOW,
        deleted_at=NOW,
        version=2,
    ),
}
DOCUMENTS = [
    pytest.param(document, id=f"{document.entity_type}, {name}")
    for documents in (CONVERSATIONS, MESSAGES)
    for name, document in documents.items()
]
Document = ConversationDocument | MessageDocument


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_is_the_same_after_a_trip_through_its_stored_form(document: Document) -> None:
    assert type(document).from_dict(document.to_dict()) == document


@pytest.mark.parametrize("document", DOCUMENTS)
async def test_a_document_is_the_same_after_a_trip_through_the_server(store: ConvoStore, document: Document) -> None:
    collection = store.mongodb.database["anything"]
    await collection.insert_one({"_id": "x", **document.to_dict()})
    stored = await collection.find_one()
    assert stored is not None
    assert type(document).from_dict(stored) == document


@pytest.mark.parametrize("document", DOCUMENTS)
def test_unknown_stored_fields_are_ignored_at_every_level(document: Document) -> None:
    stored = document.to_dict()
    for value in (stored, stored.get("usage"), stored.get("last_message")):
        if value is not None:
            value["of a later release"] = {"$x": 1}
    assert type(document).from_dict(stored) == document


def test_a_document_cannot_be_changed_only_evolved() -> None:
    conversation = CONVERSATIONS["most"]
    with pytest.raises(Exception, match="frozen"):
        conversation.title = "other"
    with pytest.raises(Exception, match="frozen"):
        del conversation.title
    evolved = conversation.evolve(title="other", tags=["three"])
    assert (evolved.title, evolved.tags) == ("other", ("three",))
    assert (conversation.title, conversation.tags) == ("A title", ("one", "two"))
    assert evolved.evolve(title="A title", tags=("one", "two")) == conversation


def test_evolving_validates_and_refuses_unknown_fields() -> None:
    for changes in ({"nope": 1}, {"self": 1}, {"user_id": ""}):
        with pytest.raises(ValidationError):
            CONVERSATIONS["least"].evolve(**changes)


def test_the_caller_s_dictionary_is_not_the_document_s() -> None:
    metadata = {"key": 1}
    conversation = ConversationDocument.start("u", metadata=metadata)
    metadata["key"] = 2
    assert conversation.metadata == {"key": 1}


def test_moments_are_cut_to_milliseconds_in_utc() -> None:
    moment = datetime(2026, 1, 1, 12, 0, 0, 123999, timezone(timedelta(hours=2)))
    assert ConversationDocument.start("u", created_at=moment).created_at == datetime(2026, 1, 1, 10, 0, 0, 123000, UTC)


@pytest.mark.parametrize("moment", [datetime.min, datetime.max, datetime(1969, 12, 31, 23, 59, 59, 999000)])  # noqa: DTZ001, DTZ901
async def test_moments_at_the_edges_of_the_calendar_are_kept(acme: TenantStore, moment: datetime) -> None:
    created = await acme.conversations.create(ConversationDocument.start("u", created_at=moment.replace(tzinfo=UTC)))
    assert await acme.conversations.get_by_id(created.conversation_id) == created


def test_new_ids_are_ordered_by_time_and_unique() -> None:
    ids = [ConversationDocument.start("u").conversation_id for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert [one[:12] for one in ids] == sorted(one[:12] for one in ids)


def test_the_successor_is_one_version_ahead() -> None:
    for document in (CONVERSATIONS["most"], MESSAGES["most"]):
        assert document.successor().version == document.version + 1


def test_a_blank_message_keeps_its_place_and_its_key_and_nothing_that_was_said() -> None:
    blank = MESSAGES["most"].blank()
    assert (blank.sequence, blank.idempotency_key, blank.role) == (4, "key", MessageRole.ASSISTANT)
    assert (blank.content, blank.payload, blank.usage, blank.external_id) == ("", None, None, None)
    assert blank.is_deleted


CORRUPT: dict[str, tuple[str, dict[str, Any]]] = {
    "a field of a wrong type": ("user_id", {"user_id": 5}),
    "an unknown status": ("status", {"status": "sleeping"}),
    "no moment": ("created_at", {"created_at": "yesterday"}),
    "a version that is none": ("version", {"version": "1"}),
    "metadata that is none": ("metadata", {"metadata": [1]}),
    "a preview without a role": ("last_message", {"last_message": {"sequence": 1}}),
}


@pytest.mark.parametrize("name", CORRUPT)
async def test_a_corrupt_document_is_reported_with_its_id_and_field(
    store: ConvoStore, acme: TenantStore, name: str
) -> None:
    field, change = CORRUPT[name]
    created = await acme.conversations.create(ConversationDocument.start("u", conversation_id="broken"))
    database = store.mongodb.database
    await database.command({"collMod": "conversations", "validationLevel": "off"})
    await database["conversations"].update_one({}, {"$set": change})
    for call in (
        lambda: acme.conversations.get_by_id("broken"),
        acme.conversations.list,
        lambda: acme.conversations.update_with("broken", lambda found: found),
    ):
        with pytest.raises(CorruptDocumentError) as failure:
            await call()
        assert failure.value.field == field
        assert "broken" in failure.value.entity_id
        assert "sleeping" not in str(failure.value)
    assert await acme.conversations.exists(created.conversation_id)


def test_of_several_documents_the_corrupt_one_is_named() -> None:
    stored = [{"_id": f"acme:{n}", **document.to_dict()} for n, document in enumerate(MESSAGES.values())]
    assert MessageDocument.from_dicts(stored) == list(MESSAGES.values())
    stored[1]["role"] = "nobody"
    with pytest.raises(CorruptDocumentError) as failure:
        MessageDocument.from_dicts(stored)
    assert (failure.value.entity_id, failure.value.field) == ("acme:1", "role")


def test_reading_a_stored_form_leaves_it_as_it_is() -> None:
    stored = {"_id": "x", **CONVERSATIONS["most"].to_dict(), "of a later release": 1}
    stored["created_at"] = stored["created_at"].replace(tzinfo=None)
    stored["last_message"]["created_at"] = stored["last_message"]["created_at"].replace(tzinfo=None)
    before = copy.deepcopy(stored)
    assert ConversationDocument.from_dict(stored) == CONVERSATIONS["most"]
    assert stored == before


@pytest.mark.parametrize("value", [float("nan"), {1}, {5: 1}, "\ud800", 2**63], ids=repr)
async def test_plain_data_changed_behind_the_document_s_back_is_not_stored(acme: TenantStore, value: object) -> None:
    conversation = ConversationDocument.start("u", metadata={"key": 1})
    conversation.metadata["key"] = value
    with pytest.raises(ValidationError, match="metadata"):
        await acme.conversations.create(conversation)
    assert not await acme.conversations.exists(conversation.conversation_id)


async def test_what_is_created_does_not_share_its_metadata_with_the_draft(acme: TenantStore) -> None:
    draft = ConversationDocument.start("u", metadata={"key": 1})
    created = await acme.conversations.create(draft)
    draft.metadata["key"] = 2
    assert created.metadata == {"key": 1}


@pytest.mark.parametrize("escaped", [5, "payload", ["nope"], [["payload"]], None])
def test_a_corrupt_list_of_escaped_fields_does_no_harm(escaped: Any) -> None:
    stored = {**MESSAGES["least"].to_dict(), "escaped": escaped}
    assert MessageDocument.from_dict(stored) == MESSAGES["least"]


async def test_a_missing_field_is_corrupt(store: ConvoStore, acme: TenantStore) -> None:
    await acme.conversations.create(ConversationDocument.start("u", conversation_id="c"))
    await acme.messages.append("c", MessageDocument.user("x"))
    await store.mongodb.database["messages"].update_one({}, {"$unset": {"role": ""}})
    with pytest.raises(CorruptDocumentError) as failure:
        await acme.messages.history("c")
    assert failure.value.field == "role"


@pytest.mark.parametrize("value", [{"payload": ODD}, {"metadata": ODD}], ids=["payload", "metadata"])
async def test_odd_keys_survive_writing_reading_and_editing(acme: TenantStore, value: dict[str, Any]) -> None:
    conversation = await acme.conversations.create(ConversationDocument.start("u", metadata=value.get("metadata", {})))
    identity = conversation.conversation_id
    await acme.messages.append(identity, MessageDocument.user("x", payload=value.get("payload")))
    for _ in range(2):
        found = await acme.conversations.get_by_id(identity)
        assert found is not None
        assert found.metadata == value.get("metadata", {})
        [message] = (await acme.messages.history(identity)).items
        assert message.payload == value.get("payload")
        await acme.conversations.update(found.evolve(title="edited"))
        await acme.messages.edit(identity, 1, content="edited")
    plain = await acme.conversations.update_with(identity, lambda found: found.evolve(metadata={"%": 1}))
    again = await acme.conversations.get_by_id(identity)
    assert again is not None
    assert (again.metadata, again.version, again.title) == (plain.metadata, plain.version, plain.title)
    back = await acme.conversations.update_with(identity, lambda found: found.evolve(metadata={"plain": 1}))
    assert back.metadata == {"plain": 1}
    assert (await acme.conversations.get_by_id(identity)).metadata == {"plain": 1}  # type: ignore[union-attr]


@pytest.mark.parametrize("change", [{"user_id": "other"}, {"channel": "api"}, {"version": 7}, {"message_count": 1}])
async def test_what_would_not_be_stored_cannot_be_changed_once_a_document_is_stored(acme, change) -> None:
    draft = ConversationDocument.start("user")
    assert draft.evolve(**change) != draft
    stored = await acme.conversations.create(draft)
    with pytest.raises(ValidationError, match="cannot be changed once it is stored") as caught:
        stored.evolve(**change)
    assert caught.value.field == next(iter(change))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(number: float) -> None:
    with pytest.raises(ValidationError, match=r"metadata\.x\[0\]"):
        ConversationDocument.start("user", metadata={"x": [number]})
