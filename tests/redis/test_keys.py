"""P7, P8 of keys: no two identities share one, and one tag decides the slot."""

import re

from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from convostore.models import keys as keys_module
from convostore.models.keys import component, digest, redis_key

# Small alphabets, so that components that differ by what has a meaning in a key meet each other.
TRICKY = st.text(st.sampled_from("a:{}%~*?[]\\ 2537AB\x00é€😀"), max_size=8)
LONG = st.text(st.sampled_from("ab:%é€"), min_size=1, max_size=3).map(lambda text: text * 60)
COMPONENT = TRICKY | LONG | st.text(max_size=300).filter(lambda text: text.isprintable())
KIND = st.sampled_from(["session", "limit", "cache"])
IDENTITY = st.tuples(
    KIND, st.lists(COMPONENT, min_size=1, max_size=3).map(tuple), st.lists(COMPONENT, max_size=3).map(tuple)
)


def key_of(identity):
    kind, tag, rest = identity
    return redis_key(kind, tag, *rest)


@given(IDENTITY, IDENTITY)
@example(("a", ("x", "y"), ()), ("a", ("x",), ("y",)))
@example(("a", ("x:y",), ()), ("a", ("x", "y"), ()))
@example(("a", ("x",), ("y:z",)), ("a", ("x",), ("y", "z")))
@example(("a", ("%3A",), ()), ("a", (":",), ()))
@example(("a", ("",), ()), ("a", ("", ""), ()))
@example(("a", ("x",), ()), ("a", ("x",), ("",)))
@example(("a", ("y" * 200,), ()), ("a", ("%~" + digest("y" * 200),), ()))
def test_different_identities_have_different_keys(one, other):
    assert (key_of(one) == key_of(other)) == (one == other)


@given(IDENTITY)
def test_a_key_has_one_tag_that_is_not_empty(identity):
    key = key_of(identity)
    tags = re.findall(r"\{(.*?)\}", key, re.DOTALL)
    assert len(tags) == 1
    assert tags[0] or identity[1] == ("",), "only a tag of one empty component is empty, and ids are not"
    assert key.count("{") == key.count("}") == 1
    assert len(key.encode()) < 700 + len(identity[0])


@given(KIND, KIND, st.lists(COMPONENT, min_size=1, max_size=3).filter(any), COMPONENT, COMPONENT)
def test_keys_with_one_tag_lie_on_one_slot(kind, other_kind, tag, rest, other_rest):
    keys = [redis_key(kind, tuple(tag), rest), redis_key(other_kind, tuple(tag), other_rest, rest)]
    assert len({key_slot(key.encode()) for key in keys}) == 1


@given(COMPONENT)
def test_a_component_is_short_and_holds_nothing_with_a_meaning(text):
    shown = component(text)
    assert len(shown.encode()) <= keys_module.LONGEST_COMPONENT
    assert not set(shown) & set(":{}")


def test_tags_spread_over_the_slots():
    slots = {key_slot(redis_key("session", ("acme", f"user-{number}")).encode()) for number in range(1_000)}
    assert len(slots) > 900


def test_a_hash_is_43_characters_for_256_bits():
    assert len(digest("x")) == 43
    assert digest("x") != digest("y")
