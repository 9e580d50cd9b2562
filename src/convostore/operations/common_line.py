"""The common line: perhaps a name, perhaps metadata, and messages that are a role with a text; nothing else.

Nearly all lines of nearly all files are so. ``ChatLine`` understands every line, these among them, and says what is
wrong with a bad one; here they are understood in the same way in a fraction of the time, and whatever is not plainly
good is left to it.
"""

from datetime import datetime
from functools import lru_cache
from typing import Annotated, Self

import msgspec

from convostore.models.identity import MAX_COMPONENT_LENGTH
from convostore.models.mongo.conversation_model import ConversationDocument
from convostore.models.plain_data import check_plain_data, needs_escape
from convostore.operations.chat_format import (
    DEFAULTS,
    MAX_MESSAGES,
    Content,
    ReadConversation,
    canonical,
    text_digest,
    unnamed_id,
    with_activity,
)
from convostore.operations.chat_message import Frame, PlainEntry, read_plain
from convostore.operations.imported import Imported
from convostore.repositories.exceptions import ValidationError

# What a decoder says of a text that it does not take; whether the text is bad is for ``ChatLine`` to say.
_NOT_COMMON = (msgspec.DecodeError, UnicodeDecodeError, ValidationError, RecursionError)


class _Fields(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    messages: Annotated[list[PlainEntry], msgspec.Meta(max_length=MAX_MESSAGES)]
    conversation_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_COMPONENT_LENGTH)] | msgspec.UnsetType = (
        msgspec.UNSET
    )
    metadata: Annotated[Content, msgspec.Meta(min_length=1)] | msgspec.UnsetType = msgspec.UNSET


_decode = msgspec.json.Decoder(_Fields).decode
_encode = msgspec.json.Encoder().encode  # writes texts exactly as ``canonical`` does


class CommonLine:
    """A line, understood; what ``ChatLine`` is for every line.

    Attributes:
        digest: of the content, whatever the spelling.
        conversation_id: the one given, or one made of the digest.
    """

    __slots__ = ("_fields", "conversation_id", "digest")

    def __init__(self, fields: _Fields) -> None:
        self._fields = fields
        self.digest = _digest(fields)
        given = fields.conversation_id
        self.conversation_id = unnamed_id(self.digest) if given is msgspec.UNSET else given

    @classmethod
    def parse(cls, line: bytes) -> Self | None:
        """Return the line of a text, or None if it is not common; it may be good all the same."""
        try:
            fields = _decode(line)
            return cls(fields) if _is_common(fields) else None
        except _NOT_COMMON:
            return None

    def read(self, at: datetime) -> ReadConversation:
        """Return the documents of this line.

        Args:
            at: stands for the times that the line does not tell.
        """
        stored = _blank(at).copy()
        stored["conversation_id"] = self.conversation_id
        if self._fields.metadata is not msgspec.UNSET:
            stored["metadata"] = self._fields.metadata
        slots = read_plain(self._fields.messages, Frame(self.conversation_id, at))
        unnamed = self._fields.conversation_id is msgspec.UNSET
        return ReadConversation(with_activity(stored, slots), slots, Imported(self.digest, at, unnamed))


def _digest(fields: _Fields) -> str:
    parts = [b'"messages":' + _encode(fields.messages)]
    if fields.conversation_id is not msgspec.UNSET:
        parts.insert(0, b'"conversation_id":' + _encode(fields.conversation_id))
    if fields.metadata is not msgspec.UNSET:
        parts.append(b'"metadata":' + canonical(fields.metadata).encode())
    return text_digest(b"{" + b",".join(parts) + b"}")


def _is_common(fields: _Fields) -> bool:
    if fields.metadata is not msgspec.UNSET:
        check_plain_data(fields.metadata, "metadata")
        if needs_escape(fields.metadata):
            return False
    # What is printable has no control characters; other names are for the model to judge.
    return fields.conversation_id is msgspec.UNSET or fields.conversation_id.isprintable()


@lru_cache(maxsize=4)
def _blank(at: datetime) -> Content:
    """Return the stored form of a conversation of which nothing was told."""
    return ConversationDocument(conversation_id="blank", created_at=at, **DEFAULTS).to_dict()
