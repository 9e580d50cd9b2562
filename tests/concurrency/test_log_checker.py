"""The checker of the log finds each kind of violation when one is planted."""

from collections.abc import Callable

import pytest
from log_checker import Entry, late_arrivals, violations

LOG: list[Entry] = [(1, "a-0"), (2, "b-0"), (3, "b-1"), (4, "a-1")]
ACKNOWLEDGED: dict[str, list[list[Entry]]] = {"a": [[(1, "a-0")], [(4, "a-1")]], "b": [[(2, "b-0"), (3, "b-1")]]}


def test_a_sound_log_has_no_violations() -> None:
    assert violations(LOG, ACKNOWLEDGED) == []
    assert late_arrivals(LOG, LOG) == []


FORGED: dict[str, tuple[Callable[[], list[Entry]], str]] = {
    "a gap": (lambda: [*LOG[:3], (5, "a-1")], "sequence 5 stands where 4 should"),
    "a sequence twice": (lambda: [*LOG[:2], (2, "b-1"), (4, "a-1")], "sequence 2 stands where 3 should"),
    "a message lost": (lambda: LOG[:3], "a-1 was acknowledged at 4"),
    "a message twice": (lambda: [*LOG, (5, "a-1")], "stored twice: a-1"),
    "a message of nobody": (lambda: [*LOG, (5, "c-0")], "nobody wrote c-0"),
    "two messages swapped": (lambda: [(1, "b-0"), (2, "a-0"), *LOG[2:]], "a-0 was acknowledged at 1"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_log_is_found_out(name: str) -> None:
    forge, finding = FORGED[name]
    assert any(text.startswith(finding) for text in violations(forge(), ACKNOWLEDGED))


def test_a_process_whose_messages_are_out_of_order_is_found_out() -> None:
    swapped = {**ACKNOWLEDGED, "a": [[(4, "a-1")], [(1, "a-0")]]}
    assert violations(LOG, swapped) == ["messages of process a are out of order"]


def test_a_batch_that_was_torn_apart_is_found_out() -> None:
    torn = [(1, "b-0"), (2, "a-0"), (3, "b-1"), (4, "a-1")]
    acknowledged = {"a": [[(2, "a-0")], [(4, "a-1")]], "b": [[(1, "b-0"), (3, "b-1")]]}
    assert violations(torn, acknowledged) == ["a batch of process b at 1 is not adjacent"]


@pytest.mark.parametrize(
    ("seen", "finding"),
    [
        ([LOG[0], *LOG[2:]], "sequence 3 stands where 2 should"),
        (LOG[:3], "the reader missed 1 messages"),
        ([*LOG[:3], (4, "b-7")], "the reader saw b-7 at 4"),
        ([LOG[0], LOG[2], LOG[1], LOG[3]], "sequence 3 stands where 2 should"),
    ],
    ids=["a message that came late", "an end never seen", "a message that changed", "out of order"],
)
def test_a_reader_who_saw_something_else_is_found_out(seen: list[Entry], finding: str) -> None:
    assert finding in late_arrivals(seen, LOG)
