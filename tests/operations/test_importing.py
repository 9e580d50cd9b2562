"""Each conversation of a file is there once, whole, and nobody sees it before."""

import asyncio
import gzip
import json

import pytest
from chat_lines import conversation, dump, message_count, write_file

from convostore import ConversationDocument, EntityNotFoundError, MessageDocument, RepositoryError
from convostore.models.types import utc_now
from convostore.operations import importing
from convostore.operations.chat_format import ChatLine
from convostore.operations.claiming import Claiming, Entrant
from convostore.operations.exporting import Exporter
from convostore.operations.importing import Importer, OnError, Problem
from convostore.operations.line_source import LineSource
from convostore.operations.output import open_output


async def import_file(tenant, path, on_error=OnError.STOP, **options):
    with LineSource(path, **options) as source:
        return await Importer(tenant.database, on_error).run(source)


async def export_lines(tenant, path):
    with open_output(path) as output:
        await Exporter(tenant.database).run(output)
    return path.read_bytes().splitlines()


async def counts(store):
    administration = store.mongodb.administration
    found = {}
    for name in ("conversations", "messages"):
        rows = [row async for row in administration.aggregate(name, [{"$count": "n"}])]
        found[name] = rows[0]["n"] if rows else 0
    return found["conversations"], found["messages"]


@pytest.fixture
def talks():
    return [conversation(number) for number in range(300)]


async def test_a_file_is_imported_and_a_second_run_changes_nothing(store, acme, rival, talks, tmp_path):
    file = write_file(tmp_path / "talks.jsonl", talks)
    first = await import_file(acme, file)
    assert (first.imported, first.unchanged, first.messages) == (300, 0, message_count(talks))
    before = await counts(store)
    second = await import_file(acme, file)
    assert (second.imported, second.unchanged, second.messages) == (0, 300, 0)
    assert await counts(store) == before == (300, message_count(talks))
    assert await rival.conversations.count() == 0


async def test_a_compressed_file_is_recognised_by_its_content(acme, talks, tmp_path):
    file = tmp_path / "talks.jsonl"
    file.write_bytes(gzip.compress(b"".join(dump(talk) + b"\n" for talk in talks[:9])))
    assert (await import_file(acme, file)).imported == 9


async def test_the_activity_is_what_appending_would_have_made(acme, tmp_path):
    entries = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    await import_file(acme, write_file(tmp_path / "f", [{"conversation_id": "c", "messages": entries}]))
    imported = await acme.conversations.get_by_id("c")
    by_hand = await acme.conversations.create(ConversationDocument.start(user_id="u"))
    for entry in entries:
        await acme.messages.append(by_hand.conversation_id, MessageDocument(**entry))
    appended = await acme.conversations.get_by_id(by_hand.conversation_id)
    for name in ("message_count", "status", "version"):
        assert getattr(imported, name) == getattr(appended, name)
    assert (
        imported.last_message.model_copy(update={"created_at": appended.last_message.created_at})
        == appended.last_message
    )
    assert imported.last_activity_at == imported.last_message.created_at
    assert (await acme.messages.append("c", MessageDocument.user("c"))).sequence == 3


async def test_an_imported_key_recognises_the_message_that_is_delivered_again(acme, tmp_path):
    entry = {"role": "user", "content": "a", "idempotency_key": "k"}
    await import_file(acme, write_file(tmp_path / "f", [{"conversation_id": "c", "messages": [entry]}]))
    again = await acme.messages.append("c", MessageDocument.user("a"), idempotency_key="k")
    assert (again.replayed, again.sequence) == (True, 1)


async def test_what_is_exported_is_what_was_imported(acme, talks, tmp_path):
    file = write_file(tmp_path / "talks.jsonl", talks)
    await import_file(acme, file)
    exported = await export_lines(acme, tmp_path / "out.jsonl")
    assert exported == file.read_bytes().splitlines()  # the ids of the file are in order


async def test_a_line_without_an_id_is_one_conversation_however_often_it_comes(store, acme, tmp_path):
    content = {"messages": [{"role": "user", "content": "x"}]}
    result = await import_file(acme, write_file(tmp_path / "f", [content, {**content, "title": "t"}, content]))
    assert (result.imported, result.unchanged) == (2, 1)
    assert await counts(store) == (2, 2)
    assert sorted(map(len, await export_lines(acme, tmp_path / "out"))) == sorted(
        map(len, [dump(content), dump({**content, "title": "t"})])
    )


async def test_two_imports_of_one_file_at_once_do_no_harm(store, acme, talks, tmp_path):
    file = write_file(tmp_path / "talks.jsonl", talks)
    both = await asyncio.gather(import_file(acme, file), import_file(acme, file))
    assert await counts(store) == (300, message_count(talks))
    assert sum(result.imported for result in both) == 300
    assert sum(result.messages for result in both) == message_count(talks)
    assert [result.imported + result.unchanged for result in both] == [300, 300]
    assert await export_lines(acme, tmp_path / "out") == file.read_bytes().splitlines()


STEPS = ("claim", "insert_below", "finish")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_an_import_that_broke_off_at_any_step_is_finished_by_the_next(
    store, acme, talks, tmp_path, monkeypatch, step, after
):
    file = write_file(tmp_path / "talks.jsonl", talks)
    part = "_messages" if step == "insert_below" else "_places"

    class Breaking(Claiming):
        def __init__(self, database):
            super().__init__(database)
            method = getattr(getattr(self, part), step)

            async def broken(*arguments, **options):
                if after:
                    await method(*arguments, **options)
                raise RepositoryError("the power is gone")

            setattr(getattr(self, part), step, broken)

    with monkeypatch.context() as patched:
        patched.setattr(importing, "Claiming", Breaking)
        with pytest.raises(RepositoryError):
            await import_file(acme, file)
    result = await import_file(acme, file)
    assert result.imported + result.unchanged == 300
    assert await counts(store) == (300, message_count(talks))
    assert await export_lines(acme, tmp_path / "out") == file.read_bytes().splitlines()


