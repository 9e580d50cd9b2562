"""The chat format: a conversation as one line of JSON.

    {"conversation_id"?, "metadata"?, "messages": [{"role", "content", ...}], ...}

Optional beside these: user_id, channel, status, title, tags, assignee, created_at, started_at, updated_at and
completed_at.
Other fields are kept and given back. What a line did not tell is filled in (``Imported`` says with what), and left
out again when the line is written, so a line comes back as it was, in a fixed order of its fields: identity, metadata,
messages, ours, others. Times come back in UTC with milliseconds, token counts complete.

A conversation created by other means is written with everything that is needed to store it again: ids, texts, payloads,
state, times, delivery, usage, idempotency keys. Versions start anew, and what was appended as one is no longer known to
have been. Places without a message keep their sequence (``chat_message``), those at the end of the log excepted.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from convostore.models.mongo.conversation_model import PREVIEW_LENGTH, ConversationDocument
from convostore.models.mongo.message_model import MessageDocument
from convostore.models.plain_data import check_plain_data
from convostore.operations.chat_message import (
    Frame,
    Stored,
    read_entry,
    read_moment,
    settle_entry,
    settle_times,
    stored_moment,
    write_entry,
    write_gap,
    write_moment,
)
from convostore.operations.imported import Imported
from convostore.repositories.exceptions import ValidationError

MAX_MESSAGES = 100_000
_FIRST = ("conversation_id", "metadata", "messages")
DEFAULTS: dict[str, Any] = {"user_id": "imported", "channel": "api", "status": "active"}
_FIELDS = ("user_id", "channel", "status", "title", "tags", "assignee")
_TIMES = ("created_at", "started_at", "updated_at", "completed_at")
_OWN = frozenset({*_FIRST, *_FIELDS, *_TIMES})
canonical = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode

Content = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ReadConversation:
    """The documents of a line, in their stored form without the tenant.

    Attributes:
        content: of the conversation, with the activity that appending the messages would have given it.
        slots: the messages in the order of their sequence.
        imported: what else is kept.
    """

    content: Content
    slots: list[Stored]
    imported: Imported

    @property
    def conversation_id(self) -> str:
        """The identity of the conversation."""
        identity: str = self.content["conversation_id"]
        return identity

    @property
    def conversation(self) -> ConversationDocument:
        """The conversation as a document."""
        return ConversationDocument.from_dict(self.content)

    @property
    def messages(self) -> list[MessageDocument]:
        """The messages as documents."""
        return [MessageDocument.from_dict(slot) for slot in self.slots]

    def stored(self) -> Content:
        """Return what is stored of the conversation."""
        return {**self.content, "imported": self.imported.to_dict()}


@dataclass(frozen=True, slots=True)
class ChatLine:
    """A line, understood as far as its identity.

    Attributes:
        content: the object.
        digest: of the content, whatever the spelling.
        conversation_id: the one given, or one made of the digest.
    """

    content: Content
    digest: str
    conversation_id: str

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Return the line of a text.

        Raises:
            ValidationError: it is no line of a conversation; says why without quoting it.
        """
        content = _parse_object(line)
        messages = content.get("messages")
        if type(messages) is not list:
            raise ValidationError("messages: must be a list", "messages")
        if len(messages) > MAX_MESSAGES:
            raise ValidationError(f"messages: more than {MAX_MESSAGES}", "messages")
        settle_times(content, _TIMES)
        for entry in messages:
            settle_entry(entry)
        digest = content_digest(content)
        given = content.get("conversation_id")
        return cls(content, digest, unnamed_id(digest) if given is None else given)

    def read(self, at: datetime) -> ReadConversation:
        """Return the documents of this line.

        Args:
            at: stands for the times that the line does not tell.

        Raises:
            ValidationError: a field is not valid; names it.
        """
        conversation = self._conversation(at)
        entries = self.content["messages"]
        slots = _read_messages(entries, Frame(conversation.conversation_id, at))
        told = _told(conversation, at)
        others = {name: value for name, value in self.content.items() if name not in {*told, *_FIRST[::2]}}
        check_plain_data(others, "line")
        unnamed = self.content.get("conversation_id") is None
        if unnamed and "conversation_id" in self.content:
            others["conversation_id"] = None
        bare = tuple(n for n, entry in enumerate(entries, 1) if "content" not in entry)
        imported = Imported(self.digest, at, unnamed, bare, others)
        return ReadConversation(with_activity(conversation.to_dict(), slots), slots, imported)

    def _conversation(self, at: datetime) -> ConversationDocument:
        given = {name: self.content[name] for name in _OWN if self.content.get(name) is not None}
        del given["messages"]
        times = {name: read_moment(given[name], name) for name in _TIMES if name in given}
        first = times.get("created_at", at)
        defaults = {**DEFAULTS, "created_at": first, "started_at": first, "updated_at": first}
        return ConversationDocument(**{**defaults, **given, **times, "conversation_id": self.conversation_id})


