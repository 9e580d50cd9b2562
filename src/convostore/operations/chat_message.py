"""Messages of the chat format: from one entry of a line's ``messages`` to a message, and back.

A field of our own (``OWN``) that is not null is taken as such; everything else stays in the payload as it came, and so
does a ``content`` that is not text. The text of such a content is that of its parts.

A payload that could be mistaken for fields of our own is written whole under ``payload``; an entry that has nothing
else beside our fields, and needs that, is read so.

A deleted message has ``deleted_at`` and no content; its entry keeps the place, so that no other message changes its
sequence. What an interrupted batch has left is written in the same way.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec

from convostore.models.mongo.message_model import MessageDocument, TokenUsage, sequence_key
from convostore.models.plain_data import check_text
from convostore.models.types import MessageRole, to_utc_milliseconds
from convostore.repositories.appending import batch_digest
from convostore.repositories.exceptions import ValidationError

PAYLOAD = "payload"
DIGEST = "idempotency_digest"  # stored beside a key; tells a message that is sent again from another one
_ALWAYS = frozenset({"role", "content"})
_TIMES = ("created_at", "edited_at", "deleted_at")
_FIELDS = ("message_id", "external_id", "idempotency_key", "delivery_status", "usage")
OWN = frozenset({*_ALWAYS, *_TIMES, *_FIELDS, DIGEST})
_SPELLED = frozenset({*_TIMES, "usage"})
_ROLES = tuple(str(role) for role in MessageRole)
_PLAIN = frozenset(
    {"_id", "tenant_id", "conversation_id", "sequence", "message_id", "role", "content", "created_at", "version"}
)
_MAX_DIGEST = 64
_LONG = 100_000  # characters; whether a longer text is too long is for the model to say
_ID_DIGITS = 22

Entry = dict[str, Any]
Stored = dict[str, Any]

slot_name = lru_cache(maxsize=1024)(sequence_key)  # nearly all conversations are shorter


class PlainEntry(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """An entry of the most common kind: a known role, a text, and nothing else; the fields in their canonical order."""

    content: Annotated[str, msgspec.Meta(min_length=1, max_length=_LONG)]
    role: Literal[_ROLES]  # type: ignore[valid-type]


class Frame:
    """What the messages of a conversation have in common.

    Args:
        conversation_id: the conversation.
        at: the moment that stands for a time that nobody told; None where all times were.
    """

    __slots__ = ("at", "at_stored", "conversation_id", "prefix")

    def __init__(self, conversation_id: str, at: datetime | None) -> None:
        self.conversation_id = conversation_id
        self.at = at
        self.at_stored = None if at is None else at.replace(tzinfo=None)
        self.prefix = hashlib.sha256(conversation_id.encode()).hexdigest()[:_ID_DIGITS]

    def is_at(self, stored: Any) -> bool:
        """Say whether a stored moment, which may lack its time zone, is the one that nobody told."""
        return stored is not None and stored in (self.at_stored, self.at)

    def message_id(self, sequence: int) -> str:
        """Return the id of a message that came without one."""
        return self.prefix + slot_name(sequence)


def read_plain(entries: Iterable[PlainEntry], frame: Frame, first: int = 1) -> list[Stored]:
    """Do what ``read_entry`` does for plain entries, the first of which has a sequence, in a tenth of the time."""
    conversation_id, at, prefix = frame.conversation_id, frame.at_stored, frame.prefix
    return [
        {
            "_id": (name := slot_name(sequence)),
            "conversation_id": conversation_id,
            "sequence": sequence,
            "message_id": prefix + name,
            "role": entry.role,
            "content": entry.content,
            "created_at": at,  # without its time zone: the driver would take a quarter of its time to subtract that
            "version": 1,
        }
        for sequence, entry in enumerate(entries, first)
    ]


def read_entry(entry: Any, sequence: int, frame: Frame) -> Stored:
    """Return the message of an entry in its stored form, without the tenant; ``_id`` is its name in the conversation.

    Raises:
        ValidationError: names the field of the entry that is not valid.
    """
    if type(entry) is not dict:
        raise ValidationError("value: must be an object", "value")
    return (
        read_plain([PlainEntry(**entry)], frame, sequence)[0] if is_plain(entry) else _read_any(entry, sequence, frame)
    )


def is_plain(entry: Entry) -> bool:
    """Say whether an entry is of the most common kind."""
    if entry.keys() != _ALWAYS:
        return False
    role, content = entry["role"], entry["content"]
    return role in _ROLES and type(content) is str and 0 < len(content) <= _LONG and _is_encodable(content)


def _is_encodable(text: str) -> bool:
    try:
        check_text(text, "content")
    except ValidationError:
        return False
    return True


def _read_any(entry: Entry, sequence: int, frame: Frame) -> Stored:
    own = {name: value for name, value in entry.items() if value is not None and name in OWN}
    rest = {name: value for name, value in entry.items() if name not in own}
    content, payload = _read_content(own, rest)
    digest = own.pop(DIGEST, None)
    message = MessageDocument(
        **_typed(own, frame, sequence),
        content=content,
        payload=payload,
        conversation_id=frame.conversation_id,
        sequence=sequence,
    )
    _check_blank(message)
    beside = _checked_digest(message, digest)
    named = {"_id": slot_name(sequence), **message.to_dict()}
    return named if beside is None else {**named, DIGEST: beside}


def _read_content(own: Entry, rest: Entry) -> tuple[str, Entry | None]:
    content = own.pop("content", "")
    if type(content) is str:
        check_text(content, "content")
        inner = _inner(rest)
        wrapped = inner is not None and _needs_wrapping(inner, {*own, *_ALWAYS})
        return content, inner if wrapped else rest or None
    if type(content) is not list:
        raise ValidationError("content: must be text, null or a list of parts", "content")
    return text_of(content), {"content": content, **rest}


def _typed(own: Entry, frame: Frame, sequence: int) -> Entry:
    fields = {**own, **{name: read_moment(own[name], name) for name in _TIMES if name in own}}
    if "usage" in own:
        fields["usage"] = _usage(own["usage"])
    fields.setdefault("message_id", frame.message_id(sequence))
    fields.setdefault("created_at", frame.at)
    return fields


def _usage(value: Any) -> TokenUsage:
    if type(value) is not dict:
        raise ValidationError("usage: must be an object", "usage")
    try:
        return TokenUsage(**value)
    except ValidationError as error:
        raise ValidationError(f"usage.{error}", "usage") from None


def _check_blank(message: MessageDocument) -> None:
    if message.is_deleted and (message.content or message.payload):
        raise ValidationError("deleted_at: a deleted message has no content", "deleted_at")


def _checked_digest(message: MessageDocument, given: Any) -> str | None:
    if given is not None and (type(given) is not str or not given.isalnum() or len(given) > _MAX_DIGEST):
        raise ValidationError(f"{DIGEST}: must be a digest", DIGEST)
    if message.idempotency_key is None:
        if given is not None:
            raise ValidationError(f"{DIGEST}: there is no idempotency_key", DIGEST)
        return None
    return given or batch_digest([message])


def write_entry(stored: Stored, frame: Frame, *, bare: bool = False) -> Entry:
    """Return the entry of a stored message.

    Args:
        stored: the message.
        frame: of its conversation.
        bare: it came without ``content``.

    Raises:
        CorruptDocumentError: it is not what convostore stores.
    """
    entry = _write_plain(stored, frame) or _write_any(stored, frame)
    if bare and entry["content"] == "":
        del entry["content"]
    return entry


def _write_plain(stored: Stored, frame: Frame) -> Entry | None:
    if not frame.is_at(stored.get("created_at")) or not stored.keys() <= _PLAIN:
        return None
    role, content, message_id = stored.get("role"), stored.get("content", ""), stored.get("message_id")
    plain = role in _ROLES and type(content) is str and message_id == frame.message_id(stored["sequence"])
    return {"role": role, "content": content} if plain else None


def _write_any(stored: Stored, frame: Frame) -> Entry:
    message = MessageDocument.from_dict(stored)
    beside = _own_fields(message, frame)
    digest = stored.get(DIGEST)
    if digest is not None and "batch" not in stored and digest != batch_digest([message]):
        beside[DIGEST] = digest
    content, payload = _written_content(message, {*beside, *_ALWAYS})
    return {"role": str(message.role), "content": content, **beside, **payload}


def write_gap(at: datetime) -> Entry:
    """Return the entry of a place that never came to hold a message."""
    return {"role": "system", "content": "", "deleted_at": write_moment(at)}


def _own_fields(message: MessageDocument, frame: Frame) -> Entry:
    own = {name: _plain(getattr(message, name)) for name in _FIELDS}
    own.update((name, write_moment(getattr(message, name))) for name in _TIMES if getattr(message, name) != frame.at)
    if message.message_id == frame.message_id(message.sequence):
        own["message_id"] = None
    return {name: value for name, value in own.items() if value is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, TokenUsage):
        return value.model_dump()
    return None if value is None else str(value)


def _written_content(message: MessageDocument, written: set[str]) -> tuple[Any, Entry]:
    payload = message.payload
    if payload is None:
        return message.content, {}
    if "content" in payload and _is_content(payload["content"], message.content):
        rest = {name: value for name, value in payload.items() if name != "content"}
        if not _has_own(rest, written):
            return payload["content"], rest
    wrapped = _needs_wrapping(payload, written)
    return message.content, {PAYLOAD: payload} if wrapped else payload


def _is_content(raw: Any, text: str) -> bool:
    return (raw is None and not text) or (type(raw) is list and text_of(raw) == text)


def _has_own(payload: Entry, written: set[str]) -> bool:
    return any(name in OWN and (value is not None or name in written) for name, value in payload.items())


def _needs_wrapping(payload: Entry, written: set[str]) -> bool:
    """Say whether a payload would be read as something else if it stood beside the other fields."""
    if not payload or _has_own(payload, written):
        return True
    inner = _inner(payload)
    return inner is not None and _needs_wrapping(inner, written)


def _inner(payload: Entry) -> Entry | None:
    inner = payload.get(PAYLOAD) if len(payload) == 1 else None
    return inner if type(inner) is dict else None


def text_of(parts: list[Any]) -> str:
    """Return the text of a content in parts: a line for each that has one."""
    texts = (part.get("text") if type(part) is dict else part for part in parts)
    return "\n".join(text for text in texts if type(text) is str)


def stored_moment(moment: datetime) -> datetime:
    """Return a moment as the database gave it; there every moment is in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def read_moment(value: Any, field: str) -> datetime:
    """Return a moment from its ISO 8601 form with a time zone.

    Raises:
        ValidationError: it is no such text.
    """
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValidationError(f"{field}: must be an ISO 8601 time", field) from None
    if moment.utcoffset() is None:
        raise ValidationError(f"{field}: must have a time zone", field)
    return moment


def settle_times(content: Entry, names: Sequence[str]) -> None:
    """Write the times among the fields of an object as we write them, in place; what is no time stays as it is."""
    for name in names:
        if content.get(name) is not None:
            with suppress(ValueError):
                content[name] = write_moment(to_utc_milliseconds(read_moment(content[name], name)))


def settle_entry(entry: Any) -> None:
    """Bring the times and token counts of an entry into the form in which they are written, in place."""
    if type(entry) is dict and not _SPELLED.isdisjoint(entry):
        settle_times(entry, _TIMES)
        usage = entry.get("usage")
        if type(usage) is dict:
            entry["usage"] = {"input_tokens": 0, "output_tokens": 0, **usage}


def write_moment(moment: datetime | None) -> str | None:
    """Return a moment as it is written: ISO 8601, UTC, milliseconds."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
