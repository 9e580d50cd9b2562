"""Messages: a dense log that only grows, pages and runs of it, edits, blanks, keys, delivery."""

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from observed import dump

from convostore import (
    ConcurrencyError,
    ConversationDocument,
    ConvoStore,
    DeliveryStatus,
    EntityNotFoundError,
    IdempotencyConflictError,
    MessageDocument,
    MessageRole,
    Pagination,
    TenantStore,
    TokenUsage,
    ValidationError,
)

CONVERSATION = "con:ver%sation"


@pytest.fixture
async def talk(acme: TenantStore) -> TenantStore:
    """The tenant, with an empty conversation."""
    await acme.conversations.create(ConversationDocument.start("user", conversation_id=CONVERSATION))
    return acme


def texts(count: int) -> list[MessageDocument]:
    return [MessageDocument.user(f"text {number}") for number in range(1, count + 1)]


async def _sequences(talk: TenantStore, **options: Any) -> list[int]:
    return [message.sequence for message in (await talk.messages.history(CONVERSATION, **options)).items]


async def test_an_appended_message_is_returned_as_it_is_stored(talk: TenantStore) -> None:
    draft = MessageDocument.assistant(
        "hello", payload={"a": [1]}, usage=TokenUsage(output_tokens=3), external_id="e", delivery_status="queued"
    )
    stored = await talk.messages.append(CONVERSATION, draft)
    assert stored == draft.evolve(tenant_id="acme", conversation_id=CONVERSATION, sequence=1)
    assert draft.sequence == 0
    for found in (
        await talk.messages.get(CONVERSATION, 1),
        await talk.messages.get_by_id(stored.id),
        await talk.messages.get_by_external_id("e"),
        (await talk.messages.history(CONVERSATION)).items[0],
    ):
        assert found == stored
    assert await talk.messages.exists(stored.id)


async def test_create_appends_to_the_conversation_that_the_message_names(talk: TenantStore) -> None:
    created = await talk.messages.create(MessageDocument.user("x", conversation_id=CONVERSATION))
    assert created.sequence == 1
    with pytest.raises(EntityNotFoundError):
        await talk.messages.create(MessageDocument.user("x", conversation_id="other"))


async def test_sequences_are_dense_from_any_number_of_tasks(talk: TenantStore) -> None:
    singles = [talk.messages.append(CONVERSATION, message) for message in texts(40)]
    batches = [talk.messages.append_many(CONVERSATION, texts(5)) for _ in range(8)]
    answers = await asyncio.gather(*singles, *batches)
    given = [[one.sequence for one in (answer if isinstance(answer, list) else [answer])] for answer in answers]
    assert sorted(itertools.chain(*given)) == list(range(1, 81))
    assert all(batch == list(range(batch[0], batch[0] + len(batch))) for batch in given)
    assert await _sequences(talk, limit=1000) == list(range(1, 81))


async def test_tasks_of_one_process_append_in_the_order_of_their_calls(talk: TenantStore) -> None:
    answers = await asyncio.gather(*(talk.messages.append(CONVERSATION, message) for message in texts(30)))
    assert [answer.sequence for answer in answers] == list(range(1, 31))


async def test_an_append_to_an_unknown_conversation_is_refused_and_stores_nothing(
    store: ConvoStore, acme: TenantStore
) -> None:
    for call in (
        lambda: acme.messages.append("unknown", MessageDocument.user("x")),
        lambda: acme.messages.append("unknown", MessageDocument.user("x"), idempotency_key="k"),
        lambda: acme.messages.append_many("unknown", texts(3)),
    ):
        with pytest.raises(EntityNotFoundError) as refusal:
            await call()
        assert (refusal.value.entity_type, refusal.value.entity_id) == ("Conversation", "unknown")
    assert await dump(store) == {"conversations": [], "messages": []}


async def test_the_largest_batch_is_taken_whole(talk: TenantStore) -> None:
    stored = await talk.messages.append_many(CONVERSATION, [MessageDocument.user("x")] * 10_000)
    assert (stored[0].sequence, stored[-1].sequence) == (1, 10_000)
    assert await talk.messages.count({"conversation_id": CONVERSATION}) == 10_000