def _parse_object(line: bytes) -> Content:
    try:
        content = _DECODER.decode(line.decode())
    except UnicodeDecodeError:
        raise ValidationError("line: not UTF-8", "line") from None
    except RecursionError:
        raise ValidationError("line: nested too deep", "line") from None
    except ValueError:
        raise ValidationError("line: not JSON", "line") from None
    if type(content) is not dict:
        raise ValidationError("line: must be an object", "line")
    return content


def _no_number(_: str) -> float:
    raise ValueError


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


_DECODER = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)


def content_digest(content: Content) -> str:
    """Return a digest of the content of a line, whatever the order of its fields."""
    try:
        text = canonical(content)
    except RecursionError:
        raise ValidationError("line: nested too deep", "line") from None
    return text_digest(text.encode("utf-8", "surrogatepass"))


def text_digest(text: bytes) -> str:
    """Return the digest of content from its canonical text."""
    return hashlib.sha256(text).hexdigest()[:40]


def unnamed_id(digest: str) -> str:
    """Return the identity of a conversation whose line has none."""
    return f"imported-{digest}"


def _read_messages(entries: Sequence[Any], frame: Frame) -> list[Stored]:
    slots: list[Stored] = []
    keys: set[str] = set()
    for sequence, entry in enumerate(entries, start=1):
        try:
            slot = read_entry(entry, sequence, frame)
        except ValidationError as error:
            path = f"messages[{sequence - 1}].{error}".replace(".value:", ":", 1)
            raise ValidationError(path, "messages") from None
        if "idempotency_key" in slot:
            _check_new(slot["idempotency_key"], keys, sequence)
        slots.append(slot)
    return slots


def _check_new(key: str, keys: set[str], sequence: int) -> None:
    if key in keys:
        text = f"messages[{sequence - 1}].idempotency_key: used by an earlier message of this conversation"
        raise ValidationError(text, "messages")
    keys.add(key)


def with_activity(conversation: Content, slots: Sequence[Stored]) -> Content:
    """Add what appending the messages would have added to the stored form of a conversation, in place."""
    if slots:
        last = slots[-1]
        latest = max(map(stored_moment, {slot["created_at"] for slot in slots}))
        conversation["message_count"] = len(slots)
        conversation["last_activity_at"] = max(conversation["created_at"], latest)
        conversation["last_message"] = {
            "sequence": last["sequence"],
            "version": last["version"],
            "role": last["role"],
            "preview": last.get("content", "")[:PREVIEW_LENGTH],
            "created_at": last["created_at"],
        }
    return conversation


def _told(conversation: ConversationDocument, at: datetime | None) -> Content:
    """Return the fields of a conversation that do not go without saying, in their order; ``at`` is what does."""
    told: Content = {"conversation_id": conversation.conversation_id}
    if conversation.metadata:
        told["metadata"] = conversation.metadata
    for name in _FIELDS:
        value = getattr(conversation, name)
        if value not in (None, (), DEFAULTS.get(name)):
            told[name] = list(value) if isinstance(value, tuple) else str(value)
    told.update((name, write_moment(getattr(conversation, name))) for name in _told_times(conversation, at))
    return told


def _told_times(conversation: ConversationDocument, at: datetime | None) -> list[str]:
    implied = {"created_at": at, "started_at": conversation.created_at, "updated_at": conversation.created_at}
    return [name for name in _TIMES if getattr(conversation, name) not in (None, implied.get(name))]


def write_line(stored: Stored, slots: Sequence[Stored | None]) -> bytes:
    """Return the line of a conversation, without a line break.

    Args:
        stored: the stored conversation.
        slots: its stored messages in order, with None for a place that holds none.

    Raises:
        CorruptDocumentError: a document is not what convostore stores.
    """
    conversation = ConversationDocument.from_dict(stored)
    imported = Imported.of(stored)
    told = _told(conversation, imported.at if imported else None)
    others = imported.others if imported else {}
    content = {name: {**others, **told}.get(name) for name in _FIRST[:2] if name in told or name in others}
    content["messages"] = _write_messages(conversation, slots, imported)
    content.update((name, value) for name, value in told.items() if name not in _FIRST)
    content.update((name, value) for name, value in others.items() if name not in content)
    if imported and imported.unnamed:
        content = _without_name(content, others)
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _write_messages(
    conversation: ConversationDocument, slots: Sequence[Stored | None], imported: Imported | None
) -> list[Content]:
    frame = Frame(conversation.conversation_id, imported.at if imported else None)
    bare = frozenset(imported.bare if imported else ())
    entries = []
    for slot in slots:
        if slot is None:
            entries.append(write_gap(conversation.created_at))
        else:
            entries.append(write_entry(slot, frame, bare=slot["sequence"] in bare))
    return entries


def _without_name(content: Content, others: Content) -> Content:
    # The name can be left out as long as it would be made of the line again.
    unnamed = {name: value for name, value in content.items() if name != "conversation_id"}
    if "conversation_id" in others:
        unnamed = {"conversation_id": None, **unnamed}
    return unnamed if unnamed_id(content_digest(unnamed)) == content["conversation_id"] else content
