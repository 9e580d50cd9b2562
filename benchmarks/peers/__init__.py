"""Libraries that convostore is measured beside, each in the use that its makers recommend."""

import itertools
from collections.abc import Awaitable, Callable

from benchmarks import contest
from benchmarks.contest import Call
from benchmarks.repositories import BUSY, ONE, READ

Calls = dict[str, Call]
CONVERSATION_IDS = (ONE, READ, *(f"c-{n:06d}" for n in range(BUSY)))


def conversation_calls(append: Callable[[str], Awaitable[object]], newest: Call) -> Calls:
    """Return the work on messages by its names.

    Args:
        append: to the conversation of an id.
        newest: reads the newest 50 of a conversation of 100.
    """
    numbers = itertools.count()
    return {
        contest.APPEND_MANY: lambda: append(f"c-{next(numbers) % BUSY:06d}"),
        contest.APPEND_ONE: lambda: append(ONE),
        contest.NEWEST: newest,
    }
