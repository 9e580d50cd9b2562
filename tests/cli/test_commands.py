"""Each command does what its help says, and tells an error in one line."""

import gzip
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from convostore import ConversationDocument, MessageDocument
from convostore.cli.drawing import safe
from convostore.cli.main import app

COMMANDS = ("demo", "import", "export", "show", "search", "stats", "up", "indexes", "doctor", "erase")
NASTY = "[red]alarm[/red] \x1b]0;title\x07 \x1b[31mred\x9b1m \u202egnp.exe :warning:"


@pytest.fixture
def talk(program):
    """A conversation with messages that a terminal or a markup language would obey."""

    async def create(store):
        acme = store.tenant("acme")
        draft = ConversationDocument.start("u[bold]", conversation_id="nasty", title="[blink]Title\x1b[2J")
        await acme.conversations.create(draft)
        await acme.messages.append("nasty", MessageDocument.user(NASTY))
        await acme.messages.append("nasty", MessageDocument.assistant("second\nline", payload={"[b]": 1}))

    program.do(create)
    return program


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Example: convostore {command}" in result.output


def test_the_help_names_all_commands():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert all(command in result.output for command in COMMANDS)


def test_a_file_goes_in_and_comes_out(program, lines, tmp_path):
    file = lines(tmp_path / "in.jsonl", 50)
    result = program("import", file, "--tenant", "acme")
    assert (result.exit_code, result.stdout.split()[0]) == (0, "50")
    again = program.json("import", file, "--tenant", "acme")
    assert (again["imported"], again["unchanged"], again["failed"], again["problems"]) == (0, 50, 0, [])
    exported = program.json("export", "--tenant", "acme", "--output", tmp_path / "out.jsonl.gz")
    assert exported["conversations"] == 50
    assert gzip.decompress((tmp_path / "out.jsonl.gz").read_bytes()) == file.read_bytes()


def test_standard_input_and_output_are_taken_and_given(program, lines, tmp_path):
    content = gzip.compress(lines(tmp_path / "in.jsonl", 9).read_bytes())
    importing = program.start("import", "-", "--tenant", "acme", stdin=subprocess.PIPE)
    assert importing.communicate(content, timeout=60)[1] == b""
    exporting = program.start("export", "--tenant", "acme")
    exported, told = exporting.communicate(timeout=60)
    assert exported == (tmp_path / "in.jsonl").read_bytes()
    assert told.startswith(b"9 conversations exported")


def test_problems_are_told_with_their_lines_and_how_to_go_on(program, lines, tmp_path):
    file = lines(tmp_path / "in.jsonl", 3)
    content = file.read_bytes().splitlines()
    file.write_bytes(b"\n".join([content[0], b'{"messages":[{"role":"sesame"}]}', *content[1:]]))
    stopped = program("import", file, "--tenant", "acme")
    assert stopped.exit_code == 1
    assert stopped.stderr.splitlines()[0].startswith("line 2: messages[0].role: ")
    assert "--on-error skip" in stopped.stderr
    assert "sesame" not in stopped.output
    skipped = program("import", file, "--tenant", "acme", "--on-error", "skip", "--json")
    assert skipped.exit_code == 1
    result = json.loads(skipped.stdout)
    assert (result["imported"], result["unchanged"], result["failed"], result["stopped"]) == (2, 1, 1, False)
    assert [problem["line"] for problem in result["problems"]] == [2]


def test_a_conversation_is_shown_as_a_chat(talk):
    result = talk("show", "nasty", "--tenant", "acme")
    assert result.exit_code == 0
    assert "second" in result.stdout
    assert "+ [b]" in result.stdout
    shown = talk.json("show", "nasty", "--tenant", "acme", "--limit", "1")
    assert [message["content"] for message in shown["messages"]] == ["second\nline"]


@pytest.mark.parametrize("command", [("show", "nasty"), ("search", "alarm"), ("show", "nasty", "--json")])
def test_what_others_have_written_is_shown_and_not_obeyed(talk, command):
    output = talk(*command, "--tenant", "acme").stdout
    assert "[red]alarm[/red]" in output
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(output)


def test_control_characters_become_visible():
    assert safe("a\x1b[0m\x00\x7f\x9b\u202e\ud800\nb") == "a␛[0m␀\\x7f\\x9b\\u202e\\ud800␊b"
    assert safe("a\n\rb", lines=True) == "a\n␍b"


def test_messages_are_found_by_all_words(talk):
    found = talk.json("search", "LINE", "second", "--tenant", "acme")
    assert [(message["conversation_id"], message["sequence"]) for message in found] == [("nasty", 2)]
    assert talk.json("search", "second", "--tenant", "acme", "--in", "other") == []
    assert talk.json("search", ".*", "--tenant", "acme") == []
    assert talk.json("search", "second", "--tenant", "rival") == []
    assert "nasty" in talk("search", "second", "--tenant", "acme").stdout


