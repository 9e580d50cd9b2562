"""The page of guarantees names tests that there are."""

import re
from pathlib import Path

HOUSE = Path(__file__).parents[2]
PAGE = HOUSE / "docs" / "guarantees.md"


def test_every_test_that_the_page_names_is_there() -> None:
    there = "\n".join(path.read_text(encoding="utf-8") for path in (HOUSE / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    assert len(named) > 30
    assert [name for name in sorted(named) if f"def {name}(" not in there] == []


def test_every_file_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`(tests/[\w/.]+)`", PAGE.read_text(encoding="utf-8")))
    assert named
    assert [name for name in sorted(named) if not (HOUSE / name).exists()] == []


def test_every_promise_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert [number for number in range(1, 19) if f"| P{number} |" not in text] == []