RUNS: dict[str, tuple[dict[str, Any], list[int], bool, bool]] = {
    "the newest": ({"limit": 3}, [8, 9, 10], True, False),
    "all": ({}, list(range(1, 11)), False, False),
    "before": ({"before": 5, "limit": 3}, [2, 3, 4], True, True),
    "before the first": ({"before": 1}, [], False, True),
    "before what is not there yet": ({"before": 99, "limit": 2}, [9, 10], True, True),
    "after": ({"after": 5, "limit": 3}, [6, 7, 8], True, True),
    "after nothing": ({"after": 0, "limit": 2}, [1, 2], False, True),
    "after the last": ({"after": 10}, [], True, False),
    "after what is not there yet": ({"after": 99}, [], True, False),
    "between": ({"after": 3, "before": 6}, [4, 5], True, False),
    "between, the first": ({"after": 3, "before": 9, "limit": 2}, [4, 5], True, True),
    "between nothing": ({"after": 6, "before": 3}, [], True, False),
}


@pytest.mark.parametrize("name", RUNS)
async def test_a_run_of_messages_is_what_was_asked_for_the_oldest_first(talk: TenantStore, name: str) -> None:
    options, expected, earlier, later = RUNS[name]
    await talk.messages.append_many(CONVERSATION, texts(10))
    page = await talk.messages.history(CONVERSATION, **options)
    assert [message.sequence for message in page.items] == expected
    assert (page.has_earlier, page.has_later) == (earlier, later)


async def test_iterating_passes_every_message_once_from_where_it_is_asked(talk: TenantStore) -> None:
    await talk.messages.append_many(CONVERSATION, texts(450))
    assert [m.sequence async for m in talk.messages.iterate(CONVERSATION)] == list(range(1, 451))
    assert [m.sequence async for m in talk.messages.iterate(CONVERSATION, after=448)] == [449, 450]
    assert [m.sequence async for m in talk.messages.iterate(CONVERSATION, after=450)] == []
    assert [m.sequence async for m in talk.messages.iterate("unknown")] == []


async def test_pages_by_number_and_by_cursor_are_the_whole_conversation(talk: TenantStore) -> None:
    await talk.messages.append_many(CONVERSATION, texts(25))
    for order, expected in (("desc", list(range(25, 0, -1))), ("asc", list(range(1, 26)))):
        numbered = []
        for number in range(1, 5):
            page = await talk.messages.list(
                {"conversation_id": CONVERSATION},
                Pagination(page=number, page_size=10, sort_order=order),  # type: ignore[arg-type]
            )
            assert (page.total, page.has_next, page.has_previous) == (25, number < 3, number > 1)
            numbered += [message.sequence for message in page.items]
        assert numbered == expected
        sized = Pagination(page_size=10, sort_order=order)  # type: ignore[arg-type]
        everything = talk.messages.iterate_all({"conversation_id": CONVERSATION}, sized)
        assert [message.sequence async for message in everything] == expected


async def test_filters_find_the_messages_they_describe(talk: TenantStore) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number, role in enumerate([MessageRole.USER, MessageRole.ASSISTANT] * 3):
        await talk.messages.append(
            CONVERSATION,
            MessageDocument(
                role=role,
                content=f"Text {number}",
                external_id=f"e{number}",
                delivery_status="sent" if number < 2 else None,
                created_at=start + timedelta(hours=number),
            ),
        )
    for filters, expected in (
        ({"role": "assistant"}, [2, 4, 6]),
        ({"role": MessageRole.SYSTEM}, []),
        ({"delivery_status": "sent"}, [1, 2]),
        ({"external_id": "e3"}, [4]),
        ({"start_date": start + timedelta(hours=4)}, [5, 6]),
        ({"end_date": start, "role": "user"}, [1]),
        ({"search": "text 2"}, [3]),
        ({"tenant_id": "acme"}, [1, 2, 3, 4, 5, 6]),
    ):
        whole: dict[str, Any] = {"conversation_id": CONVERSATION, **filters}
        ascending = Pagination(sort_order="asc", page_size=2)
        assert [m.sequence async for m in talk.messages.iterate_all(whole, ascending)] == expected
        assert await talk.messages.count(whole) == len(expected)
        listed = await talk.messages.list(whole)
        assert ([m.sequence for m in listed.items], listed.total) == (expected[::-1], len(expected))


# keys


