"""Properties of identities and plain data, without a server."""

import json
from typing import Any

from bson import BSON
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import identifiers, plain_data, refusal

from convostore.models.identity import AFTER_SEPARATOR, SEPARATOR, check_identifier, escape, join, split
from convostore.models.mongo.message_model import MessageDocument, sequence_key
from convostore.models.plain_data import check_plain_data, escape_keys, needs_escape, unescape_keys

components = st.lists(identifiers, min_size=1, max_size=4).map(tuple)


@given(components)
@example(("a", "b"))
@example(("a:b",))
@example(("%3A",))
@example(("a%", "3Ab"))
def test_joining_can_be_undone(parts: tuple[str, ...]) -> None:
    assert split(join(*parts)) == parts


@given(components, components)
@example(("a:b", "c"), ("a", "b:c"))
@example(("a%3Ab",), ("a:b",))
def test_different_components_make_different_identities(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (join(*one) == join(*other)) == (one == other)


@given(components, components)
@example(("a",), ("a", "b"))
@example(("a",), ("ab", "c"))
@example(("a",), ("a;", "c"))
def test_a_range_holds_exactly_what_lies_below_a_prefix(prefix: tuple[str, ...], other: tuple[str, ...]) -> None:
    start, identity = join(*prefix).encode(), join(*other).encode()
    within = start + SEPARATOR.encode() <= identity < start + AFTER_SEPARATOR.encode()
    assert within == (len(other) > len(prefix) and other[: len(prefix)] == prefix)


@given(identifiers)
def test_an_escaped_component_has_no_character_with_a_meaning(component: str) -> None:
    assert not set(escape(component)) & set(":{}")


@given(st.integers(1, 10**10 - 1), st.integers(1, 10**10 - 1))
def test_the_order_of_sequences_is_the_order_of_their_identities(one: int, other: int) -> None:
    assert (sequence_key(one) < sequence_key(other)) == (one < other)
    assert (MessageDocument.identify("c", one) < MessageDocument.identify("c", other)) == (one < other)


@given(st.one_of(st.text(st.characters(), max_size=300), st.none(), st.integers(), st.binary(), st.lists(st.text())))
def test_an_identifier_is_what_it_was_or_refused(value: Any) -> None:
    control = isinstance(value, str) and any(ord(ch) < 32 or 127 <= ord(ch) < 160 for ch in value)
    surrogate = isinstance(value, str) and any(0xD800 <= ord(ch) < 0xE000 for ch in value)
    valid = isinstance(value, str) and 1 <= len(value) <= 256 and not control and not surrogate
    error = refusal(lambda: check_identifier(value, "field"))
    assert (error is None) == valid
    assert error is None or error.field == "field"


@given(plain_data)
def test_escaped_data_can_be_stored_by_the_driver_and_comes_back_the_same(value: Any) -> None:
    check_plain_data(value, "field")
    escaped = escape_keys(value)
    assert unescape_keys(escaped) == value
    if not needs_escape(value):
        assert escaped == value
    decoded = BSON.encode({"value": escaped}).decode()["value"]
    assert json.dumps(unescape_keys(decoded)) == json.dumps(value)
    check_plain_data(unescape_keys(decoded), "field")


@given(plain_data)
def test_what_is_stored_has_no_key_that_the_driver_or_server_would_take_for_something_else(value: Any) -> None:
    def keys(inner: Any) -> list[str]:
        if isinstance(inner, dict):
            return [*inner, *(key for item in inner.values() for key in keys(item))]
        return [key for item in inner for key in keys(item)] if isinstance(inner, list) else []

    assert not [key for key in keys(escape_keys(value)) if key.startswith("$")]


@given(st.recursive(st.one_of(st.binary(), st.complex_numbers(), st.integers(min_value=2**63)), st.lists))
def test_what_is_no_plain_data_is_refused_by_its_path(value: Any) -> None:
    holds_something = "[]" not in repr(value)
    error = refusal(lambda: check_plain_data({"key": value}, "field"))
    assert error is not None or not holds_something
    assert error is None or str(error.field).startswith("field")


@given(st.integers(1, 200))
def test_data_may_be_nested_to_a_depth_that_the_server_takes(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value] if depth % 2 else {"a": value}
    error = refusal(lambda: check_plain_data(value, "field"))
    assert (error is None) == (depth <= 100)
    if error is None:
        BSON.encode({"value": value})
    else:
        assert error.field == "field"
