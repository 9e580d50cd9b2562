"""Stats count what is there."""

import pytest
from chat_lines import conversation, message_count, write_file
from test_importing import import_file

from convostore import MessageDocument, ValidationError
from convostore.operations.stats import Stats


async def test_conversations_and_messages_are_counted_by_tenant(store, acme, rival, tmp_path):
    talks = [conversation(number) for number in range(20)]
    await import_file(acme, write_file(tmp_path / "f", talks))
    await import_file(rival, write_file(tmp_path / "f", talks[:3]))
    await acme.conversations.delete("talk-00000")
    await acme.messages.append("talk-00001", MessageDocument.user("x"))
    await acme.messages.delete(MessageDocument.identify("talk-00001", 1))
    stats = await Stats(store.mongodb.administration).collect()
    ours, theirs = stats.tenants
    assert (ours.tenant_id, ours.conversations, ours.messages) == ("acme", 19, message_count(talks[1:]))
    assert (theirs.statuses, sum(theirs.roles.values())) == ({"active": 3}, message_count(talks[:3]))
    assert [size.name for size in stats.sizes] == ["conversations", "messages"]
    assert all(size.documents and size.storage and size.bytes_per_document > 0 for size in stats.sizes)


async def test_one_tenant_can_be_asked_for(store, acme, rival, tmp_path):
    for tenant in (acme, rival):
        await import_file(tenant, write_file(tmp_path / "f", [conversation(1)]))
    assert [found.tenant_id for found in (await Stats(store.mongodb.administration).collect("acme")).tenants] == [
        "acme"
    ]
    empty = (await Stats(store.mongodb.administration).collect("nobody")).tenants
    assert [(found.conversations, found.messages) for found in empty] == [(0, 0)]
    with pytest.raises(ValidationError):
        await Stats(store.mongodb.administration).collect("")
