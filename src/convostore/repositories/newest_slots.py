"""The newest slots of a message log as they lie in a cell, and what can be told of the log from them.

A log is dense, so they are the slots from ``sequence`` back without a gap, deleted messages and whatever else stands in
a place among them; only so does ``sequence`` say what they cover (``newest_cache``). Layout, which ``cache_extend.lua``
knows as well: the sequence of the last, how many they are, an entry of four bytes for each, their contents one behind
the other. An entry is a mark and the length of the content: a message in its stored form as MessagePack, so a page is
the end of the contents, decoded as one.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Self

import msgspec

from convostore.gateways.tenant_collection import Stored
from convostore.models.mongo.message_model import MessageDocument
from convostore.models.stored_form import ESCAPED, put_into_utc
from convostore.repositories.slots import Slot

KEPT = 100  # slots
KEPT_BYTES = 512 * 1024  # of their contents
ENTRY = struct.Struct(">I")
_LENGTHS = 2**24
_SHOWN, _DELETED, _HIDDEN, _OTHER = range(4)  # hidden is what is left of a batch, other what is no message
_HEAD = struct.Struct(">QI")
_ARRAY = struct.Struct(">BI")
_ARRAY_MARK = 0xDD
_FIELDS = frozenset({*MessageDocument.model_fields, ESCAPED}) - MessageDocument.transient_fields

Unpack = Callable[[bytes], list[MessageDocument] | None]


class Run(NamedTuple):
    """A page of messages.

    Attributes:
        messages: the oldest first.
        more: whether there may be messages before them.
    """

    messages: list[MessageDocument]
    more: bool


class NewestSlots(NamedTuple):
    """The newest slots of one log.

    Attributes:
        sequence: of the last; 0 if there are none.
        entries: one for each.
        contents: theirs, joined.
    """

    sequence: int
    entries: tuple[int, ...]
    contents: bytes

    @classmethod
    def of(cls, newest_first: Sequence[Stored]) -> Self | None:
        """Return slots as the log has them, or None if they cannot be kept."""
        found = [Slot(stored) for stored in reversed(newest_first)]
        first = found[0].sequence if found else 1
        if [slot.sequence for slot in found] != list(range(first, first + len(found))):
            return None
        try:
            parts = _parts(found)
        except (TypeError, ValueError):
            return None  # somebody else has put there what no message holds
        return cls(first + len(found) - 1, *_fitting(parts))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the slots of what ``pack`` has made, or a script out of it.

        Raises:
            ValueError, struct.error: it is something else.
        """
        sequence, count = _HEAD.unpack_from(data)
        entries = struct.unpack_from(f">{count}I", data, _HEAD.size)
        contents = data[_HEAD.size + count * ENTRY.size :]
        if sum(entries) % _LENGTHS != len(contents):
            raise ValueError("lengths and contents differ")
        return cls(sequence, entries, contents)

    def pack(self) -> bytes:
        """Return the layout in a cell."""
        return _HEAD.pack(self.sequence, len(self.entries)) + self.packed_entries() + self.contents

    def packed_entries(self) -> bytes:
        """Return the entries as they lie in a cell."""
        return struct.pack(f">{len(self.entries)}I", *self.entries)

    def page(self, limit: int, unpack: Unpack, *, include_deleted: bool = False, short: bool = False) -> Run | None:
        """Return the newest messages as the log would tell them, or None if that cannot be known from here.

        Args:
            limit: at most so many.
            unpack: decodes stored forms.
            include_deleted: also show the places of deleted messages.
            short: rather than none, fewer than the log would tell.
        """
        newest = self.entries[-limit - 1 :]
        if len(newest) > limit and max(newest) < _LENGTHS:  # nearly always: there is nothing but messages
            return _run(limit, self.contents[len(self.contents) - sum(newest[1:]) :], unpack, more=True)
        found, more = self._found(limit, {_SHOWN, _HIDDEN, _DELETED} if include_deleted else {_SHOWN, _HIDDEN})
        if more is None and not short:
            return None
        if not found and more is not False:
            return None  # the log would look further back
        return _run(len(found), b"".join(reversed(found)), unpack, more=more is not False)

    def _found(self, limit: int, wanted: set[int]) -> tuple[list[bytes], bool | None]:
        """Return contents, the newest first, and whether there are more, if that is known."""
        found: list[bytes] = []
        end, matching = len(self.contents), 0
        for entry in reversed(self.entries):
            mark, length = divmod(entry, _LENGTHS)
            end -= length
            if mark not in wanted:
                continue
            if matching == limit:
                return found, True
            matching += 1
            if mark != _HIDDEN:
                found.append(self.contents[end : end + length])
        return found, False if self.sequence == len(self.entries) else None


class NewestCodec:
    """Newest slots as bytes and back."""

    def encode(self, value: NewestSlots) -> bytes:
        """Return the bytes of slots."""
        return value.pack()

    def decode(self, data: bytes) -> NewestSlots:
        """Return the slots of bytes; those of anybody else raise."""
        return NewestSlots.parse(data)


def slots_of(messages: Sequence[MessageDocument]) -> NewestSlots:
    """Return messages that were just appended, one behind the other."""
    parts = [(_SHOWN, _packed(message.to_dict())) for message in messages]
    return NewestSlots(messages[-1].sequence, *_joined(parts))


def _parts(slots: Sequence[Slot]) -> list[tuple[int, bytes]]:
    """Return the mark and the content of each."""
    whole = {slot.batch_id for slot in slots if slot.ends_its_batch}
    return [_part(slot, is_whole=slot.batch_id is None or slot.batch_id in whole) for slot in slots]


def _part(slot: Slot, *, is_whole: bool) -> tuple[int, bytes]:
    is_deleted = bool(slot.stored.get("deleted_at"))
    if slot.kind is not None or (is_deleted and not is_whole):
        return _OTHER, b""
    if not is_whole:
        return _HIDDEN, b""
    fields = {name: value for name, value in slot.stored.items() if name in _FIELDS}
    put_into_utc(fields, MessageDocument.moment_fields)
    return _DELETED if is_deleted else _SHOWN, _packed(fields)


def _packed(fields: Stored) -> bytes:
    return msgspec.msgpack.encode(fields, enc_hook=int)  # the driver has a class of its own for large numbers


def _fitting(parts: list[tuple[int, bytes]]) -> tuple[tuple[int, ...], bytes]:
    """Return the entries and contents of the last of them, as many as may be kept."""
    fitting: list[tuple[int, bytes]] = []
    size = 0
    for part in reversed(parts[-KEPT:]):
        size += len(part[1])
        if size > KEPT_BYTES:
            break
        fitting.append(part)
    return _joined(list(reversed(fitting)))


def _joined(parts: Iterable[tuple[int, bytes]]) -> tuple[tuple[int, ...], bytes]:
    parts = list(parts)
    return tuple(mark * _LENGTHS + len(content) for mark, content in parts), b"".join(content for _, content in parts)


def _run(count: int, contents: bytes, unpack: Unpack, *, more: bool) -> Run | None:
    messages = unpack(_ARRAY.pack(_ARRAY_MARK, count) + contents)
    return None if messages is None else Run(messages, more)
