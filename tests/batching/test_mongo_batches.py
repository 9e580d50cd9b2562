"""Calls to MongoDB that travel together: each caller has his own answer, whoever travels with him."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from convostore import (
    ConcurrencyError,
    ConversationDocument,
    ConvoStore,
    DuplicateEntityError,
    EntityNotFoundError,
    IdempotencyConflictError,
    MessageDocument,
    MongoSettings,
    Outcome,
    TenantStore,
    ValidationError,
)
from convostore.database.mongodb import open_mongodb
from convostore.gateways.operation import OperationDetails

TALK = "talk"


class Counted:
    """A store that tells what it sends.

    Attributes:
        store: the store.
        sent: what was sent since the last look.
    """

    def __init__(self, settings: MongoSettings) -> None:
        self.sent: list[OperationDetails] = []
        self.store = ConvoStore(open_mongodb(settings, observers=(self.sent.append,)))

    def look(self, *names: str) -> list[OperationDetails]:
        """Return the operations of these names sent since the last look."""
        found = [details for details in self.sent if details.operation in names]
        self.sent.clear()
        return found


@pytest.fixture
async def counted(store: ConvoStore, convostore_settings: MongoSettings) -> AsyncIterator[Counted]:
    opened = Counted(convostore_settings)
    yield opened
    await opened.store.aclose()


@pytest.fixture
async def acme(counted: Counted) -> TenantStore:
    return counted.store.tenant("acme")


async def _start(acme: TenantStore, conversation_id: str, **fields: Any) -> ConversationDocument:
    return await acme.conversations.create(ConversationDocument.start("u", conversation_id=conversation_id, **fields))


async def _all(calls: list[Any]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def _text(text: str, **fields: Any) -> MessageDocument:
    return MessageDocument.user(text, **fields)


def _malformed() -> ConversationDocument:
    nested: dict[str, Any] = {"inner": {}}
    draft = ConversationDocument.start("u", conversation_id="malformed", metadata=nested)
    draft.metadata["inner"]["key"] = object()
    return draft


async def test_in_a_batch_of_new_documents_each_gets_his_own_error(counted: Counted, acme: TenantStore) -> None:
    await _start(acme, "old")
    counted.look()
    good = [ConversationDocument.start("u", conversation_id=f"c-{n}") for n in range(60)]
    bad = [
        ConversationDocument.start("u", conversation_id="old"),
        ConversationDocument.start("u", conversation_id="large", metadata={"x": "y" * (16 * 1024 * 1024)}),
        _malformed(),
        good[7],
    ]
    *created, old, large, malformed, twice = await _all([acme.conversations.create(each) for each in [*good, *bad]])
    if isinstance(created[7], DuplicateEntityError):  # which of the two comes first is not promised
        created[7], twice = twice, created[7]
    assert created == [each.stamped("acme") for each in good]
    assert (type(old), old.entity_id) == (DuplicateEntityError, "old")
    assert (type(large), large.field) == (ValidationError, "document")
    assert (type(malformed), malformed.field) == (ValidationError, "metadata.inner.key")
    assert (type(twice), twice.entity_id) == (DuplicateEntityError, "c-7")
    assert Counter(details.calls > 1 for details in counted.look("insert_many", "insert_one"))[True] >= 1
    assert await acme.conversations.count() == 61


async def test_in_a_batch_of_updates_each_gets_his_own_verdict(counted: Counted, acme: TenantStore) -> None:
    talks = [await _start(acme, f"c-{n}") for n in range(60)]
    await acme.conversations.update(talks[3].evolve(title="somebody else's"))
    await acme.conversations.delete("c-5")
    missing = ConversationDocument.start("u", conversation_id="never", tenant_id="acme")
    counted.look()
    answers = await _all([acme.conversations.update(each.evolve(title=each.id)) for each in [*talks, missing]])
    batches = counted.look("bulk_write")
    assert sum(details.calls for details in batches) >= 50
    assert len(batches) <= 3
    for talk, answer in zip([*talks, missing], answers, strict=True):
        if talk.id == "c-3":
            assert type(answer) is ConcurrencyError
            assert (answer.expected_version, answer.actual_version) == (1, 2)
        elif talk.id in ("c-5", "never"):
            assert (type(answer), answer.entity_id) == (EntityNotFoundError, talk.id)
        else:
            assert answer.version == 2
    listed = [each async for each in acme.conversations.iterate_all()]
    assert {each.id: each.title for each in listed} == {
        each.id: "somebody else's" if each.id == "c-3" else each.id for each in talks if each.id != "c-5"
    }
    stored = await counted.store.mongodb.database.conversations.count_documents({})
    assert stored == 60, "what matched nothing was not created"


async def test_of_many_updates_of_one_document_at_one_version_one_succeeds(acme: TenantStore) -> None:
    talk = await _start(acme, TALK)
    answers = await _all([acme.conversations.update(talk.evolve(title=f"{n}")) for n in range(40)])
    assert Counter(map(type, answers)) == {ConversationDocument: 1, ConcurrencyError: 39}
    (winner,) = [answer for answer in answers if isinstance(answer, ConversationDocument)]
    assert await acme.conversations.get_by_id(TALK) == winner


async def test_appends_to_one_conversation_keep_their_order_and_travel_together(
    counted: Counted, acme: TenantStore
) -> None:
    await _start(acme, TALK)
    await acme.messages.append(TALK, _text("first"))
    counted.look()
    calls: list[Any] = [acme.messages.append(TALK, _text(f"{n}")) for n in range(40)]
    calls.append(acme.messages.append_many(TALK, [_text("a"), _text("b"), _text("c")]))
    calls += [acme.messages.append(TALK, _text(f"{n}")) for n in range(41, 100)]
    await asyncio.gather(*calls)
    assert len(counted.look("insert_one", "insert_many")) <= 4
    expected = ["first", *(f"{n}" for n in range(40)), "a", "b", "c", *(f"{n}" for n in range(41, 100))]
    log = [message async for message in acme.messages.iterate(TALK)]
    assert [message.content for message in log] == expected
    assert [message.sequence for message in log] == list(range(1, 104))


async def test_in_a_batch_of_appends_each_gets_his_own_answer(acme: TenantStore) -> None:
    await _start(acme, TALK)
    await acme.messages.append(TALK, _text("old"), idempotency_key="old")
    messages = [_text(f"{n}") for n in range(30)]
    messages[10] = _text("old", idempotency_key="old")
    messages[15] = _text("other", idempotency_key="old")
    messages[20] = _text("x" * (16 * 1024 * 1024))
    messages[21] = _text("new", idempotency_key="new")
    messages[25] = _text("new", idempotency_key="new")
    answers = await _all([acme.messages.append(TALK, message) for message in messages])
    assert (answers[10].sequence, answers[10].replayed) == (1, True)
    assert type(answers[15]) is IdempotencyConflictError
    assert (type(answers[20]), answers[20].field) == (ValidationError, "document")
    assert answers[21].sequence == answers[25].sequence
    assert {answers[21].replayed, answers[25].replayed} == {True, False}
    others = [answer for place, answer in enumerate(answers) if place not in (10, 15, 20, 21, 25)]
    log = [(message.sequence, message.content) async for message in acme.messages.iterate(TALK)]
    assert [sequence for sequence, _ in log] == list(range(1, len(others) + 3))
    assert {(answer.sequence, answer.content) for answer in others} < set(log)


async def test_appends_to_many_conversations_travel_together(counted: Counted, acme: TenantStore) -> None:
    await asyncio.gather(*(_start(acme, f"c-{n}") for n in range(50)))
    await asyncio.gather(*(acme.messages.append(f"c-{n}", _text("one")) for n in range(50)))
    counted.look()
    calls = [acme.messages.append(f"c-{n % 60}", _text(f"{n}")) for n in range(120)]
    answers = await _all(calls)
    assert len(counted.look("insert_one", "insert_many")) <= 8
    for n, answer in enumerate(answers):
        if n % 60 < 50:
            assert (answer.conversation_id, answer.sequence) == (f"c-{n % 60}", 2 + n // 60)
        else:
            assert (type(answer), answer.entity_id) == (EntityNotFoundError, f"c-{n % 60}")


async def test_readers_of_one_document_share_the_read_but_not_what_they_get(
    counted: Counted, acme: TenantStore
) -> None:
    await asyncio.gather(*(_start(acme, f"c-{n}", metadata={"inner": {"list": [n]}}) for n in range(20)))
    await counted.store.tenant("rival").conversations.create(ConversationDocument.start("u", conversation_id="theirs"))
    counted.look()
    ids = [f"c-{n % 20}" for n in range(200)] + ["theirs", "nobody's"] * 10
    found = await asyncio.gather(*(acme.conversations.get_by_id(each) for each in ids))
    assert len(counted.look("find", "find_one")) <= 4
    assert [each and each.id for each in found] == [each if each.startswith("c-") else None for each in ids]
    for each in found[:200]:
        assert each is not None
        each.metadata["inner"]["list"].append("mine")
    assert all(len(each.metadata["inner"]["list"]) == 2 for each in found[:200] if each)


async def test_a_caller_reads_what_he_has_written_however_many_others_read(acme: TenantStore) -> None:
    await _start(acme, TALK)

    async def noise() -> None:
        while True:
            await acme.conversations.get_by_id(TALK)

    async def write_and_read(n: int) -> None:
        await _start(acme, f"c-{n}")
        for count in range(5):
            title = f"{n}-{count}"
            await acme.conversations.update_with(f"c-{n}", lambda talk, title=title: talk.evolve(title=title))
            found = await acme.conversations.get_by_id(f"c-{n}")
            assert found is not None
            assert found.title == title
            assert await acme.conversations.exists(f"c-{n}")

    others = [asyncio.create_task(noise()) for _ in range(30)]
    try:
        await asyncio.gather(*(write_and_read(n) for n in range(20)))
    finally:
        for task in others:
            task.cancel()
        await asyncio.wait(others)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5, 8, 13])
async def test_a_cancelled_caller_changes_nothing_for_those_who_travel_with_him(
    counted: Counted, acme: TenantStore, steps: int
) -> None:
    talks = [await _start(acme, f"c-{n}") for n in range(30)]
    kinds = [
        [acme.messages.append(TALK, _text(f"{n}")) for n in range(30)],
        [_start(acme, f"new-{n}") for n in range(30)],
        [acme.conversations.update(talk.evolve(title="x")) for talk in talks],
        [acme.conversations.get_by_id(talk.id) for talk in talks],
    ]
    await _start(acme, TALK)
    for calls in kinds:
        tasks = [asyncio.ensure_future(call) for call in calls]
        for _ in range(steps):
            await asyncio.sleep(0)
        for place in (0, 7, 20):
            tasks[place].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        failed = [place for place, answer in enumerate(answers) if isinstance(answer, BaseException)]
        assert set(failed) <= {0, 7, 20}
        assert all(isinstance(answers[place], asyncio.CancelledError) for place in failed)
    log = [message async for message in acme.messages.iterate(TALK)]
    assert [message.sequence for message in log] == list(range(1, len(log) + 1))
    contents = [message.content for message in log]
    assert len(set(contents)) == len(contents)
    assert {f"{n}" for n in range(30)} - set(contents) <= {"0", "7", "20"}


async def test_what_is_in_a_unit_of_work_travels_by_itself(counted: Counted, acme: TenantStore) -> None:
    mine = await _start(acme, "mine")

    async def noise(n: int) -> None:
        await _start(acme, f"c-{n}")
        while True:
            await acme.conversations.update_with(f"c-{n}", lambda talk: talk.evolve(title="outside"))
            await acme.conversations.get_by_id("mine")
            await acme.conversations.exists("mine")

    async def unit(n: int) -> None:
        async with counted.store.transaction():
            await acme.conversations.update(mine.evolve(title="inside"))
            await _start(acme, f"new-{n}")
            assert (await acme.conversations.get_by_id("mine")).title == "inside"  # type: ignore[union-attr]
            assert await acme.conversations.exists(f"new-{n}")
            raise LookupError

    others = [asyncio.create_task(noise(n)) for n in range(30)]
    try:
        for n in range(10):
            with pytest.raises(LookupError):
                await unit(n)
            assert await acme.conversations.get_by_id("mine") == mine
            assert not await acme.conversations.exists(f"new-{n}")
    finally:
        for task in others:
            task.cancel()
        await asyncio.wait(others)


async def test_too_many_who_wait_are_told_so_at_once(counted: Counted, acme: TenantStore) -> None:
    await _start(acme, TALK)
    answers = await _all([acme.conversations.get_by_id(TALK) for _ in range(10_100)])
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert 0 < len(refused) <= 100
    assert all("too many" in str(error) and error.outcome is Outcome.NOT_APPLIED for error in refused)  # type: ignore[attr-defined]
    assert (await acme.conversations.get_by_id(TALK)) is not None


async def test_a_document_held_by_an_open_transaction_holds_up_only_those_who_travel_with_it(
    counted: Counted, store: ConvoStore, acme: TenantStore
) -> None:
    talks = await asyncio.gather(*(_start(acme, f"c-{n}") for n in range(40)))
    mine = store.tenant("acme")
    async with store.transaction():
        held = await mine.conversations.update(talks[0].evolve(title="held"))
        waiting = [asyncio.create_task(acme.conversations.update(talks[0].evolve(title="late"))) for _ in range(3)]
        for _ in range(3):  # each round may send one more flight into what is held
            await asyncio.sleep(0)
        changed = await asyncio.gather(*(acme.conversations.update(talk.evolve(title="x")) for talk in talks[5:]))
        assert len(changed) == 35
        assert not any(task.done() for task in waiting)
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(answer) for answer in answers} == {ConcurrencyError}
    assert (await acme.conversations.get_by_id("c-0")) == held
