"""Several processes at once: dense logs, one message for a key, one winner, no lost update."""

import asyncio
from typing import Any

import pytest
from log_checker import Entry, late_arrivals, violations
from several_processes import Answer, run_together

from convostore import (
    ConversationDocument,
    ConvoStore,
    EntityNotFoundError,
    MessageDocument,
    MongoSettings,
    TenantStore,
)

PROCESSES = 8
CONVERSATION = "conversation"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
async def conversation(acme: TenantStore) -> str:
    created = await acme.conversations.create(ConversationDocument.start(user_id="user", conversation_id=CONVERSATION))
    return created.conversation_id


async def _log(acme: TenantStore, conversation: str) -> list[Entry]:
    return [(message.sequence, message.content) async for message in acme.messages.iterate(conversation)]


def _entries(result: list[Any]) -> list[list[Entry]]:
    return [[(sequence, text) for sequence, text in call] for call in result]


async def _append_from_many(
    settings: MongoSettings, acme: TenantStore, parts: list[dict[str, Any]], tails: int = 1
) -> tuple[list[Entry], list[Answer]]:
    total = sum(part["count"] for part in parts)
    answers = await asyncio.to_thread(
        run_together,
        settings,
        *(("append", {"conversation": CONVERSATION, **part}) for part in parts),
        *[("tail", {"conversation": CONVERSATION, "total": total})] * tails,
    )
    log = await _log(acme, CONVERSATION)
    acknowledged = {part["name"]: _entries(answer.result) for part, answer in zip(parts, answers, strict=False)}
    assert violations(log, acknowledged) == []
    assert len(log) == total
    for reader in answers[len(parts) :]:
        assert late_arrivals([(sequence, text) for sequence, text in reader.result], log) == []
    return log, answers


async def test_eight_processes_append_to_one_log_without_a_gap_and_a_reader_misses_nothing(
    convostore_settings: MongoSettings, acme: TenantStore, conversation: str
) -> None:
    parts = [{"name": f"process-{number}", "count": 2000} for number in range(PROCESSES)]
    log, answers = await _append_from_many(convostore_settings, acme, parts)
    assert [sequence for sequence, _ in log] == list(range(1, 16_001))
    attempts = sum(answer.sent["insert_one"] for answer in answers[:PROCESSES]) / len(log)
    assert attempts < 6, "collisions are settled in few attempts"
    conversation_now = await acme.conversations.get_by_id(conversation)
    assert conversation_now is not None
    assert conversation_now.message_count == 16_000


async def test_batches_stay_whole_and_adjacent_between_the_messages_of_other_processes(
    convostore_settings: MongoSettings, acme: TenantStore, conversation: str
) -> None:
    parts = [{"name": f"process-{number}", "count": 120, "size": (1, 12)[number % 2]} for number in range(PROCESSES)]
    await _append_from_many(convostore_settings, acme, parts, tails=2)


@pytest.mark.parametrize("size", [1, 5], ids=["a message", "a batch"])
async def test_what_eight_processes_append_under_one_key_is_stored_once(
    convostore_settings: MongoSettings, acme: TenantStore, conversation: str, size: int
) -> None:
    part = ("append_once", {"conversation": conversation, "keys": 30, "size": size})
    answers = await asyncio.to_thread(run_together, convostore_settings, *[part] * PROCESSES)
    log = await _log(acme, conversation)
    assert sorted(text for _, text in log) == sorted(
        f"key-{key}-{member}" for key in range(30) for member in range(size)
    )
    for key in range(30):
        sequences = [answer.result[key][0] for answer in answers]
        assert sequences == [sequences[0]] * PROCESSES, "all are told the same place"
        assert sequences[0] == [sequence for sequence, text in log if text.startswith(f"key-{key}-")]
        assert [answer.result[key][1] for answer in answers].count(False) == 1, "one of them has stored it"


async def test_of_eight_processes_that_create_the_same_conversation_one_wins(
    convostore_settings: MongoSettings, acme: TenantStore
) -> None:
    parts = [("create", {"count": 40, "name": f"user-{number}"}) for number in range(PROCESSES)]
    answers = await asyncio.to_thread(run_together, convostore_settings, *parts)
    for index in range(40):
        winners = [number for number, answer in enumerate(answers) if answer.result[index]]
        stored = await acme.conversations.get_by_id(f"conversation-{index}")
        assert stored is not None
        assert [f"user-{number}" for number in winners] == [stored.user_id]


async def test_an_append_comes_before_the_deletion_of_its_conversation_or_is_refused(
    convostore_settings: MongoSettings, acme: TenantStore, store: ConvoStore, conversation: str
) -> None:
    parts = [("append_until_gone", {"conversation": conversation, "name": f"process-{number}"}) for number in range(6)]
    deletion = ("delete_when_long", {"conversation": conversation, "length": 200})
    *writers, deleter = await asyncio.to_thread(run_together, convostore_settings, *parts, deletion)
    assert deleter.result is True
    slots = await store.mongodb.database.messages.find().sort("_id").to_list()
    assert [slot["sequence"] for slot in slots] == list(range(1, len(slots) + 1))
    assert [slot["kind"] for slot in slots] == ["blank"] * (len(slots) - 1) + ["seal"], "nothing of it is left"
    sequences = sorted(sequence for writer in writers for [(sequence, _)] in writer.result)
    assert sequences == list(range(1, len(slots))), "whatever was acknowledged came before the seal"
    assert (await acme.messages.history(conversation)).items == []
    with pytest.raises(EntityNotFoundError):
        await acme.messages.append(conversation, MessageDocument.user("late"))


async def test_no_update_of_eight_processes_is_lost(
    convostore_settings: MongoSettings, acme: TenantStore, conversation: str
) -> None:
    part = ("raise_counter", {"conversation": conversation, "count": 12})
    await asyncio.to_thread(run_together, convostore_settings, *[part] * PROCESSES)
    found = await acme.conversations.get_by_id(conversation)
    assert found is not None
    assert found.metadata == {"number": 12 * PROCESSES}
    assert found.version == 12 * PROCESSES + 1