def test_stats_draw_bars_and_count(talk):
    assert "█" in talk("stats").stdout
    stats = talk.json("stats", "--tenant", "acme")
    assert stats["tenants"] == [{"tenant_id": "acme", "statuses": {"active": 1}, "roles": {"assistant": 1, "user": 1}}]
    assert {size["name"] for size in stats["sizes"]} == {"conversations", "messages"}


def test_indexes_are_planned_and_created_only_when_asked(program):
    planned = program("indexes")
    assert planned.exit_code == 1
    assert "get_active_conversations" in planned.stdout.replace("\n", "") or "by_user" in planned.stdout
    missing = program.json("indexes")
    assert {step["kind"] for step in missing} == {"collection", "index"}
    assert any(step["serves"] for step in missing)
    assert program("indexes", "--apply").exit_code == 0
    assert program.json("indexes") == []


def test_both_sides_of_a_conflict_are_shown(program):
    async def change(store):
        messages = store.mongodb.database["messages"]
        await messages.drop_index("by_external_id")
        await messages.create_index([("external_id", -1)], name="by_external_id")

    program.do(change)
    result = program("indexes", "--apply")
    assert result.exit_code == 1
    assert "wanted:" in result.stdout
    assert "present:" in result.stdout


def test_the_doctor_tells_a_wrong_setting_from_a_server_that_is_away(talk):
    ended = talk("doctor", "--json", "--redis-url", "nonsense")
    assert ended.exit_code == 1
    (finding,) = json.loads(ended.stdout)
    assert (finding["check"], finding["level"]) == ("settings", "problem")
    assert finding["text"].startswith("redis_url: ")


def test_the_doctor_ends_with_one_if_there_is_a_problem(talk):
    assert talk("doctor").exit_code == 0
    assert {finding["level"] for finding in talk.json("doctor", "--scan", "0")} == {"ok"}
    talk.do(lambda store: store.mongodb.database["messages"].delete_many({}))
    assert talk("doctor").exit_code == 1


AWAY = ("--mongodb-uri", "mongodb://user:sesame@127.0.0.1:1/")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("import", "/nowhere/file", "-t", "a"), 1, "/nowhere/file: No such file or directory"),
        (("import", "/", "-t", "a"), 1, "/: Is a directory"),
        (("import", __file__, "-t", ""), 1, "tenant: must not be empty"),
        (("import", __file__, "-t", "a\nb"), 1, "tenant: must not contain control characters"),
        (("import", __file__), 2, "--tenant"),
        (("import", __file__, "-t", "a", "--on-error", "sesame"), 2, "--on-error"),
        (("import", __file__, "-t", "a", *AWAY), 1, "Failed to connect to MongoDB"),
        (("import", __file__, "-t", "a", "--mongodb-uri", "http://user:sesame@x"), 1, "mongodb_uri: not a valid"),
        (("import", __file__, "-t", "a", "--database", "a.b"), 1, "database_name: "),
        (("import", __file__, "-t", "a", "--data", "data", *AWAY), 1, "give either --data or --mongodb-uri"),
        (("export", "-t", "a", "-o", "/"), 1, "/: Is a directory"),
        (("export", "-t", "a", "-o", "/nowhere/file"), 1, "/nowhere: No such directory"),
        (("show", "", "-t", "a"), 1, "conversation_id: must not be empty"),
        (("show", "c", "-t", "a", *AWAY), 1, "Failed to connect to MongoDB"),
        (("show", "c", "-t", "a", "-n", "0"), 2, "--limit"),
        (("stats", "-t", ""), 1, "tenant: must not be empty"),
        (("doctor", *AWAY), 1, "Failed to connect to MongoDB"),
        (("demo", "--data", "/nowhere/file"), 1, "/nowhere/file: No such file or directory"),
        (("up", "--data", __file__), 2, "--data"),
        (("sesame",), 2, ""),
    ],
    ids=lambda value: " ".join(map(str, value[:4])) if isinstance(value, tuple) else "",
)
def test_an_error_is_one_line_and_an_exit_code(monkeypatch, arguments, code, told):
    monkeypatch.setenv("CONVOSTORE_SERVER_SELECTION_TIMEOUT", "0.3")
    monkeypatch.setenv("CONVOSTORE_ATTEMPTS", "1")
    monkeypatch.delenv("CONVOSTORE_MONGODB_URI", raising=False)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code
    assert told in result.output
    if code == 1 and arguments[0] != "doctor":
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1
    if "sesame" in "".join(arguments[-1:]) and code == 1:
        assert "sesame" not in result.output


