"""The demonstration runs by itself, with its own dialogues and with a file."""

import json
import re

import pytest

from convostore.cli.demo import example_file

SHOWN = (
    "Import", "A conversation", "A search", "Two pages", "A webhook delivered twice", "Two editors at once",
    "A unit of work that fails", "Another tenant", "A logout during a slow request", "A rate limit", "A cache",
)  # fmt: skip


def run_demo(program, *arguments):
    environment = {k: v for k, v in program.environment.items() if not k.startswith("CONVOSTORE_")}
    process = program.start("demo", *arguments, env=environment)
    shown, told = process.communicate(timeout=100)
    assert process.returncode == 0, told
    assert b"Traceback" not in told
    return shown.decode()


@pytest.mark.slow
def test_the_demonstration_shows_everything(program):
    shown = run_demo(program)
    assert [title for title in SHOWN if title not in shown] == []
    assert "ConcurrencyError" in shown
    assert "TenantMismatchError" in shown
    assert "was there already, sequence 1" in shown
    assert re.search(r"status active, 1 message\b", shown)
    assert "the slow request stores its cart: EntityNotFoundError" in shown
    assert "the session afterwards: None" in shown
    assert "call 4: denied, 0 left" in shown
    assert "Retry-After: " in shown
    assert "100 readers at once: 1 load" in shown
    assert re.search(r"2 loads\s", shown)


@pytest.mark.slow
def test_the_demonstration_takes_any_file(program, lines, tmp_path):
    shown = run_demo(program, "--data", str(lines(tmp_path / "f", 120)))
    assert "120" in shown
    assert [title for title in SHOWN if title not in shown] == []


def test_the_examples_are_varied():
    dialogues = [json.loads(line) for line in example_file().read_text(encoding="utf-8").splitlines()]
    assert len(dialogues) >= 20
    assert len({dialogue["metadata"]["service"] for dialogue in dialogues}) >= 10
    assert any("tool_calls" in message for dialogue in dialogues for message in dialogue["messages"])