async def test_the_same_key_with_the_same_content_gives_back_the_first_message(
    store: ConvoStore, talk: TenantStore
) -> None:
    first = await talk.messages.append(CONVERSATION, MessageDocument.user("x"), idempotency_key="k")
    before = await dump(store)
    again = await talk.messages.append(CONVERSATION, MessageDocument.user("x", idempotency_key="k"))
    assert (first.replayed, again.replayed) == (False, True)
    assert again.model_copy(update={"replayed": False}) == first
    assert await dump(store) == before
    after_edit = await talk.messages.edit(CONVERSATION, 1, content="edited")
    late = await talk.messages.append(CONVERSATION, MessageDocument.user("x"), idempotency_key="k")
    assert (late.content, late.version, late.replayed) == ("edited", after_edit.version, True)
    await talk.messages.delete(first.id)
    gone = await talk.messages.append(CONVERSATION, MessageDocument.user("x"), idempotency_key="k")
    assert (gone.is_deleted, gone.content, gone.sequence) == (True, "", 1)
    assert await talk.messages.count({"conversation_id": CONVERSATION}) == 1


OTHER_CONTENT = {
    "content": MessageDocument.user("y"),
    "role": MessageDocument.assistant("x"),
    "payload": MessageDocument.user("x", payload={"a": 1}),
    "usage": MessageDocument.user("x", usage=TokenUsage(input_tokens=1)),
    "external_id": MessageDocument.user("x", external_id="e"),
}


@pytest.mark.parametrize("name", OTHER_CONTENT)
async def test_the_same_key_with_other_content_is_a_conflict(store: ConvoStore, talk: TenantStore, name: str) -> None:
    await talk.messages.append(CONVERSATION, MessageDocument.user("x"), idempotency_key="k")
    before = await dump(store)
    for messages in ([OTHER_CONTENT[name]], [MessageDocument.user("x")] * 2):
        with pytest.raises(IdempotencyConflictError) as refusal:
            await talk.messages.append_many(CONVERSATION, messages, idempotency_key="k")
        assert refusal.value.entity_id == "k"
    assert await dump(store) == before


async def test_a_keyed_batch_is_stored_once(talk: TenantStore) -> None:
    first = await talk.messages.append_many(CONVERSATION, texts(5), idempotency_key="k")
    await talk.messages.append(CONVERSATION, MessageDocument.user("between"))
    again = await talk.messages.append_many(CONVERSATION, texts(5), idempotency_key="k")
    assert [message.sequence for message in again] == [message.sequence for message in first] == [1, 2, 3, 4, 5]
    assert {message.replayed for message in again} == {True}
    assert await talk.messages.count({"conversation_id": CONVERSATION}) == 6


async def test_a_key_belongs_to_its_conversation(talk: TenantStore) -> None:
    await talk.conversations.create(ConversationDocument.start("user", conversation_id="other"))
    for conversation in (CONVERSATION, "other"):
        stored = await talk.messages.append(conversation, MessageDocument.user("x"), idempotency_key="k")
        assert not stored.replayed


async def test_tasks_with_the_same_key_store_one_message(talk: TenantStore) -> None:
    calls = [
        talk.messages.append(CONVERSATION, MessageDocument.user("x"), idempotency_key=f"k{number % 4}")
        for number in range(40)
    ]
    answers = await asyncio.gather(*calls)
    assert [answer.replayed for answer in answers].count(False) == 4
    assert {answer.sequence for answer in answers} == {1, 2, 3, 4}


async def test_equal_messages_without_a_key_are_different_messages(talk: TenantStore) -> None:
    message = MessageDocument.user("x")
    assert [(await talk.messages.append(CONVERSATION, message)).sequence for _ in range(2)] == [1, 2]


# changing


async def test_a_stale_edit_of_a_message_is_refused(store: ConvoStore, talk: TenantStore) -> None:
    first = await talk.messages.append(CONVERSATION, MessageDocument.user("x"))
    second = await talk.messages.update(first.evolve(content="y"))
    assert (second.version, second.edited_at is not None) == (2, True)
    before = await dump(store)
    for refused in (
        lambda: talk.messages.update(first.evolve(content="z")),
        lambda: talk.messages.edit(CONVERSATION, 1, expected_version=1, content="z"),
        lambda: talk.messages.edit(CONVERSATION, 1, expected_version=3, content="z"),
        lambda: talk.messages.delete(first.id, version=1),
    ):
        with pytest.raises(ConcurrencyError) as refusal:
            await refused()
        assert refusal.value.actual_version == 2
    assert await dump(store) == before
    assert (await talk.messages.edit(CONVERSATION, 1, expected_version=2, content="z")).content == "z"


