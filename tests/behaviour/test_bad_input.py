"""Bad input gets one clear typed error that names the field, and changes nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from observed import dump

from convostore import (
    ConversationDocument,
    ConversationStatus,
    ConvoStore,
    MessageDocument,
    Pagination,
    TenantMismatchError,
    TenantStore,
    ValidationError,
)

KNOWN = "known"
OPERATORS: list[Any] = [{"$ne": None}, {"$gt": ""}, {"$regex": ".*"}, ["a"], [], {}]
NO_TEXT: list[Any] = [5, True, 1.5, b"x", object(), *OPERATORS]
NO_IDENTIFIER: list[Any] = [None, "", "x" * 257, "a\0b", "a\nb", "\x85", "\ud800", *NO_TEXT]
NO_NUMBER: list[Any] = [True, False, -1, "1", 1.5, 2**31, 2**70, [1], {"$gt": 0}]
NO_MOMENT: list[Any] = [datetime(2026, 1, 1), "2026-01-01T00:00:00Z", 5, True, *OPERATORS]  # noqa: DTZ001
NO_CHOICE: list[Any] = [None, "", "unheard of", 5, True, *OPERATORS]

Call = Callable[[TenantStore, Any], Any]


@dataclass(frozen=True)
class Case:
    """A call that takes a value, the values that it must refuse, and the field that its error must name."""

    call: Call
    field: str
    values: Iterable[Any]


def without(values: list[Any], *allowed: Any) -> list[Any]:
    return [value for value in values if not any(value is one or value == one for one in allowed)]


def user() -> MessageDocument:
    return MessageDocument.user("text")


def same(entity: Any) -> Any:
    return entity


async def consumed(items: AsyncIterator[Any]) -> None:
    async for _ in items:
        pass


CONVERSATION_IDS = {
    "get_by_id": lambda acme, bad: acme.conversations.get_by_id(bad),
    "get_by_conversation_id": lambda acme, bad: acme.conversations.get_by_conversation_id(bad),
    "exists": lambda acme, bad: acme.conversations.exists(bad),
    "delete": lambda acme, bad: acme.conversations.delete(bad),
    "status": lambda acme, bad: acme.conversations.update_conversation_status(bad, ConversationStatus.ACTIVE),
    "update_with": lambda acme, bad: acme.conversations.update_with(bad, same),
    "filter": lambda acme, bad: acme.conversations.list({"conversation_id": bad}),
    "append": lambda acme, bad: acme.messages.append(bad, user()),
    "append_many": lambda acme, bad: acme.messages.append_many(bad, [user(), user()]),
    "history": lambda acme, bad: acme.messages.history(bad),
    "iterate": lambda acme, bad: consumed(acme.messages.iterate(bad)),
    "window": lambda acme, bad: acme.messages.window(bad, max_messages=5),
    "get": lambda acme, bad: acme.messages.get(bad, 1),
    "edit": lambda acme, bad: acme.messages.edit(bad, 1, content="x"),
    "delivery": lambda acme, bad: acme.messages.update_delivery_status(bad, 1, "sent"),
    "count messages": lambda acme, bad: acme.messages.count({"conversation_id": bad}),
    "list messages": lambda acme, bad: acme.messages.list({"conversation_id": bad}),
    "page messages": lambda acme, bad: acme.messages.page({"conversation_id": bad}),
    "iterate_all messages": lambda acme, bad: consumed(acme.messages.iterate_all({"conversation_id": bad})),
}
MESSAGE_IDS = {
    "get_by_id": lambda acme, bad: acme.messages.get_by_id(bad),
    "exists": lambda acme, bad: acme.messages.exists(bad),
    "delete": lambda acme, bad: acme.messages.delete(bad),
    "update_with": lambda acme, bad: acme.messages.update_with(bad, same),
}
NO_MESSAGE_ID: list[Any] = [
    *NO_IDENTIFIER,
    KNOWN,
    f"{KNOWN}:1",
    f"{KNOWN}:00000000001",
    f"{KNOWN}:0000000001:0000000001",
    f"{KNOWN}:000000000a",
    f"{KNOWN}:\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661",
    ":0000000001",
    "%FF:0000000001",
    "%6Bnown:0000000001",
    "a\0:0000000001",
    "acme:known:0000000001",
]
FILTERS: dict[str, list[Any]] = {
    "user_id": NO_IDENTIFIER,
    "assignee": without(NO_IDENTIFIER, None),
    "status": NO_CHOICE,
    "channel": NO_CHOICE,
    "tags": [None, "", "x" * 101, "\ud800", *NO_TEXT],
    "start_date": [None, *NO_MOMENT],
    "end_date": [None, *NO_MOMENT],
    "search": [None, "", " ", "x" * 201, "a\0b", "\ud800", *NO_TEXT],
    "nope": [1],
    "$where": ["1"],
    "metadata.key": ["x"],
    "_id": ["acme:known"],
    "self": [1],
    "": [1],
}
MESSAGE_FILTERS: dict[str, list[Any]] = {
    "role": NO_CHOICE,
    "delivery_status": NO_CHOICE,
    "external_id": NO_IDENTIFIER,
    "start_date": [None, *NO_MOMENT],
    "search": [None, "", " ", "x" * 201, "a\0b", "\ud800", *NO_TEXT],
    "content": ["x"],
    "$or": [[]],
}

CASES: dict[str, list[Case]] = {
    "conversation ids": [Case(call, "conversation_id", NO_IDENTIFIER) for name, call in CONVERSATION_IDS.items()],
    "message ids": [Case(call, "message_id", NO_MESSAGE_ID) for call in MESSAGE_IDS.values()],
    "filters": [
        Case(lambda acme, bad, name=name: acme.conversations.list({name: bad}), name, values)
        for name, values in FILTERS.items()
    ]
    + [
        Case(lambda acme, bad, name=name: acme.messages.list({"conversation_id": KNOWN, name: bad}), name, values)
        for name, values in MESSAGE_FILTERS.items()
    ]
    + [
        Case(lambda acme, bad: acme.conversations.list(bad), "filters", ["x", 5, [1], {1: 2}, {"\ud800": 1}]),
        Case(lambda acme, bad: acme.conversations.count(bad), "filters", ["x", 5, [1], {None: 2}]),
        Case(lambda acme, bad: acme.conversations.page(bad), "filters", ["x", 5, [1]]),
        Case(lambda acme, bad: acme.conversations.get_conversations_by_tenant("acme", bad), "filters", ["x", 5]),
        Case(lambda acme, bad: acme.messages.list(bad), "conversation_id", [None, {}, {"role": "user"}]),
        Case(lambda acme, bad: acme.messages.count(bad), "conversation_id", [None, {}]),
    ],
    "other identifiers": [
        Case(lambda acme, bad: acme.conversations.get_active_conversations("acme", bad), "user_id", NO_IDENTIFIER),
        Case(lambda acme, bad: acme.conversations.get_active_conversations(bad, "u"), "tenant_id", NO_IDENTIFIER),
        Case(lambda acme, bad: acme.conversations.get_conversations_by_tenant(bad), "tenant_id", NO_IDENTIFIER),
        Case(lambda acme, bad: acme.conversations.list({"tenant_id": bad}), "tenant_id", [*NO_IDENTIFIER, "rival"]),
        Case(lambda acme, bad: acme.messages.get_by_external_id(bad), "external_id", NO_IDENTIFIER),
        Case(lambda acme, bad: acme.messages.search("x", bad), "conversation_id", without(NO_IDENTIFIER, None)),
        Case(lambda acme, bad: acme.messages.search(bad), "text", [None, "", " ", "x" * 201, "\ud800", *NO_TEXT]),
        Case(
            lambda acme, bad: acme.messages.append(KNOWN, user(), idempotency_key=bad),
            "idempotency_key",
            without(NO_IDENTIFIER, None),
        ),
        Case(
            lambda acme, bad: acme.messages.append_many(KNOWN, [user()], idempotency_key=bad),
            "idempotency_key",
            without(NO_IDENTIFIER, None),
        ),
    ],
    "numbers": [
        Case(lambda acme, bad: acme.messages.history(KNOWN, limit=bad), "limit", [None, 0, 1001, *NO_NUMBER]),
        Case(lambda acme, bad: acme.messages.history(KNOWN, before=bad), "before", [0, *without(NO_NUMBER, 2**31)]),
        Case(lambda acme, bad: acme.messages.history(KNOWN, after=bad), "after", without(NO_NUMBER, 2**31)),
        Case(
            lambda acme, bad: consumed(acme.messages.iterate(KNOWN, bad)), "after", [None, *without(NO_NUMBER, 2**31)]
        ),
        Case(lambda acme, bad: acme.messages.search("x", limit=bad), "limit", [None, 0, 1001, *NO_NUMBER]),
        Case(lambda acme, bad: acme.messages.get(KNOWN, bad), "sequence", [None, 0, *without(NO_NUMBER, 2**31)]),
        Case(
            lambda acme, bad: acme.messages.edit(KNOWN, bad, content="x"),
            "sequence",
            [None, 0, *without(NO_NUMBER, 2**31)],
        ),
        Case(
            lambda acme, bad: acme.messages.edit(KNOWN, 1, bad, content="x"),
            "version",
            [0, *without(NO_NUMBER, 2**31)],
        ),
        Case(
            lambda acme, bad: acme.messages.delete(MessageDocument.identify(KNOWN, 99), bad),
            "version",
            [0, *without(NO_NUMBER, 2**31)],
        ),
        Case(lambda acme, bad: acme.conversations.delete(KNOWN, bad), "version", [0, *without(NO_NUMBER, 2**31)]),
        Case(
            lambda acme, bad: acme.messages.window(KNOWN, max_messages=bad),
            "max_messages",
            [None, 0, *without(NO_NUMBER, 2**31, 2**70)],
        ),
        Case(
            lambda acme, bad: acme.messages.window(KNOWN, max_tokens=bad),
            "max_tokens",
            [0, *without(NO_NUMBER, 2**31, 2**70)],
        ),
        Case(
            lambda acme, bad: acme.conversations.get_active_conversations("acme", "u", bad),
            "limit",
            [None, 0, 101, *NO_NUMBER],
        ),
    ],
    "pages": [
        Case(lambda acme, bad: acme.conversations.list({}, Pagination(page=bad)), "page", [None, 0, *NO_NUMBER]),
        Case(
            lambda acme, bad: acme.conversations.list({}, Pagination(page_size=bad)),
            "page_size",
            [None, 0, 101, *NO_NUMBER],
        ),
        Case(
            lambda acme, bad: acme.conversations.list({}, Pagination(sort_by=bad)),
            "sort_by",
            ["", "nope", "_id", "metadata.x", "$natural", 5, True, *OPERATORS],
        ),
        Case(
            lambda acme, bad: acme.conversations.page({}, Pagination(sort_order=bad)),
            "sort_order",
            [None, "", "ASC", 1, True, *OPERATORS],
        ),
        Case(lambda acme, bad: acme.conversations.list({}, bad), "pagination", [{"page": 1}, 1, "1", []]),
        Case(lambda acme, bad: acme.messages.list({"conversation_id": KNOWN}, bad), "pagination", [{"page": 1}, 1]),
        Case(
            lambda acme, bad: acme.messages.list({"conversation_id": KNOWN}, Pagination(sort_by=bad)),
            "sort_by",
            ["created_at", "content", 5],
        ),
        Case(
            lambda acme, bad: acme.conversations.page({}, None, bad),
            "cursor",
            ["", "x", "x" * 20_000, "\ud800", "\0", 5, True, b"x", "W10", "bnVsbA", "ZGVlcA==", *OPERATORS],
        ),
        Case(lambda acme, bad: acme.messages.search("x", cursor=bad), "cursor", ["", "x", 5, *OPERATORS]),
    ],
    "choices": [
        Case(
            lambda acme, bad: acme.conversations.update_conversation_status(KNOWN, bad),
            "status",
            [*NO_CHOICE, object()],
        ),
        Case(
            lambda acme, bad: acme.conversations.update_conversation_status(KNOWN, "completed", bad),
            "completed_at",
            NO_MOMENT,
        ),
        Case(lambda acme, bad: acme.messages.update_delivery_status(KNOWN, 1, bad), "status", [*NO_CHOICE, object()]),
    ],
    "entities": [
        Case(lambda acme, bad: acme.conversations.create(bad), "entity", [None, {}, "x", 5, user()]),
        Case(lambda acme, bad: acme.conversations.create_conversation(bad), "entity", [None, {}, user()]),
        Case(lambda acme, bad: acme.conversations.update(bad), "entity", [None, {}, "x", user()]),
        Case(lambda acme, bad: acme.conversations.update_with(KNOWN, lambda _: bad), "entity", [None, {}, user()]),
        Case(
            lambda acme, bad: acme.conversations.update_with(
                KNOWN, lambda found: found.model_copy(update={"conversation_id": bad})
            ),
            "entity",
            ["other"],
        ),
        Case(lambda acme, bad: acme.messages.update(bad), "entity", [None, {}, ConversationDocument.start("u")]),
        Case(lambda acme, bad: acme.messages.update(bad), "message_id", [user()]),
        Case(lambda acme, bad: acme.messages.create(bad), "conversation_id", [None, {}, user()]),
        Case(
            lambda acme, bad: acme.messages.append(KNOWN, bad),
            "message",
            [None, {}, "x", 5, ConversationDocument.start("u")],
        ),
        Case(lambda acme, bad: acme.messages.append_many(KNOWN, bad), "messages", [None, {}, "xy", 5, [], iter([])]),
        Case(lambda acme, bad: acme.messages.append_many(KNOWN, bad), "message", [[user(), None], [user(), {}], b"x"]),
        Case(lambda acme, bad: acme.messages.append_many(KNOWN, bad), "messages", [[user()] * 10_001]),
        Case(
            lambda acme, bad: acme.messages.append_many(KNOWN, bad),
            "idempotency_key",
            [[user(), user().evolve(idempotency_key="k")]],
        ),
        Case(
            lambda acme, bad: acme.messages.append(KNOWN, bad),
            "conversation_id",
            [user().evolve(conversation_id="other")],
        ),
        Case(lambda acme, bad: acme.messages.append(KNOWN, bad), "sequence", [user().evolve(sequence=1)]),
        Case(
            lambda acme, bad: acme.messages.append_many(KNOWN, bad), "sequence", [[user(), user().evolve(sequence=7)]]
        ),
    ],
    "edits": [
        Case(lambda acme, bad: acme.messages.edit(KNOWN, 1, content=bad), "content", [None, "\ud800", *NO_TEXT]),
        Case(lambda acme, bad: acme.messages.edit(KNOWN, 1, payload=bad), "payload", ["x", [], 5, {1: 2}, {"a": b"x"}]),
        Case(lambda acme, bad: acme.messages.edit(KNOWN, 1, usage=bad), "usage", ["x", 5]),
        Case(lambda acme, bad: acme.messages.edit(KNOWN, 1, role=bad), "role", ["system"]),
        Case(lambda acme, bad: acme.messages.edit(KNOWN, 1, version=bad), "version", [5]),
        Case(lambda acme, _: acme.messages.edit(KNOWN, 1), "changes", [None]),
    ],
}
LARGE = {"key": "x" * 17_000_000}
SLIGHTLY_TOO_LARGE = "x" * (16 * 1024 * 1024)  # with the other fields
CASES["sizes"] = [
    Case(
        lambda acme, bad: acme.conversations.create(ConversationDocument.start("u", metadata=bad)), "document", [LARGE]
    ),
    Case(
        lambda acme, bad: acme.conversations.update_with(KNOWN, lambda found: found.evolve(metadata=bad)),
        "document",
        [LARGE],
    ),
    Case(lambda acme, bad: acme.messages.append(KNOWN, MessageDocument.user(bad)), "content", [LARGE["key"]]),
    Case(lambda acme, bad: acme.messages.append(KNOWN, user().evolve(payload=bad)), "document", [LARGE]),
    Case(lambda acme, bad: acme.messages.append(KNOWN, MessageDocument.user(bad)), "document", [SLIGHTLY_TOO_LARGE]),
    Case(
        lambda acme, bad: acme.messages.append(KNOWN, MessageDocument.user(bad), idempotency_key="k"),
        "document",
        [SLIGHTLY_TOO_LARGE],
    ),
    Case(
        lambda acme, bad: acme.messages.append_many(KNOWN, [user(), user(), MessageDocument.user(bad)]),
        "messages",
        [SLIGHTLY_TOO_LARGE],
    ),
    Case(lambda acme, bad: acme.messages.append_many(KNOWN, [user(), user().evolve(payload=bad)]), "messages", [LARGE]),
    Case(
        lambda acme, bad: acme.messages.append_many(KNOWN, [MessageDocument.user(bad)] * 3),
        "messages",
        ["x" * 14_000_000],
    ),
    Case(lambda acme, bad: acme.messages.edit(KNOWN, 1, payload=bad), "document", [LARGE]),
    Case(
        lambda acme, bad: acme.messages.edit(KNOWN, 1, content=bad, payload={"key": bad}), "document", ["x" * 9_000_000]
    ),
]


async def _refused(acme: TenantStore, case: Case, value: Any) -> str | None:
    """Return what is wrong with the way a value is refused, if anything."""
    shown = f"{case.field} = {ascii(value)[:60]}"
    try:
        outcome = case.call(acme, value)
        await outcome if isinstance(outcome, Awaitable) else outcome
    except ValidationError as error:
        wrong = error.field != case.field or not str(error).startswith(f"{case.field}")
        return f"{shown}: names {error.field}: {error}" if wrong else None
    except BaseException as error:  # noqa: BLE001 - whatever else comes is the finding
        return f"{shown}: {type(error).__name__}: {str(error)[:200]}"
    return f"{shown}: accepted"


@pytest.mark.parametrize("group", CASES)
async def test_bad_input_is_refused_by_the_name_of_its_field_and_changes_nothing(
    store: ConvoStore, acme: TenantStore, group: str
) -> None:
    await acme.conversations.create(ConversationDocument.start("u", conversation_id=KNOWN))
    for text in ("one", "two", "three"):
        await acme.messages.append(KNOWN, MessageDocument.user(text))
    before = await dump(store)
    findings = [await _refused(acme, case, value) for case in CASES[group] for value in case.values]
    assert [finding for finding in findings if finding] == []
    assert await dump(store) == before


async def test_a_tenant_that_cannot_be_one_is_refused(store: ConvoStore) -> None:
    for bad in NO_IDENTIFIER:
        with pytest.raises(ValidationError) as refusal:
            store.tenant(bad)
        assert refusal.value.field == "tenant_id"


async def test_a_document_of_another_tenant_is_refused(
    store: ConvoStore, acme: TenantStore, rival: TenantStore
) -> None:
    theirs = await rival.conversations.create(ConversationDocument.start("u", conversation_id=KNOWN))
    message = await rival.messages.append(KNOWN, user())
    await acme.conversations.create(ConversationDocument.start("u", conversation_id=KNOWN))
    before = await dump(store)
    for call in (
        lambda: acme.conversations.create(theirs),
        lambda: acme.conversations.update(theirs),
        lambda: acme.messages.update(message),
        lambda: acme.messages.append(KNOWN, message.model_copy(update={"sequence": 0})),
        lambda: acme.messages.append_many(KNOWN, [user(), message.model_copy(update={"sequence": 0})]),
    ):
        with pytest.raises(TenantMismatchError) as refusal:
            await call()
        assert (refusal.value.field, refusal.value.expected_tenant) == ("tenant_id", "acme")
    assert await dump(store) == before


async def test_a_value_changed_behind_the_back_of_its_document_is_refused_before_anything_is_sent(
    store: ConvoStore, acme: TenantStore
) -> None:
    await acme.conversations.create(ConversationDocument.start("u", conversation_id=KNOWN))
    before = await dump(store)
    for bad in ("\ud800", 2**70, object()):
        nested: dict[str, Any] = {"inner": {}}
        message = MessageDocument.user("text", payload=nested)
        nested["inner"]["key"] = bad
        for call in (
            acme.messages.append(KNOWN, message),
            acme.messages.append_many(KNOWN, [user(), message]),
        ):
            with pytest.raises(ValidationError) as refusal:
                await call
            assert refusal.value.field == "document"
    assert await dump(store) == before


DEEP: dict[str, Any] = {}
for _ in range(150):
    DEEP = {"a": DEEP}

CONVERSATION_FIELDS: dict[str, list[Any]] = {
    "conversation_id": NO_IDENTIFIER,
    "user_id": NO_IDENTIFIER,
    "channel": NO_CHOICE,
    "status": NO_CHOICE,
    "title": ["x" * 501, "\ud800", *NO_TEXT],
    "tags": [None, "tag", 5, [""], ["x" * 101], [5], [None], ["\ud800"], ["x"] * 101],
    "metadata": [None, "x", [], 5, {1: 2}, {"a": object()}, {"a": 2**63}, {"a\0": 1}, {"a": "\ud800"}, DEEP],
    "assignee": without(NO_IDENTIFIER, None),
    "created_at": [None, *NO_MOMENT],
    "completed_at": NO_MOMENT,
    "message_count": [None, True, -1, "1", 1.5, 2**63],
    "version": [None, True, 0, -1, "1", 1.5, 2**63],
    "tenant_id": without(NO_IDENTIFIER, ""),
    "nope": [1],
    "last_message": ["x", 5, {"sequence": 1}],
}
MESSAGE_FIELDS: dict[str, list[Any]] = {
    "role": NO_CHOICE,
    "content": [None, "\ud800", *NO_TEXT],
    "payload": ["x", [], 5, {1: 2}, {"a": object()}, {"a": [2**63]}, {"a\0": 1}, {"a": ["\ud800"]}, DEEP],
    "usage": ["x", 5, {"input_tokens": -1}, {"input_tokens": True}, {"nope": 1}],
    "external_id": without(NO_IDENTIFIER, None),
    "idempotency_key": without(NO_IDENTIFIER, None),
    "message_id": NO_IDENTIFIER,
    "delivery_status": without(NO_CHOICE, None),
    "sequence": [None, True, -1, "1", 1.5, 10**10],
    "created_at": [None, *NO_MOMENT],
    "version": [None, True, 0, 2**63],
    "nope": [1],
}


@pytest.mark.parametrize(
    ("valid", "fields"),
    [(ConversationDocument.start("u"), CONVERSATION_FIELDS), (MessageDocument.user("text"), MESSAGE_FIELDS)],
    ids=["conversation", "message"],
)
def test_a_document_with_a_bad_field_cannot_be_made_and_the_error_names_it_without_quoting_it(
    valid: ConversationDocument | MessageDocument, fields: dict[str, list[Any]]
) -> None:
    for name, values in fields.items():
        for value in values:
            for make in (valid.evolve, lambda **changes: type(valid)(**{**dict(valid), **changes})):
                with pytest.raises(ValidationError) as refusal:
                    make(**{name: value})
                assert refusal.value.field == name, (name, value)
                assert not isinstance(value, str) or len(value) < 9 or value not in str(refusal.value)


def test_a_moment_that_has_no_place_in_utc_is_refused() -> None:
    for moment in (
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))),
        datetime.min.replace(tzinfo=timezone(timedelta(hours=1))),
    ):
        with pytest.raises(ValidationError) as refusal:
            ConversationDocument.start("u", created_at=moment)
        assert refusal.value.field == "created_at"
