"""An import that is killed at any moment is finished by the next one, exactly."""

import random
import subprocess
import sys
import time

import pytest

CONVERSATIONS = 4000


async def _counts(store):
    found = {}
    for name in ("conversations", "messages"):
        rows = [row async for row in store.mongodb.administration.aggregate(name, [{"$count": "n"}])]
        found[name] = rows[0]["n"] if rows else 0
    return found


@pytest.mark.slow
def test_a_killed_import_is_finished_exactly(program, lines, tmp_path):
    file = lines(tmp_path / "in.jsonl", CONVERSATIONS)
    messages = file.read_text().count('"role"')
    broken_off = 0
    for _ in range(6):
        before = program.do(_counts)
        importing = program.start("import", file, "--tenant", "acme")
        while program_is_idle(program, before, importing):
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.4))
        importing.kill()
        importing.communicate()
        broken_off += program.do(_counts)["messages"] < messages
    assert broken_off > 1  # else it was never killed in the middle
    rest = program.json("import", file, "--tenant", "acme")
    assert rest["imported"] + rest["unchanged"] == CONVERSATIONS
    assert program.do(_counts) == {"conversations": CONVERSATIONS, "messages": messages}
    assert program.json("import", file, "--tenant", "acme")["unchanged"] == CONVERSATIONS
    program("export", "--tenant", "acme", "--output", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == file.read_bytes()
    assert program("doctor", "--scan", "0").exit_code == 0


def program_is_idle(program, before, importing):
    return importing.poll() is None and program.do(_counts) == before


@pytest.mark.slow
def test_two_programs_that_import_one_file_at_once_do_no_harm(program, lines, tmp_path):
    file = lines(tmp_path / "in.jsonl", 1500)
    program("indexes", "--apply")
    both = [program.start("import", file, "--tenant", "acme", "--json") for _ in range(2)]
    assert [importing.wait(100) for importing in both] == [0, 0]
    assert program.do(_counts) == {"conversations": 1500, "messages": file.read_text().count('"role"')}
    program("export", "--tenant", "acme", "--output", tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == file.read_bytes()


_MEASURED = """
import resource, sys
from convostore.cli.main import app
app(sys.argv[1:], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def peak(program, *arguments):
    """Return the most memory that a command has taken, in bytes."""
    command = [sys.executable, "-c", _MEASURED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, env=program.environment, check=True, timeout=100)
    return int(done.stderr.split()[-1]) * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.slow
def test_the_memory_of_import_and_export_does_not_grow_with_the_file(program, lines, tmp_path):
    small, large = lines(tmp_path / "small.jsonl", 1000, "s"), lines(tmp_path / "large.jsonl", 10_000, "l")
    out = tmp_path / "out.jsonl"
    imports = [peak(program, "import", file, "-t", name) for file, name in ((small, "a"), (large, "b"))]
    exports = [peak(program, "export", "-t", name, "-o", out) for name in ("a", "b")]
    for one, ten in (imports, exports):
        assert ten < one + 12_000_000
