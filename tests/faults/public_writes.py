"""The public writes of convostore, each with a way to tell from the database how often it was applied."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fault_support import visible

from convostore import ConversationDocument, ConversationStatus, DeliveryStatus, MessageDocument, RepositoryError


@dataclass(frozen=True)
class PublicWrite:
    """A write under test.

    Attributes:
        name: what it is called in a report.
        prepare: makes what it acts on, undisturbed, and returns the id of the conversation.
        act: makes the write through the store under test; given the store, the tenant and the id.
        applied: given the truth, the id, and what ``act`` returned or None, tells how often it was applied.
        patient: whether it goes on trying until its deadline, so that many faults in a row may be hidden.
        warm: makes the store under test remember what it remembers in the middle of its life.
    """

    name: str
    prepare: Callable[[Any], Awaitable[str]]
    act: Callable[[Any, Any, str], Awaitable[Any]]
    applied: Callable[[Any, str], Awaitable[int]]
    warm: Callable[[Any, str], Awaitable[Any]] | None = None
    patient: bool = False

    def __str__(self):
        return self.name


def text(content):
    return MessageDocument.user(content)


BATCH = [text(f"batch {n}") for n in range(5)]


async def nothing(acme):
    return ConversationDocument.start(user_id="u").conversation_id


async def conversation(acme):
    return (await acme.conversations.create(ConversationDocument.start(user_id="u"))).conversation_id


async def with_messages(acme):
    conversation_id = await conversation(acme)
    for number in range(3):
        await acme.messages.append(conversation_id, text(f"before {number}"))
    return conversation_id


async def with_key_used(acme):
    conversation_id = await with_messages(acme)
    await acme.messages.append(conversation_id, text("the one"), idempotency_key="key")
    return conversation_id


async def one_more(acme, conversation_id):
    await acme.messages.append(conversation_id, text("warm"))


def occurrences(content):
    async def applied(truth, conversation_id):
        slots = visible(await truth.log(conversation_id))
        return sum(slot.get("content") == content for slot in slots)

    return applied


async def batches(truth, conversation_id):
    contents = await truth.contents(conversation_id)
    wanted = [message.content for message in BATCH]
    found = [content for content in contents if content.startswith("batch")]
    times, rest = divmod(len(found), len(wanted))
    assert not rest, f"half a batch is shown: {found}"
    assert found == wanted * times
    return times


async def version_steps(truth, conversation_id):
    return (await truth.conversation(conversation_id))["version"] - 1


async def message_version_steps(truth, conversation_id):
    return (await truth.log(conversation_id))[1]["version"] - 1


async def delivered(truth, conversation_id):
    return int((await truth.log(conversation_id))[1].get("delivery_status") == "delivered")


async def created(truth, conversation_id):
    return int(await truth.conversation(conversation_id) is not None)


async def deleted(truth, conversation_id):
    return int("tenant_id" not in await truth.conversation(conversation_id))


async def unit_steps(truth, conversation_id):
    contents = await truth.contents(conversation_id)
    steps = {
        contents.count("unit 1"),
        contents.count("unit 2"),
        await version_steps(truth, conversation_id),
        int(await truth.conversation(f"{conversation_id}-twin") is not None),
    }
    assert len(steps) == 1, f"half a unit of work: {steps}"
    return steps.pop()


async def create(store, acme, cid):
    return await acme.conversations.create(ConversationDocument.start(user_id="u", conversation_id=cid))


async def update(store, acme, cid):
    found = await acme.conversations.get_by_id(cid)
    return await acme.conversations.update(found.evolve(title="new"))


async def update_status(store, acme, cid):
    assert await acme.conversations.update_conversation_status(cid, ConversationStatus.COMPLETED)


async def update_with(store, acme, cid):
    return await acme.conversations.update_with(cid, lambda found: found.evolve(title="new"))


async def delete(store, acme, cid):
    assert await acme.conversations.delete(cid)


async def append(store, acme, cid):
    return await acme.messages.append(cid, text("the one"))


async def append_and_look(store, acme, cid):
    appended = await acme.messages.append(cid, text("the one"))
    try:
        found = await acme.conversations.get_by_id(cid)
    except RepositoryError:
        return  # that is the read's answer, not the append's
    assert found.message_count >= appended.sequence, "a process does not read its own append"


async def append_keyed(store, acme, cid):
    return await acme.messages.append(cid, text("the one"), idempotency_key="key")


async def append_replayed(store, acme, cid):
    assert (await append_keyed(store, acme, cid)).replayed


async def append_many(store, acme, cid):
    return await acme.messages.append_many(cid, BATCH)


async def append_many_keyed(store, acme, cid):
    return await acme.messages.append_many(cid, BATCH, idempotency_key="key")


async def edit(store, acme, cid):
    return await acme.messages.edit(cid, 2, content="edited")


async def update_message(store, acme, cid):
    found = await acme.messages.get(cid, 2)
    return await acme.messages.update(found.evolve(content="edited"))


async def delete_message(store, acme, cid):
    assert await acme.messages.delete(MessageDocument.identify(cid, 2))


async def update_delivery(store, acme, cid):
    assert await acme.messages.update_delivery_status(cid, 2, DeliveryStatus.DELIVERED)


async def _several(acme, cid):
    await acme.messages.append(cid, text("unit 1"))
    await acme.conversations.update_conversation_status(cid, ConversationStatus.COMPLETED)
    await acme.messages.append(cid, text("unit 2"))
    await acme.conversations.create(ConversationDocument.start(user_id="u", conversation_id=f"{cid}-twin"))


async def unit(store, acme, cid):
    async with store.transaction():
        await _several(acme, cid)


async def unit_retried(store, acme, cid):
    await store.in_transaction(lambda _: _several(acme, cid))


WRITES = [
    PublicWrite("create", nothing, create, created),
    PublicWrite("update", conversation, update, version_steps),
    PublicWrite("update_conversation_status", conversation, update_status, version_steps),
    PublicWrite("update_with", conversation, update_with, version_steps),
    PublicWrite("delete", with_messages, delete, deleted),
    PublicWrite("append, first", conversation, append, occurrences("the one")),
    PublicWrite("append, cold", with_messages, append, occurrences("the one")),
    PublicWrite("append, warm", with_messages, append, occurrences("the one"), one_more),
    PublicWrite("append, read own", with_messages, append_and_look, occurrences("the one"), one_more, patient=True),
    PublicWrite("append with key", with_messages, append_keyed, occurrences("the one"), one_more),
    PublicWrite("append with key, replayed", with_key_used, append_replayed, occurrences("the one"), one_more),
    PublicWrite("append_many", with_messages, append_many, batches, one_more),
    PublicWrite("append_many with key", with_messages, append_many_keyed, batches, one_more),
    PublicWrite("edit", with_messages, edit, message_version_steps),
    PublicWrite("update message", with_messages, update_message, message_version_steps),
    PublicWrite("delete message", with_messages, delete_message, message_version_steps),
    PublicWrite("update_delivery_status", with_messages, update_delivery, delivered),
    PublicWrite("transaction", with_messages, unit, unit_steps, patient=True),
    PublicWrite("in_transaction", with_messages, unit_retried, unit_steps, patient=True),
]