async def claim(acme, content):
    line = ChatLine.parse(dump(content))
    entrant = Entrant(1, line, line.read(utc_now()))
    await Claiming(acme.database)._places.claim({entrant.key: entrant.claim})


async def test_nobody_sees_or_changes_a_conversation_that_is_half_there(acme, tmp_path):
    content = conversation(1)
    await claim(acme, content)
    identity = content["conversation_id"]
    assert await acme.conversations.get_by_id(identity) is None
    assert not await acme.conversations.exists(identity)
    assert await acme.conversations.count() == 0
    assert (await acme.conversations.list()).items == []
    with pytest.raises(EntityNotFoundError):
        await acme.messages.append(identity, MessageDocument.user("x"))
    with pytest.raises(RepositoryError):
        await acme.conversations.create(ConversationDocument.start(user_id="u", conversation_id=identity))
    assert await export_lines(acme, tmp_path / "out") == []


async def test_what_is_there_with_other_content_is_a_problem_of_its_line(acme, tmp_path):
    created, deleted, claimed, same = (conversation(number) for number in range(4))
    await acme.conversations.create(ConversationDocument.start("u", conversation_id=created["conversation_id"]))
    await acme.conversations.create(ConversationDocument.start("u", conversation_id=deleted["conversation_id"]))
    await acme.conversations.delete(deleted["conversation_id"])
    await claim(acme, {**claimed, "title": "another"})
    file = write_file(tmp_path / "f", [created, deleted, claimed, same, {**same, "title": "another"}])
    result = await import_file(acme, file, OnError.SKIP)
    assert (result.imported, result.failed, result.stopped) == (1, 4, False)
    assert result.problems == [
        Problem(1, "conversation_id: exists with other content"),
        Problem(2, "conversation_id: was deleted less than 30 days ago"),
        Problem(
            3,
            "conversation_id: another import has begun with other content and is not finished; if it is dead, "
            "`convostore doctor --repair --claims-older-than HOURS` removes what it has left",
        ),
        Problem(5, "conversation_id: exists with other content"),
    ]


async def test_places_that_hold_foreign_messages_are_not_taken_over(store, acme, tmp_path):
    content = conversation(3)
    messages = acme.database.collection("messages", "Message")
    place = {"conversation_id": "talk-00003", "sequence": 2, "message_id": "foreign"}
    await messages.insert(("talk-00003", "0000000002"), place)
    result = await import_file(acme, write_file(tmp_path / "f", [content]), OnError.SKIP)
    assert [problem.line for problem in result.problems] == [1]
    assert await acme.conversations.get_by_id("talk-00003") is None


async def test_a_bad_line_stops_the_run_with_everything_before_it_imported(acme, talks, tmp_path):
    file = tmp_path / "f"
    lines = [dump(talk) for talk in talks]
    file.write_bytes(b"\n".join([*lines[:250], b"", b"{bad", *lines[250:]]))
    result = await import_file(acme, file)
    assert (result.imported, result.failed, result.stopped) == (250, 1, True)
    assert result.problems == [Problem(252, "line: not JSON")]
    skipping = await import_file(acme, file, OnError.SKIP)
    assert (skipping.imported, skipping.unchanged, skipping.failed, skipping.stopped) == (50, 250, 1, False)


async def test_only_the_first_problems_are_kept(acme, tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"{\n" * 5000)
    result = await import_file(acme, file, OnError.SKIP)
    assert (result.failed, len(result.problems)) == (5000, importing.KEPT_PROBLEMS)
    assert result.problems[0] == Problem(1, "line: not JSON")


async def test_a_message_larger_than_a_document_may_be_is_a_bad_line(acme, tmp_path):
    large = {"conversation_id": "large", "messages": [{"role": "user", "content": "x" * 17_000_000}]}
    blown_up = {"conversation_id": "b", "messages": [{"role": "user", "content": "", "p": [[]] * 1_500_000}]}
    metadata = {"conversation_id": "m", "metadata": {"x": "x" * 17_000_000}, "messages": []}
    result = await import_file(
        acme, write_file(tmp_path / "f", [large, blown_up, metadata, conversation(1)]), OnError.SKIP
    )
    assert [(problem.line, problem.reason.partition(":")[0]) for problem in result.problems] == [
        (1, "messages[0].content"),
        (2, "messages[0]"),
        (3, "metadata"),
    ]
    assert result.imported == 1


async def test_progress_tells_what_is_done_and_how_much_was_read(acme, talks, tmp_path):
    file = write_file(tmp_path / "f", talks)
    seen = []
    with LineSource(file) as source:
        await Importer(
            acme.database, progress=lambda result, source: seen.append((result.imported, source.position))
        ).run(source)
    assert seen[-1] == (300, file.stat().st_size)
    assert seen == sorted(seen)


async def test_keys_with_a_dollar_sign_survive(acme, tmp_path):
    content = {
        "conversation_id": "c",
        "metadata": {"$ref": 1, "%a": {"$b": 2}},
        "messages": [{"role": "user", "content": "x", "$where": {"$gt": ""}}],
        "$set": {"a.b": 1},
    }
    await import_file(acme, write_file(tmp_path / "f", [content]))
    assert json.loads((await export_lines(acme, tmp_path / "out"))[0]) == content
