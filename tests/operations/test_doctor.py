"""The doctor finds each kind of damage, and none where there is none."""

import pytest
from chat_lines import conversation, write_file
from test_importing import claim, import_file

from convostore import ConversationDocument, ConvoStore, MessageDocument, MongoSettings
from convostore.database.mongodb import open_mongodb
from convostore.operations.doctor import Doctor, Level
from convostore.operations.log_walk import LogWalk

DAMAGE = ("orphans", "gaps", "lost logs", "unsealed", "sealed", "unfinished imports")


async def examine(store, scan=0):
    return {finding.check: finding async for finding in Doctor(store.mongodb.administration, scan).examine()}


@pytest.fixture
async def talks(acme, rival, tmp_path):
    for tenant in (acme, rival):
        await import_file(tenant, write_file(tmp_path / "f", [conversation(number) for number in range(30)]))


@pytest.mark.usefixtures("talks")
async def test_a_sound_database_has_nothing_but_good_findings(store, acme):
    await acme.conversations.delete("talk-00003")
    await acme.conversations.create(ConversationDocument.start("u"))
    findings = await examine(store)
    assert {finding.level for finding in findings.values()} == {Level.OK}
    assert set(DAMAGE) < findings.keys()
    assert "60 logs" in findings["scan"].text


async def damage(store, acme, kind):
    slots = acme.database.collection("messages", "Message")
    conversations = acme.database.collection("conversations", "Conversation")
    message = {**MessageDocument.user("x").to_dict(), "sequence": 1}
    database = store.mongodb.database
    if kind == "orphans":
        await slots.insert(("nobody", "0000000001"), {**message, "conversation_id": "nobody"})
    elif kind == "gaps":
        await slots.insert(("talk-00001", "0000000099"), {**message, "conversation_id": "talk-00001", "sequence": 99})
    elif kind == "lost logs":
        await database["messages"].delete_many({"conversation_id": "talk-00002", "tenant_id": "acme"})
    elif kind == "unsealed":
        await conversations.update(
            ("talk-00004",), {}, [{"$replaceWith": {"_id": "$_id", "version": 2, "deleted_at": "$$NOW"}}]
        )
    elif kind == "sealed":
        await acme.conversations._log.close("talk-00005")
    else:
        await claim(acme, conversation(77))


@pytest.mark.usefixtures("talks")
@pytest.mark.parametrize("kind", DAMAGE)
async def test_each_kind_of_damage_is_found_and_named(store, acme, kind):
    await damage(store, acme, kind)
    findings = await examine(store)
    assert [check for check in DAMAGE if findings[check].level is not Level.OK] == [kind]
    assert findings[kind].text.startswith("1 ")
    assert "acme:" in findings[kind].text


@pytest.mark.usefixtures("talks")
async def test_no_more_is_looked_at_than_asked_for(store):
    findings = await examine(store, scan=7)
    assert findings["scan"].text == "looked at 7 conversations and 7 logs, at most 7 each"


@pytest.mark.usefixtures("talks")
@pytest.mark.parametrize("portion", [1, 7, 20_000])
async def test_a_log_in_several_portions_is_summed_up_once(store, portion):
    logs = [log async for log in LogWalk(store.mongodb.administration, portion).logs()]
    assert len(logs) == len({log.identity for log in logs}) == 60
    assert all(log.is_dense for log in logs)


async def test_missing_indexes_are_a_problem(store):
    await store.mongodb.database["messages"].drop_index("by_external_id")
    assert (await examine(store))["schema"].level is Level.PROBLEM


async def test_a_server_that_is_away_is_a_finding():
    settings = MongoSettings(mongodb_uri="mongodb://127.0.0.1:1", server_selection_timeout=0.2, attempts=1)
    gateway = open_mongodb(settings)
    findings = await examine(ConvoStore(gateway))
    await gateway.aclose()
    assert [(finding.check, finding.level) for finding in findings.values()] == [("MongoDB", Level.PROBLEM)]
