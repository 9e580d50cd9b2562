"""A common line is understood as every line is; what is not plainly good is left to the other way."""

import random

import pytest
from bson import encode
from chat_lines import conversation, dump
from hypothesis import given, settings
from hypothesis import strategies as st
from test_chat_format import AT, BAD_LINES, keys, lines, optional, plain, roles, texts, words

from convostore.operations.chat_format import ChatLine
from convostore.operations.common_line import CommonLine

plain_entries = st.fixed_dictionaries({"role": roles, "content": texts.filter(bool)})
common_lines = st.builds(
    lambda first, messages: {**first, "messages": messages},
    optional(conversation_id=words, metadata=st.dictionaries(keys, plain, max_size=4)),
    st.lists(plain_entries, max_size=5),
)
COMMON = {"conversation_id": "c", "metadata": {"a": [1.5, {"b": None}]}, "messages": [{"role": "user", "content": "ä"}]}


def understood(line):
    """Return all that is made of a line, in bytes where 1, 1.0 and True are not the same."""
    read = line.read(AT)
    slots = [encode(slot) for slot in read.slots]
    stored = encode(dict(sorted(read.stored().items())))
    return line.digest, line.conversation_id, stored, slots, read.imported


def agree(text):
    """Say whether a text is common; if so, the other way must make the same of it."""
    common = CommonLine.parse(text)
    if common is not None:
        assert understood(common) == understood(ChatLine.parse(text))
    return common is not None


@settings(max_examples=200, deadline=None)
@given(st.one_of(common_lines, lines))
def test_the_short_way_reads_a_line_as_the_long_way_does(content):
    agree(dump(content))


# What decoders disagree on: numbers, escapes, control characters, spaces, doubled names, bytes that are no text.
_PIECES = [
    b"\\u0000",
    b"\\ud800",
    b"\\ud83d\\ude00",
    b"\\/",
    b"\x00",
    b"\t",
    b"\x7f",
    b"\x0c",
    b"\xff",
    b"\xed\xa0\x80",
]
_PIECES += [b'"', b"{", b"}", b"[", b"]", b":", b",", b'"a":-0', b"1e999", b"1E5", b"1.0", b"01", b"9" * 20, b"NaN"]
_PIECES += [b'"role":"user"', b'"content":"x"', b',"metadata":{"a":1}', b'"conversation_id":null', b"$", b"true", b""]


@settings(max_examples=1000, deadline=None)
@given(common_lines, st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), st.sampled_from(_PIECES)), max_size=3))
def test_the_ways_agree_on_texts_that_are_damaged(content, changes):
    text = dump(content)
    for place, length, piece in changes:
        at = int(place * len(text))
        text = text[:at] + piece + text[at + length :]
    agree(text)


GOOD_NUMBERS = [
    "-0",
    "-0.0",
    "1.0",
    "1e5",
    "1E-400",
    "5e-324",
    "0.1",
    "123456789012345678901.5",
    "-9223372036854775808",
]
BAD_NUMBERS = ["9223372036854775808", "18446744073709551616", "1E400", "01", "1.", "+1", "NaN", "-Infinity"]


@pytest.mark.parametrize("number", GOOD_NUMBERS + BAD_NUMBERS)
def test_the_ways_agree_on_numbers(number):
    text = b'{"conversation_id":"c","metadata":{"n":[%b]},"messages":[]}' % number.encode()
    assert agree(text) == (number in GOOD_NUMBERS)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_ways_agree_on_fractions(number):
    assert agree(dump({"metadata": {"n": number}, "messages": []}))


def test_common_is_what_is_common_and_nothing_else():
    assert agree(dump(COMMON))
    assert agree(dump({"messages": []}))
    assert agree(dump({"messages": COMMON["messages"] * 100_000}))
    assert agree(b' {"messages" : [ {"content":"x", "role":"user"} ] , "conversation_id" : "c"}\r\n')
    for change in (
        {"title": "t"},
        {"x": 1},
        {"metadata": {}},
        {"metadata": None},
        {"metadata": {"$a": 1}},
        {"metadata": {"a": {"%b": 1}}},
        {"conversation_id": None},
        {"messages": [{"role": "user", "content": "a", "name": "n"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": "a" * 100_001}]},
    ):
        assert not agree(dump({**COMMON, **change})), change


@pytest.mark.parametrize("text", [text for text, _ in BAD_LINES], ids=[str(n) for n in range(len(BAD_LINES))])
def test_a_bad_line_is_never_common(text):
    assert CommonLine.parse(text) is None


@pytest.mark.parametrize("name", ["", "a\n", "x" * 257, "\x7f", "\u200b", "\ue000"])
def test_a_doubtful_name_is_for_the_model_to_judge(name):
    text = dump({**COMMON, "conversation_id": name})
    assert CommonLine.parse(text) is None


def test_nearly_all_lines_of_an_ordinary_file_are_common():
    assert all(agree(dump(conversation(random.Random(n).randrange(10**6)))) for n in range(50))