def test_what_is_not_there_is_an_error(program):
    result = program("show", "nobody", "--tenant", "acme")
    assert (result.exit_code, result.stderr) == (1, "error: Conversation with ID 'nobody' not found\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_an_error(program, tmp_path):
    file = tmp_path / "f"
    file.touch(mode=0)
    assert "Permission denied" in program("import", file, "--tenant", "acme").stderr


def test_a_reader_that_has_had_enough_is_no_error(program, lines, tmp_path):
    program("import", lines(tmp_path / "f", 800), "--tenant", "acme")
    exporting = program.start("export", "--tenant", "acme")
    exporting.stdout.readline()
    exporting.stdout.close()
    assert exporting.stderr.read() == b""
    assert exporting.wait(60) == 1


def test_an_interrupted_import_ends_without_a_trace(program, lines, tmp_path):
    importing = program.start("import", "-", "--tenant", "acme", stdin=subprocess.PIPE)
    importing.stdin.write(lines(tmp_path / "f", 3000).read_bytes())
    importing.stdin.flush()  # and it waits for more
    while not program.do(lambda store: store.tenant("acme").conversations.count()):
        assert importing.poll() is None
    importing.send_signal(signal.SIGINT)
    assert importing.wait(30) == 130
    assert b"Traceback" not in importing.stderr.read()


def test_an_export_that_is_told_to_end_leaves_no_part_of_a_file(program, lines, tmp_path):
    program("import", lines(tmp_path / "f", 3000), "--tenant", "acme")
    target = tmp_path / "out"
    target.mkdir()
    exporting = program.start("export", "--tenant", "acme", "--output", target / "talks.jsonl.gz")
    while not list(target.iterdir()):
        assert exporting.poll() is None
    exporting.send_signal(signal.SIGTERM)
    assert exporting.wait(60) == 143
    assert (exporting.stderr.read(), list(target.iterdir())) == (b"", [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "arguments", [["export", "-t", "acme"], ["stats"], ["stats", "--json"], ["show", "nasty", "-t", "acme"]]
)
def test_a_full_output_is_told_in_one_line(talk, arguments):
    with Path("/dev/full").open("wb") as full:
        process = talk.start(*arguments, stdout=full)
    assert process.wait(60) == 1
    assert process.stderr.read() == b"error: No space left on device\n"


def test_that_there_are_older_messages_is_said(talk):
    assert "older messages" not in talk("show", "nasty", "-t", "acme").stdout
    assert "There are older messages than these 1" in talk("show", "nasty", "-t", "acme", "-n", "1").stdout
    shown = [talk.json("show", "nasty", "-t", "acme", "-n", count)["has_earlier"] for count in (1, 2)]
    assert shown == [True, False]


def test_up_keeps_servers_that_others_share_until_it_is_interrupted(program, tmp_path, lines):
    data = tmp_path / "data"
    environment = {k: v for k, v in program.environment.items() if not k.startswith("CONVOSTORE_")}
    up = program.start("up", "--json", "--data", data, env=environment)
    try:
        told = json.loads("".join(iter(lambda: up.stdout.readline().decode(), "}\n")) + "}")
        assert told["mongodb_uri"].startswith("mongodb://")
        file = lines(tmp_path / "f", 3)
        for expected in (b"3 conversations imported", b"0 conversations imported"):
            importing = program.start("import", file, "-t", "acme", "--data", data, env=environment)
            assert importing.communicate(timeout=100)[0].startswith(expected)
        attached = program.start("stats", "--json", env={**environment, "CONVOSTORE_MONGODB_URI": told["mongodb_uri"]})
        assert json.loads(attached.communicate(timeout=60)[0])["tenants"][0]["statuses"] == {"active": 3}
    finally:
        up.send_signal(signal.SIGINT)
    assert up.wait(60) == 0


def test_a_repair_shows_what_it_would_do_and_does_it_only_if_it_is_wanted(talk):
    async def break_it(store):
        await store.mongodb.database["conversations"].update_one({}, {"$set": {"message_count": 0}})

    talk.do(break_it)
    case = {"count": 1, "named": ["acme:nasty"]}
    for arguments in (("--dry-run",), ("--dry-run", "--yes"), ()):
        told = talk("doctor", "--repair", *arguments)
        assert (told.exit_code, "activity" in told.stdout, "acme:nasty" in told.stdout) == (1, True, True)
    assert "--yes" in told.stderr
    told = talk.json("doctor", "--repair", "--yes")
    assert (told["planned"]["activity"], told["repaired"]["activity"]) == (case, case)
    done = talk("doctor", "--repair")
    assert (done.exit_code, done.stdout) == (0, "looked at 2 conversations and logs: nothing to repair\n")
    assert talk("doctor", "--yes").exit_code == 2
