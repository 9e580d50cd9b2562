"""The window: the newest messages that fit a model's budget, without a tool result whose call is cut off."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from convostore.models.mongo.message_model import MessageDocument
from convostore.models.tool_calls import calls_answered, calls_made
from convostore.repositories.exceptions import ValidationError

CountTokens = Callable[[MessageDocument], int]


@dataclass(frozen=True, slots=True)
class Budget:
    """What a window may hold.

    Attributes:
        max_messages: at most so many messages; None for any number.
        max_tokens: at most so many tokens; None for any number.
        count_tokens: how many tokens a message takes.
    """

    max_messages: int | None
    max_tokens: int | None
    count_tokens: CountTokens

    def __post_init__(self) -> None:
        for name in ("max_messages", "max_tokens"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValidationError(f"{name}: must be a number >= 1", name)
        if self.max_messages is None and self.max_tokens is None:
            raise ValidationError("max_messages: give max_messages or max_tokens", "max_messages")
        if not callable(self.count_tokens):
            kind = type(self.count_tokens).__name__
            raise ValidationError(f"count_tokens: must be a function, not {kind}", "count_tokens")

    def fitting(self, newest_first: Sequence[MessageDocument]) -> int:
        """Return how many of the messages fit, from the newest on."""
        most = len(newest_first) if self.max_messages is None else min(self.max_messages, len(newest_first))
        if self.max_tokens is None:
            return most
        tokens = 0
        for index in range(most):
            tokens += self.count_tokens(newest_first[index])
            if tokens > self.max_tokens:
                return index
        return most


def without_cut_calls(newest_first: Sequence[MessageDocument]) -> list[MessageDocument]:
    """Return the messages without those that hold the result of a tool call which is not before them."""
    called: set[str] = set()
    kept = []
    for message in reversed(newest_first):
        if calls_answered(message.payload) <= called:
            kept.append(message)
            called |= calls_made(message.payload)
    return kept
