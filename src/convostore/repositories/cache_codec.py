"""Codecs: from a value to the bytes of a cell and back. Data only, never code: no pickle."""

from typing import Any, Generic, Protocol, TypeVar

import msgspec

from convostore.models.document import Document

T = TypeVar("T")
D = TypeVar("D", bound=Document)


class Codec(Protocol[T]):
    """Turns values into bytes and back. Whatever it raises counts as a value that cannot be cached, or as a miss."""

    def encode(self, value: T) -> bytes:
        """Return the bytes of a value."""
        ...

    def decode(self, data: bytes) -> T:
        """Return the value of bytes that ``encode`` made; those of anybody else must raise."""
        ...


class PlainCodec:
    """Plain data as MessagePack.

    None, bool, int of 64 bits, float, str, bytes, list, dict and datetime with a time zone come back as they were, a
    datetime in UTC. What is close to plain data comes back in its plain form: a tuple as a list, a datetime without a
    time zone as text.
    """

    encode = staticmethod(msgspec.msgpack.Encoder().encode)
    decode = staticmethod(msgspec.msgpack.Decoder().decode)


class DocumentCodec(Generic[D]):
    """Documents in the form in which the database has them.

    Args:
        document_class: what they are.
    """

    def __init__(self, document_class: type[D]) -> None:
        self._class = document_class

    def encode(self, value: D) -> bytes:
        """Return the bytes of a document; its tenant, which the key names as well, stays in it."""
        return PlainCodec.encode(value.to_dict())

    def decode(self, data: bytes) -> D:
        """Return the document of bytes.

        Raises:
            CorruptDocumentError: a field is missing or not valid.
        """
        stored: Any = PlainCodec.decode(data)
        return self._class.from_dict(stored)
