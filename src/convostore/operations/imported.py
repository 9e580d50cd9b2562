"""Imported: what a conversation remembers of the line it was imported from."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from convostore.models.plain_data import escape_keys, unescape_keys
from convostore.operations.chat_message import Stored, stored_moment

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Imported:
    """What is kept of a line beside the documents made of it, to write the same line again.

    Attributes:
        digest: of the line's content.
        at: the moment that stands for all times that the line did not tell.
        unnamed: the line had no ``conversation_id``; the digest became it.
        bare: the sequences of messages that came without ``content``.
        others: the fields that are not ours, or that say what goes without saying.
    """

    digest: str
    at: datetime
    unnamed: bool = False
    bare: tuple[int, ...] = ()
    others: Content = field(default_factory=dict)

    def to_dict(self) -> Content:
        """Return the stored form."""
        stored = {"unnamed": self.unnamed, "bare": list(self.bare), "others": escape_keys(self.others)}
        return {"digest": self.digest, "at": self.at, **{name: value for name, value in stored.items() if value}}

    @classmethod
    def of(cls, conversation: Stored) -> Self | None:
        """Return what is stored in a conversation document, or None if no import has made it."""
        stored = conversation.get("imported")
        if stored is None:
            return None
        others = unescape_keys(stored.get("others", {}))
        bare = tuple(stored.get("bare", ()))
        return cls(stored["digest"], stored_moment(stored["at"]), stored.get("unnamed", False), bare, others)
