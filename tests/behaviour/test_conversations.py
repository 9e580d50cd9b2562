"""Conversations: guarded edits, pages, filters, activity, deletion."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from observed import dump, listening

from convostore import (
    ChannelType,
    ConcurrencyError,
    ConversationDocument,
    ConversationRepository,
    ConversationStatus,
    ConvoStore,
    DuplicateEntityError,
    EntityNotFoundError,
    MessageDocument,
    MongoSettings,
    Pagination,
    RepositoryError,
    TenantMismatchError,
    TenantStore,
    ValidationError,
    get_conversation_repository,
    get_message_repository,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def conversation(name: str, **fields: Any) -> ConversationDocument:
    return ConversationDocument.start(fields.pop("user_id", "user"), conversation_id=name, **fields)


async def _filled(acme: TenantStore, count: int = 7) -> list[str]:
    names = [f"conversation-{index}" for index in range(count)]
    for index, name in enumerate(names):
        await acme.conversations.create(
            conversation(
                name,
                user_id=f"user-{index % 2}",
                created_at=START + timedelta(hours=index),
                tags=["odd"] if index % 2 else ["even", "number"],
                title=f"Number {index}",
                channel=ChannelType.SMS if index % 3 else ChannelType.WEB,
                assignee="agent" if index == 2 else None,
            )
        )
    return names


async def test_a_created_conversation_is_stored_under_the_tenant_and_returned_so(acme: TenantStore) -> None:
    created = await acme.conversations.create(conversation("c"))
    assert created.tenant_id == "acme"
    for read in (acme.conversations.get_by_id, acme.conversations.get_by_conversation_id):
        assert await read("c") == created
    assert await acme.conversations.exists("c")
    assert await acme.conversations.get_by_id("other") is None
    assert not await acme.conversations.exists("other")


async def test_an_id_is_used_once(store: ConvoStore, acme: TenantStore) -> None:
    await acme.conversations.create(conversation("c", title="first"))
    before = await dump(store)
    for create in (acme.conversations.create, acme.conversations.create_conversation):
        with pytest.raises(DuplicateEntityError) as refusal:
            await create(conversation("c", title="second"))
        assert (refusal.value.entity_type, refusal.value.entity_id) == ("Conversation", "c")
    assert await dump(store) == before


async def test_a_stale_editor_is_refused_and_told_both_versions(store: ConvoStore, acme: TenantStore) -> None:
    first = await acme.conversations.create(conversation("c"))
    second = await acme.conversations.update(first.evolve(title="mine", status="waiting", tags=["t"], assignee="a"))
    assert second.version == 2
    before = await dump(store)
    with pytest.raises(ConcurrencyError) as refusal:
        await acme.conversations.update(first.evolve(title="theirs"))
    assert (refusal.value.expected_version, refusal.value.actual_version) == (1, 2)
    with pytest.raises(ConcurrencyError):
        await acme.conversations.delete("c", version=1)
    assert await dump(store) == before
    assert await acme.conversations.delete("c", version=2)


async def test_an_edit_can_take_a_value_away(acme: TenantStore) -> None:
    created = await acme.conversations.create(
        conversation("c", title="t", tags=["x"], metadata={"$a": 1}, assignee="a", completed_at=START)
    )
    await acme.conversations.update(created.evolve(title=None, tags=(), metadata={}, assignee=None, completed_at=None))
    found = await acme.conversations.get_by_id("c")
    assert found is not None
    assert (found.title, found.tags, found.metadata, found.assignee, found.completed_at) == (None, (), {}, None, None)


async def test_an_edit_never_touches_activity_nor_what_identifies_a_conversation(acme: TenantStore) -> None:
    created = await acme.conversations.create(conversation("c"))
    await acme.messages.append("c", MessageDocument.user("hello"))
    await acme.conversations.update(
        created.model_copy(update={"title": "t", "message_count": 99, "last_activity_at": START, "user_id": "other"})
    )
    found = await acme.conversations.get_by_id("c")
    assert found is not None
    assert (found.message_count, found.user_id, found.channel) == (1, "user", ChannelType.WEB)
    assert found.last_activity_at > START
    assert found.last_message is not None
    assert found.last_message.preview == "hello"


async def test_what_was_deleted_stays_deleted(store: ConvoStore, acme: TenantStore) -> None:
    created = await acme.conversations.create(conversation("c", title="secret"))
    await acme.messages.append("c", MessageDocument.user("secret", external_id="e", idempotency_key="k"))
    assert await acme.conversations.delete("c")
    before = await dump(store)
    assert await acme.conversations.get_by_id("c") is None
    assert not await acme.conversations.exists("c")
    assert await acme.conversations.count() == 0
    assert not await acme.conversations.update_conversation_status("c", ConversationStatus.ACTIVE)
    for refused in (
        lambda: acme.conversations.update(created.evolve(title="back")),
        lambda: acme.conversations.update_with("c", lambda found: found),
        lambda: acme.messages.append("c", MessageDocument.user("late")),
        lambda: acme.messages.append("c", MessageDocument.user("secret"), idempotency_key="k"),
        lambda: acme.messages.append_many("c", [MessageDocument.user("late")] * 2),
        lambda: acme.messages.edit("c", 1, content="late"),
        lambda: acme.messages.update_delivery_status("c", 1, "read"),  # type: ignore[arg-type]
    ):
        with pytest.raises(EntityNotFoundError):
            await refused()
    with pytest.raises(DuplicateEntityError):
        await acme.conversations.create(conversation("c"))
    assert (await acme.messages.history("c", include_deleted=True)).items == []
    assert await acme.messages.get_by_external_id("e") is None
    assert await acme.messages.count({"conversation_id": "c"}) == 0
    assert (await acme.messages.list({"conversation_id": "c"})).total == 0
    assert (await acme.messages.search("secret")).items == []
    assert await acme.messages.window("c", max_messages=5) == []
    assert await dump(store) == before
    assert "secret" not in str(before)


async def test_deleting_twice_answers_false_and_finishes_what_a_crash_has_left(
    store: ConvoStore, acme: TenantStore
) -> None:
    await acme.conversations.create(conversation("c"))
    await acme.messages.append("c", MessageDocument.user("left behind"))
    await dump(store)
    tombstone = [{"$replaceWith": {"_id": "$_id", "version": 2, "deleted_at": "$$NOW", "purge_at": "$$NOW"}}]
    await store.mongodb.database["conversations"].update_one({}, tombstone)
    assert not await acme.conversations.delete("c")
    stored = await dump(store)
    assert [slot["kind"] for slot in stored["messages"]] == ["blank", "seal"]
    assert not await acme.conversations.delete("c")


async def test_deleting_what_never_was_leaves_nothing_behind(store: ConvoStore, acme: TenantStore) -> None:
    assert not await acme.conversations.delete("c")
    assert await dump(store) == {"conversations": [], "messages": []}
    await acme.conversations.create(conversation("c"))
    assert (await acme.messages.append("c", MessageDocument.user("welcome"))).sequence == 1


async def test_a_status_is_set_whatever_it_was(acme: TenantStore) -> None:
    await acme.conversations.create(conversation("c"))
    for status in (*ConversationStatus, ConversationStatus.ARCHIVED):
        assert await acme.conversations.update_conversation_status("c", status)
        found = await acme.conversations.get_by_id("c")
        assert found is not None
        assert found.status is status
    assert not await acme.conversations.update_conversation_status("other", ConversationStatus.ACTIVE)


async def test_the_first_completion_counts_unless_a_moment_is_given(acme: TenantStore) -> None:
    await acme.conversations.create(conversation("c"))
    completed = []
    for moment in (None, None, START):
        await acme.conversations.update_conversation_status("c", ConversationStatus.COMPLETED, moment)
        found = await acme.conversations.get_by_id("c")
        assert found is not None
        completed.append(found.completed_at)
    assert completed[0] is not None
    assert completed[0] == completed[1]
    assert completed[2] == START


async def test_a_status_makes_a_stale_editor_fail(acme: TenantStore) -> None:
    created = await acme.conversations.create(conversation("c"))
    await acme.conversations.update_conversation_status("c", ConversationStatus.ESCALATED)
    with pytest.raises(ConcurrencyError):
        await acme.conversations.update(created.evolve(title="stale"))


async def test_update_with_loses_nothing_under_contention(acme: TenantStore) -> None:
    await acme.conversations.create(conversation("c", metadata={"number": 0}))

    def raised(found: ConversationDocument) -> ConversationDocument:
        return found.evolve(metadata={"number": found.metadata["number"] + 1})

    answers = await asyncio.gather(*(acme.conversations.update_with("c", raised) for _ in range(32)))
    found = await acme.conversations.get_by_id("c")
    assert found is not None
    assert found.metadata == {"number": 32}
    assert sorted(answer.metadata["number"] for answer in answers) == list(range(1, 33))


FILTERS: dict[str, tuple[dict[str, Any] | None, list[int]]] = {
    "none": (None, [0, 1, 2, 3, 4, 5, 6]),
    "empty": ({}, [0, 1, 2, 3, 4, 5, 6]),
    "user": ({"user_id": "user-1"}, [1, 3, 5]),
    "conversation": ({"conversation_id": "conversation-3"}, [3]),
    "channel": ({"channel": "web"}, [0, 3, 6]),
    "status": ({"status": "active"}, [0, 1, 2, 3, 4, 5, 6]),
    "another status": ({"status": ConversationStatus.ABANDONED}, []),
    "assignee": ({"assignee": "agent"}, [2]),
    "no assignee": ({"assignee": None}, [0, 1, 3, 4, 5, 6]),
    "tag": ({"tags": "number"}, [0, 2, 4, 6]),
    "from": ({"start_date": START + timedelta(hours=5)}, [5, 6]),
    "to": ({"end_date": START + timedelta(hours=1)}, [0, 1]),
    "period": ({"start_date": START + timedelta(hours=2), "end_date": START + timedelta(hours=3)}, [2, 3]),
    "search": ({"search": "number 4"}, [4]),
    "search a tag": ({"search": "ODD"}, [1, 3, 5]),
    "search part of a word": ({"search": "num"}, []),
    "all together": ({"user_id": "user-0", "channel": "web", "search": "number"}, [0, 6]),
    "the tenant": ({"tenant_id": "acme"}, [0, 1, 2, 3, 4, 5, 6]),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_a_filter_finds_what_it_says_by_every_way_of_listing(acme: TenantStore, name: str) -> None:
    names = await _filled(acme)
    filters, expected = FILTERS[name]
    wanted = [names[index] for index in expected]
    order = Pagination(page_size=2, sort_order="asc")
    assert [item.conversation_id async for item in acme.conversations.iterate_all(filters, order)] == wanted
    assert await acme.conversations.count(filters) == len(wanted)
    pages = [
        await acme.conversations.list(filters, Pagination(page=page, page_size=3, sort_order="asc"))
        for page in range(1, 5)
    ]
    assert [item.conversation_id for page in pages for item in page.items] == wanted
    assert {page.total for page in pages} == {len(wanted)}
    assert [page.has_next for page in pages] == [len(wanted) > 3 * page for page in range(1, 5)]
    assert [page.has_previous for page in pages] == [False, True, True, True]
    by_tenant = await acme.conversations.get_conversations_by_tenant("acme", filters)
    assert [item.conversation_id for item in by_tenant.items] == wanted[::-1]


@pytest.mark.parametrize("text", ["-four", '"', 'a"b', "\\", "- -", "a -b", ".*", "$where", "(", "%"])
async def test_a_search_takes_nothing_for_a_command(acme: TenantStore, text: str) -> None:
    await acme.conversations.create(conversation("plain", title="a b four where"))
    await acme.conversations.create(conversation("same", title=f"x {text} y"))
    found = [item.conversation_id for item in (await acme.conversations.list({"search": text})).items]
    assert "plain" not in found or text in ('a"b', "a -b", "$where", "-four")
    literal = text.replace('"', " ").replace("\\", " ").split()
    if any(word.isalnum() for word in literal):
        assert "same" in found


async def test_counting_costs_nothing_where_the_page_is_the_last(
    acme: TenantStore, convostore_settings: MongoSettings
) -> None:
    await _filled(acme)
    async with listening(convostore_settings) as (other, commands):
        repository = other.tenant("acme").conversations
        for pagination, expected in (
            (Pagination(page_size=10), ["find"]),
            (Pagination(page=3, page_size=3), ["find"]),
            (Pagination(page_size=3), ["find", "aggregate"]),
            (Pagination(page=9, page_size=3), ["find", "aggregate"]),
        ):
            assert (await repository.list({}, pagination)).total == 7
            assert commands.names() == expected
        await other.tenant("acme").messages.list({"conversation_id": "conversation-1"})
        assert commands.names() == ["find"], "a whole conversation is never counted"


async def test_a_cursor_of_another_listing_is_refused(acme: TenantStore, rival: TenantStore) -> None:
    await _filled(acme)
    await _filled(rival)
    size = Pagination(page_size=2)
    cursor = (await acme.conversations.page({}, size)).next_cursor
    assert cursor is not None
    assert (await acme.conversations.page({}, size, cursor)).items
    assert (await acme.conversations.page({}, Pagination(page_size=5), cursor)).items, "the size may change"
    for refused in (
        lambda: rival.conversations.page({}, size, cursor),
        lambda: acme.conversations.page({"user_id": "user-1"}, size, cursor),
        lambda: acme.conversations.page({}, Pagination(sort_by="title"), cursor),
        lambda: acme.conversations.page({}, Pagination(sort_order="asc"), cursor),
        lambda: acme.messages.page({"conversation_id": "conversation-1"}, size, cursor),
        lambda: acme.messages.search("x", cursor=cursor),
    ):
        with pytest.raises(ValidationError) as refusal:
            await refused()
        assert refusal.value.field == "cursor"


async def test_the_longest_names_and_titles_still_make_a_cursor(store: ConvoStore) -> None:
    tenant = store.tenant("\U0001f600" * 256)
    for letter in "abc":
        await tenant.conversations.create(conversation("\U0001f600" * 255 + letter, title="\x01" * 499 + letter))
    for field in ("title", "created_at"):
        pages = [item async for item in tenant.conversations.iterate_all({}, Pagination(page_size=1, sort_by=field))]
        assert len(pages) == 3


async def test_active_conversations_come_with_the_latest_message_first(acme: TenantStore) -> None:
    for name in ("first", "second", "third"):
        await acme.conversations.create(conversation(name, created_at=START))
    await acme.conversations.update_conversation_status("third", ConversationStatus.COMPLETED)
    for name in ("second", "first", "third"):
        await acme.messages.append(name, MessageDocument.user("x", created_at=datetime.now(UTC)))
        await asyncio.sleep(0.002)
    found = await acme.conversations.get_active_conversations("acme", "user")
    assert [item.conversation_id for item in found] == ["first", "second"]
    assert len(await acme.conversations.get_active_conversations("acme", "user", 1)) == 1
    assert await acme.conversations.get_active_conversations("acme", "somebody else") == []
    with pytest.raises(TenantMismatchError):
        await acme.conversations.get_active_conversations("rival", "user")


READS = {
    "get_by_id": lambda acme: acme.conversations.get_by_id("c"),
    "list": lambda acme: acme.conversations.list(),
    "page": lambda acme: acme.conversations.page(),
    "active": lambda acme: acme.conversations.get_active_conversations("acme", "user"),
    "by tenant": lambda acme: acme.conversations.get_conversations_by_tenant("acme"),
}


@pytest.mark.parametrize("name", READS)
async def test_a_process_reads_the_activity_of_its_own_appends_at_once(acme: TenantStore, name: str) -> None:
    await acme.conversations.create(conversation("c"))
    for number in range(1, 6):
        message = await acme.messages.append("c", MessageDocument.user(f"text {number}"))
        read: Any = await READS[name](acme)
        found = getattr(read, "items", read)
        seen = found[0] if isinstance(found, list) else found
        assert (seen.message_count, seen.last_message.preview) == (number, f"text {number}")
        assert seen.last_activity_at >= message.created_at


async def test_another_store_sees_the_activity_within_a_second(
    acme: TenantStore, convostore_settings: MongoSettings
) -> None:
    await acme.conversations.create(conversation("c"))
    async with ConvoStore.open(convostore_settings) as other:
        await acme.messages.append_many("c", [MessageDocument.user("x"), MessageDocument.assistant("y" * 500)])
        deadline = time.monotonic() + 1
        while True:
            found = await other.tenant("acme").conversations.get_by_id("c")
            assert found is not None
            if found.message_count == 2 or time.monotonic() > deadline:
                break
        assert found.message_count == 2
        assert found.last_message is not None
        assert (found.last_message.sequence, found.last_message.preview) == (2, "y" * 120)


async def test_activity_follows_edits_and_deletions_of_the_last_message(acme: TenantStore) -> None:
    await acme.conversations.create(conversation("c"))
    messages = [await acme.messages.append("c", MessageDocument.user(text)) for text in ("one", "two")]

    async def preview() -> str:
        found = await acme.conversations.get_by_id("c")
        assert found is not None
        assert found.last_message is not None
        return found.last_message.preview

    assert await preview() == "two"
    await acme.messages.edit("c", 1, content="edited one")
    assert await preview() == "two"
    await acme.messages.edit("c", 2, content="edited two")
    assert await preview() == "edited two"
    await acme.messages.delete(messages[1].id)
    assert await preview() == ""


async def test_the_dependency_functions_answer_for_the_tenant_of_their_task(store: ConvoStore) -> None:
    async def request(tenant_id: str) -> tuple[str, str, list[str]]:
        with store.tenant(tenant_id).current():
            await asyncio.sleep(0)
            conversations = await get_conversation_repository()
            await conversations.create(conversation(f"of-{tenant_id}"))
            await asyncio.sleep(0)
            messages = await get_message_repository()
            await messages.append(f"of-{tenant_id}", MessageDocument.user("x"))
            listed = await (await get_conversation_repository()).list()
            return conversations.tenant_id, messages.tenant_id, [item.conversation_id for item in listed.items]

    tenants = [f"tenant-{number}" for number in range(10)]
    answers = await asyncio.gather(*map(request, tenants))
    assert answers == [(tenant, tenant, [f"of-{tenant}"]) for tenant in tenants]
    for dependency in (get_conversation_repository, get_message_repository):
        with pytest.raises(RepositoryError, match="no tenant is current"):
            await dependency()


async def test_a_tenant_is_current_until_its_block_is_left(acme: TenantStore, rival: TenantStore) -> None:
    with acme.current():
        with rival.current():
            assert (await get_conversation_repository()).tenant_id == "rival"
        assert (await get_conversation_repository()).tenant_id == "acme"
    with pytest.raises(RepositoryError, match="no tenant is current"):
        await get_conversation_repository()


async def test_a_repository_can_be_made_from_the_handle_of_a_tenant(acme: TenantStore) -> None:
    repository = ConversationRepository(acme.database)
    await repository.create(conversation("c"))
    assert await acme.conversations.exists("c")
