"""The cell: how a cached value lies in Redis, and when it is time to refresh it. ``cache_cell.lua`` is its other half.

Layout: the header that the scripts read, then how many tags the value has, the generation of each, and its bytes.
"""

import math
import struct
from typing import NamedTuple

_HEADER = struct.Struct(">2scQ8s8sQQIB")  # the last byte belongs to the part that the scripts pass on unread
_MAGIC = b"\xc5\x01"  # the second byte is the version of this layout
GENERATION_BYTES = 8
MAX_TAGS = 32
VALUE, NOTHING, TOMBSTONE = b"V", b"N", b"T"
_STAMP = slice(11, 19)
_LONGEST_DRAW = 37.0  # no random number of 53 bits has a larger negative logarithm


class Cell(NamedTuple):
    """A cell that holds a value, or the knowledge that there is nothing.

    Attributes:
        is_negative: whether it says that there is nothing.
        version: of the value.
        stamp: tells this value from every other that was ever there.
        expires: the moment when it ends, in microseconds of the server's clock.
        cost: microseconds that loading it took.
        generations: those of its tags, joined, as they were before it was loaded.
        data: its bytes.
    """

    is_negative: bool
    version: int
    stamp: bytes
    expires: int
    cost: int
    generations: bytes
    data: bytes

    @classmethod
    def parse(cls, stored: object) -> "Cell | None":
        """Return the cell, or None for a tombstone, for nothing, and for whatever somebody else put there."""
        if type(stored) is not bytes or len(stored) < _HEADER.size:
            return None
        magic, kind, version, stamp, _, _, expires, cost, tags = _HEADER.unpack_from(stored)
        start = _HEADER.size + tags * GENERATION_BYTES
        if magic != _MAGIC or kind not in (VALUE, NOTHING) or start > len(stored):
            return None
        return cls(kind == NOTHING, version, stamp, expires, cost, stored[_HEADER.size : start], stored[start:])

    def is_due(self, now: int, beta: float, random: float) -> bool:
        """Say whether to refresh it now, before it ends.

        XFetch: each reader draws how far he looks ahead, in the scale of what loading costs, so that of many readers
        about one begins in time. Vattani, Chierichetti, Lowenstein: "Optimal Probabilistic Cache Stampede
        Prevention", VLDB 2015.

        Args:
            now: microseconds of the server's clock.
            beta: scales how far ahead; 1 is the optimum.
            random: a draw from the interval from 0 to below 1.
        """
        scale = beta * self.cost
        left = self.expires - now
        return left < scale * _LONGEST_DRAW and left <= -scale * math.log(1.0 - random)


def is_foreign(stored: object) -> bool:
    """Say whether something is there that is no cell of this layout."""
    if type(stored) is not bytes:
        return stored is not None
    size = _HEADER.size - 1
    return len(stored) < size or stored[:2] != _MAGIC or (stored[2:3] != TOMBSTONE and Cell.parse(stored) is None)


def stamp_of(stored: bytes) -> bytes:
    """Return the stamp of what the scripts take for a value, also where its rest cannot be read."""
    return stored[_STAMP]


def body(generations: bytes, data: bytes) -> bytes:
    """Return what follows the header that a script makes."""
    return bytes((len(generations) // GENERATION_BYTES,)) + generations + data