async def test_an_edit_changes_what_it_names_and_nothing_else(talk: TenantStore) -> None:
    stored = await talk.messages.append(CONVERSATION, MessageDocument.user("x", payload={"$a": 1}, external_id="e"))
    edited = await talk.messages.edit(CONVERSATION, 1, payload=None)
    assert edited == stored.model_copy(update={"payload": None, "version": 2, "edited_at": edited.edited_at})
    assert await talk.messages.get(CONVERSATION, 1) == edited
    updated = await talk.messages.update(
        edited.model_copy(update={"content": "y", "role": "system", "delivery_status": "read"})
    )
    found = await talk.messages.get(CONVERSATION, 1)
    assert found is not None
    assert (found.content, found.role, found.delivery_status) == ("y", MessageRole.USER, None)
    assert found.version == updated.version == 3


async def test_edits_of_many_tasks_all_happen(talk: TenantStore) -> None:
    await talk.messages.append(CONVERSATION, MessageDocument.user("x"))
    await asyncio.gather(*(talk.messages.edit(CONVERSATION, 1, content=str(number)) for number in range(10)))
    found = await talk.messages.get(CONVERSATION, 1)
    assert found is not None
    assert found.version == 11


async def test_a_deleted_message_leaves_its_place_and_nothing_that_was_said(
    store: ConvoStore, talk: TenantStore
) -> None:
    stored = await talk.messages.append_many(CONVERSATION, texts(4))
    secret = await talk.messages.append(
        CONVERSATION, MessageDocument.user("secret", payload={"$secret": 1}, external_id="secret-1")
    )
    assert await talk.messages.delete(secret.id)
    assert await talk.messages.delete(stored[1].id, version=1)
    assert not await talk.messages.delete(secret.id)
    assert not await talk.messages.delete(MessageDocument.identify(CONVERSATION, 99))
    assert await _sequences(talk) == [1, 3, 4]
    assert await _sequences(talk, include_deleted=True) == [1, 2, 3, 4, 5]
    assert [message.sequence for message in (await talk.messages.list({"conversation_id": CONVERSATION})).items] == [
        4, 3, 1,
    ]  # fmt: skip
    for gone in (
        await talk.messages.get(CONVERSATION, 5),
        await talk.messages.get_by_id(secret.id),
        await talk.messages.get_by_external_id("secret-1"),
    ):
        assert gone is None
    assert "secret" not in str(await dump(store))
    for refused in (
        lambda: talk.messages.update(secret.evolve(content="back")),
        lambda: talk.messages.edit(CONVERSATION, 5, content="back"),
        lambda: talk.messages.update_delivery_status(CONVERSATION, 5, DeliveryStatus.READ),
    ):
        with pytest.raises(EntityNotFoundError):
            await refused()
    assert (await talk.messages.append(CONVERSATION, MessageDocument.user("next"))).sequence == 6


RANK = {DeliveryStatus.QUEUED: 0, DeliveryStatus.SENT: 1, DeliveryStatus.DELIVERED: 3, DeliveryStatus.READ: 4}


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5])
async def test_the_delivery_status_only_moves_forward_in_whatever_order_it_comes(
    talk: TenantStore, length: int
) -> None:
    orders = list(itertools.permutations(DeliveryStatus, length))
    await talk.messages.append_many(CONVERSATION, [MessageDocument.user("x")] * len(orders))

    async def deliver(sequence: int, order: tuple[DeliveryStatus, ...]) -> None:
        current: DeliveryStatus | None = None
        for status in order:
            moved = await talk.messages.update_delivery_status(CONVERSATION, sequence, status)
            assert moved == (current is None or current in status.predecessors)
            current = status if moved else current
        found = await talk.messages.get(CONVERSATION, sequence)
        assert found is not None
        assert found.delivery_status is current
        proofs = [status for status in order if status in RANK]
        if DeliveryStatus.DELIVERED in order or DeliveryStatus.READ in order:
            assert current is max(proofs, key=RANK.__getitem__)

    await asyncio.gather(*(deliver(sequence, order) for sequence, order in enumerate(orders, start=1)))


async def test_a_delivery_status_of_what_is_not_there_is_refused(talk: TenantStore) -> None:
    with pytest.raises(EntityNotFoundError) as refusal:
        await talk.messages.update_delivery_status(CONVERSATION, 1, DeliveryStatus.READ)
    assert refusal.value.entity_id == MessageDocument.identify(CONVERSATION, 1)


# searching


