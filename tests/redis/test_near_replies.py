"""What is kept in the process is bounded, and no reply is kept that something was said about meanwhile."""

import pytest

from convostore.gateways.near_replies import NearReplies

ROOM = 10_000


@pytest.fixture
def replies():
    return NearReplies(ROOM)


def keep(replies, key, reply=b"reply"):
    replies.answer(key, replies.ask(key), reply)


def test_a_reply_is_kept_until_it_is_forgotten(replies):
    keep(replies, "a")
    keep(replies, "b")
    replies.forget(["a", "unknown"])
    assert (replies.get("a"), replies.get("b")) == (None, b"reply")
    replies.forget_everything()
    assert (replies.get("b"), len(replies), replies.size) == (None, 0, 0)


@pytest.mark.parametrize("forget", [lambda it: it.forget(["a"]), lambda it: it.forget_everything()])
def test_a_reply_is_refused_if_its_key_was_forgotten_since_it_was_asked_for(replies, forget):
    right = replies.ask("a")
    forget(replies)
    replies.answer("a", right, b"old")
    assert replies.get("a") is None
    later = replies.ask("a")
    replies.answer("a", right, b"old")
    assert replies.get("a") is None
    replies.answer("a", later, b"new")
    assert replies.get("a") == b"new"


def test_who_asks_for_the_same_key_shares_the_right_and_nothing_is_left_of_it(replies):
    first, second = replies.ask("a"), replies.ask("a")
    replies.answer("a", first, None)
    replies.answer("a", second, b"reply")
    assert replies.get("a") is None
    assert replies._asked == {}


def test_what_is_no_value_is_not_kept(replies):
    for reply in (None, b"x" * ROOM, 7):
        keep(replies, "a", reply)
        assert replies.get("a") is None
    assert replies.size == 0


def test_the_least_recently_used_are_given_up(replies):
    keys = [f"key-{number}" for number in range(1000)]
    for key in keys:
        keep(replies, key, b"x" * 100)
        replies.get(keys[0])
        assert replies.size <= ROOM
    assert replies.get(keys[0]) is not None
    assert [replies.get(key) is not None for key in keys[-5:]] == [True] * 5
    assert replies.get(keys[1]) is None
    assert replies.size == sum(200 + len(key) + 100 for key in replies._replies)


def test_a_key_that_is_kept_again_is_counted_once(replies):
    keep(replies, "a", b"x" * 100)
    keep(replies, "a", b"y")
    assert (replies.get("a"), replies.size) == (b"y", 202)
