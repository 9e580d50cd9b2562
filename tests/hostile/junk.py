"""Values that nobody expects, as hypothesis draws them."""

import collections
import decimal
import enum
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

from bson import Code, DBRef, Int64, ObjectId, Regex
from hypothesis import strategies as st

from convostore import MessageDocument, Pagination

FIELDS = [
    *("user_id", "conversation_id", "status", "channel", "assignee", "tags", "start_date", "end_date", "search"),
    *("role", "delivery_status", "external_id", "content", "payload", "usage", "tenant_id", "$or", "a.b", "", "self"),
]


class HalfwayError(Exception):
    """What a caller's own iterator or mapping raises: his error, which may reach him as it is."""


def halfway() -> Iterator[Any]:
    """Yield something, then fail."""
    yield MessageDocument.user("x")
    raise HalfwayError


class FailingMapping(Mapping[str, Any]):
    """A mapping that cannot be read to its end."""

    def __getitem__(self, key: str) -> Any:
        raise HalfwayError

    def __iter__(self) -> Iterator[str]:
        return iter(("user_id", "a"))

    def __len__(self) -> int:
        return 2


class Text(str):
    """Text of a class of its own."""

    __slots__ = ()


class Number(int):
    """A number of a class of its own."""


class Colour(enum.IntEnum):
    """A number that is no number."""

    RED = 1


def nested(depth: int) -> list[Any]:
    """Return lists in lists."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list[Any]:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


NUMBERS: list[Any] = [
    *(0, 1, -1, 2**31 - 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**400, True, False),
    *(0.0, -0.0, 0.5, 1e-320, 1e308, float("nan"), float("inf"), float("-inf")),
    *(Number(7), Colour.RED, Int64(5), decimal.Decimal("1.5"), decimal.Decimal("NaN"), 1j),
]
TEXTS: list[Any] = [
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\n",
        "\x85",
        "\ud800",
        "\udfff\ud800",
        "a:b",
        "%",
        "%3A",
        "{x}",
        "{",
        "}",
        "*",
        "?",
        "[a-z]",
    ),
    *("$where", "$ne", ".", "a.b", "..", "_id", "'", '"', "\\", ";", "--", "é", "\u202e", "🙂", "ß" * 256, "x" * 257),
    *(
        "x" * 300_000,
        "null",
        "NaN",
        "1",
        "-1",
        "1e999",
        "60/minute",
        "5/",
        "9 per calendar day",
        "(" * 500,
        Text("own"),
    ),
]
MOMENTS: list[Any] = [
    *(datetime.min, datetime.max, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),  # noqa: DTZ901
    *(datetime.max.replace(tzinfo=timezone(timedelta(hours=-14))), date(2026, 1, 1), timedelta(days=1)),
    datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
]
OBJECTS: list[Any] = [
    *(None, object(), object, len, Exception("x"), uuid.UUID(int=5), b"", b"x", bytearray(b"x"), memoryview(b"x")),
    *(Code("1"), Regex("x"), ObjectId(b"0" * 12), DBRef("a", 1), Pagination(), MessageDocument.user("x")),
    *(Pagination(page=2**30, page_size=100), Pagination(sort_by="$x"), Pagination(sort_order="up")),  # type: ignore[arg-type]
    *({"$ne": None}, {"$gt": ""}, {1: 2}, {"a": b"x"}, {"\0": 1}, {"\ud800": 1}, {(): ()}, FailingMapping()),
    *([], (), {}, set(), {1}, frozenset("a"), [[]], [()], [None], [("a",)], [("a", "5/minute", 1)], range(3)),
    *([("a", "5/minute")] * 2, [("a", "5/minute")] * 99, collections.OrderedDict(a=1), collections.deque([1])),
    *(nested(101), nested(5000), endless(), {"a": endless()}, {"a": nested(101)}, ["x" * 300_000], "x", ["\ud800"]),
]
LAZY = [halfway, lambda: iter(()), lambda: iter("ab"), lambda: (each for each in [5])]

scalars = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(TEXTS), st.sampled_from(MOMENTS), st.text(max_size=20), st.integers()
)
junk = st.one_of(
    scalars,
    st.sampled_from(OBJECTS),
    st.sampled_from(LAZY).map(lambda make: make()),
    st.dictionaries(st.sampled_from(FIELDS), st.one_of(scalars, st.sampled_from(OBJECTS)), max_size=3),
    st.lists(st.tuples(scalars, scalars), max_size=3),
    st.lists(st.lists(scalars, max_size=2), max_size=2),
)