@pytest.mark.parametrize(
    "text", [".*", "a.b", "(", "[x", "a|b", "^", "$", "\\", '"quoted"', "-minus", "100%", "{$ne:1}", "a  b", "STRASSE"]
)
async def test_a_search_is_literal_in_any_case(talk: TenantStore, text: str) -> None:
    contents = ["plain words", "axb", f"before {text.lower()} after"]
    await talk.messages.append_many(CONVERSATION, [MessageDocument.user(content) for content in contents])
    expected = [3] if text != "a  b" else [3, 2]
    assert [found.sequence for found in (await talk.messages.search(text, CONVERSATION)).items] == expected
    filtered = await talk.messages.list({"conversation_id": CONVERSATION, "search": text})
    assert [found.sequence for found in filtered.items] == expected


async def test_a_search_goes_through_the_tenant_page_by_page(talk: TenantStore, rival: TenantStore) -> None:
    for tenant in (talk, rival):
        await tenant.conversations.create(ConversationDocument.start("user", conversation_id="other"))
        await tenant.messages.append_many("other", [MessageDocument.user("needle"), MessageDocument.user("hay")])
    await talk.messages.append_many(CONVERSATION, [MessageDocument.user(f"needle {n}") for n in range(5)])
    found: list[tuple[str, int]] = []
    cursor: str | None = None
    while True:
        page = await talk.messages.search("NEEDLE", limit=2, cursor=cursor)
        found += [(message.conversation_id, message.sequence) for message in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == [("other", 1), *((CONVERSATION, sequence) for sequence in range(5, 0, -1))]
    first = await talk.messages.search("needle", limit=2)
    with pytest.raises(ValidationError):
        await talk.messages.search("needle", CONVERSATION, cursor=first.next_cursor)


# batches cut short


async def _cut_short(store: ConvoStore, start: int, size: int, stored: int, **first: Any) -> None:
    """Leave behind what a process leaves that dies in the middle of storing a batch."""
    slots = [
        {
            "_id": f"acme:con%3Aver%25sation:{sequence:010d}",
            **MessageDocument.user(f"cut {sequence}").to_dict(),
            "tenant_id": "acme",
            "conversation_id": CONVERSATION,
            "sequence": sequence,
            "batch": {"id": "dead", "size": size, "index": sequence - start},
            **(first if sequence == start else {}),
        }
        for sequence in range(start, start + stored)
    ]
    await store.mongodb.database["messages"].insert_many(slots)


async def test_a_batch_cut_short_is_never_shown_and_blocks_nobody(store: ConvoStore, talk: TenantStore) -> None:
    await talk.messages.append(CONVERSATION, MessageDocument.user("one"))
    await _cut_short(store, 2, size=5, stored=3)
    store.mongodb.lanes.forget(talk.database.identity(CONVERSATION))
    assert await _sequences(talk) == [1]
    async with asyncio.timeout(1):
        assert (await talk.messages.append(CONVERSATION, MessageDocument.user("next"))).sequence == 5
    for options in ({}, {"after": 0}, {"after": 1, "limit": 1}, {"before": 6, "limit": 2}, {"include_deleted": True}):
        assert set(await _sequences(talk, **options)) <= {1, 5}
    assert await _sequences(talk, after=1, limit=1) == [5]
    assert await _sequences(talk, before=5, limit=1) == [1]
    assert [m.sequence async for m in talk.messages.iterate(CONVERSATION)] == [1, 5]
    assert [m.sequence for m in (await talk.messages.list({"conversation_id": CONVERSATION})).items] == [5, 1]
    assert [m.sequence for m in (await talk.messages.search("cut")).items] == []
    assert [m.sequence for m in await talk.messages.window(CONVERSATION, max_messages=5)] == [1, 5]
    assert await talk.messages.get(CONVERSATION, 3) is None
    assert await talk.messages.get_by_id(MessageDocument.identify(CONVERSATION, 3)) is None


async def test_a_keyed_batch_cut_short_can_be_appended_again(store: ConvoStore, talk: TenantStore) -> None:
    messages = texts(3)
    probe = await talk.messages.append_many(CONVERSATION, messages, idempotency_key="probe")
    stored = await store.mongodb.database["messages"].find_one({"sequence": probe[0].sequence})
    assert stored is not None
    await _cut_short(store, 4, size=3, stored=2, idempotency_key="k", idempotency_digest=stored["idempotency_digest"])
    store.mongodb.lanes.forget(talk.database.identity(CONVERSATION))
    again = await talk.messages.append_many(CONVERSATION, messages, idempotency_key="k")
    assert [message.replayed for message in again] == [False] * 3
    assert again[0].sequence > 5
    replayed = await talk.messages.append_many(CONVERSATION, messages, idempotency_key="k")
    assert [message.sequence for message in replayed] == [message.sequence for message in again]
    assert len(await _sequences(talk)) == 6
