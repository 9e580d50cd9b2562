"""Each checker finds nothing in a true history, and the planted violation of its kind in a forged one."""

import chaos_checkers as checkers
import pytest
from chaos_checkers import HIDDEN, Truth
from chaos_run import DEADLINES

UNKNOWN = {"error": "ConnectionError", "outcome": "unknown", "retryable": True}
NOT_APPLIED = {"error": "ConnectionError", "outcome": "not applied", "retryable": True}


class Clock:
    """Gives each call a second of its own."""

    def __init__(self):
        self.now = 0.0

    def call(self, op, task="0/w0", seconds=0.5, **facts):
        self.now += 1.0
        return {"op": op, "task": task, "start": self.now, "end": self.now + seconds, "error": None, **facts}


def append(clock, sequence, text, **facts):
    return clock.call("append", log="log", texts=[text], sequences=[sequence], **facts)


def failed(clock, op, how, **facts):
    return {**clock.call(op, **facts), **how}


def the_log(*texts):
    return Truth(logs={"log": list(enumerate(texts, 1))})


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def appended(clock):
    """Two appends, a batch, one unclear that is there, one that is not, one that was refused; the end of a batch."""
    history = [
        append(clock, 1, "a"),
        append(clock, 2, "b"),
        clock.call("append_many", task="1/w0", log="log", texts=["c", "d"], sequences=[3, 4]),
        failed(clock, "append", UNKNOWN, log="log", texts=["e"]),
        failed(clock, "append", UNKNOWN, log="log", texts=["f"]),
        failed(clock, "append", NOT_APPLIED, log="log", texts=["g"]),
    ]
    return history, the_log("a", "b", "c", "d", "e", f"{HIDDEN} 6")


def test_a_true_log_is_in_order(appended):
    assert checkers.check_logs(*appended) == []


@pytest.mark.parametrize(
    ("texts", "finding"),
    [
        (("b", "c", "d"), "a was acknowledged at 1, where b stands"),
        (("a", "b", "c", "d", "e", "a"), "stored twice: a"),
        (("a", "b", "c", "d", "e", "e"), "stored twice: e"),
        (("a", "b", "c", "d", "g"), "g is there, which was said not to be"),
        (("a", "b", "c", "d", "z"), "nobody wrote z at 5"),
    ],
    ids=["lost", "doubled", "unclear and doubled", "applied though it was said not to be", "of nobody"],
)
def test_a_forged_log_is_found_out(appended, texts, finding):
    assert f"log: {finding}" in checkers.check_logs(appended[0], the_log(*texts))


def test_a_gap_in_a_log_is_found(appended):
    history, truth = appended
    slots = [entry for entry in truth.logs["log"] if entry[1] != "e"]
    assert "log: sequence 6 stands where 5 should" in checkers.check_logs(history, Truth(logs={"log": slots}))


def test_messages_of_a_task_out_of_order_are_found(clock):
    history = [append(clock, 2, "a"), append(clock, 1, "b")]
    assert checkers.check_logs(history, the_log("b", "a")) == ["log: messages of process 0/w0 are out of order"]


def test_a_batch_torn_apart_is_found(clock):
    history = [
        clock.call("append_many", log="log", texts=["a", "b"], sequences=[1, 3]),
        append(clock, 2, "c", task="t"),
    ]
    assert any("is not adjacent" in each for each in checkers.check_logs(history, the_log("a", "c", "b")))


def unit(clock, **how):
    facts = {"logs": ["log", "other"], "texts": ["u-a", "u-b"]}
    return clock.call("unit", **facts, sequences=[1, 1]) if not how else failed(clock, "unit", how, **facts)


def test_a_unit_of_work_is_whole(clock):
    both = Truth(logs={"log": [(1, "u-a")], "other": [(1, "u-b")]})
    half = Truth(logs={"log": [(1, "u-a")], "other": []})
    assert checkers.check_units([unit(clock)], both) == checkers.check_logs([unit(clock)], both) == []
    unclear = [unit(clock, **UNKNOWN)]
    assert checkers.check_units(unclear, both) == checkers.check_units(unclear, Truth()) == []
    assert checkers.check_units(unclear, half) == ["half a unit of work is there: ['u-a', 'u-b']"]
    assert "other: u-b was acknowledged at 1, where None stands" in checkers.check_logs([unit(clock)], half)


def keyed(clock, sequence, replayed, task="0/w0"):
    facts = {"log": "log", "texts": ["key-1"], "sequences": [sequence]}
    return clock.call("append_keyed", task=task, replayed=replayed, **facts)


def test_a_key_stands_for_one_message(clock):
    history = [keyed(clock, 1, False), keyed(clock, 1, True, "1/w0"), keyed(clock, 1, True)]
    assert checkers.check_keys(history) == checkers.check_logs(history, the_log("key-1")) == []


def test_a_key_used_twice_is_found(clock):
    history = [keyed(clock, 1, False), keyed(clock, 2, False, "1/w0")]
    assert checkers.check_keys(history) == ["key-1 stands at [1, 2]", "key-1 was stored first 2 times"]
    assert "log: stored twice: key-1" in checkers.check_logs(history, the_log("key-1", "key-1"))


def tail(clock, *seen):
    return clock.call("tail", task="0/r0", log="log", seen=[list(entry) for entry in seen])


def test_a_tail_that_has_seen_all_is_right(clock):
    truth = the_log("a", f"{HIDDEN} 2", "b", "c")
    assert checkers.check_tails([tail(clock, (1, "a")), tail(clock), tail(clock, (3, "b"))], truth) == []


@pytest.mark.parametrize(
    "seen",
    [[(1, "a"), (3, "c")], [(1, "a"), (2, "x")], [(1, "a"), (1, "a")], [(2, "b"), (1, "a")]],
    ids=["late", "changed", "twice", "out of order"],
)
def test_a_tail_that_has_seen_something_else_is_found(clock, seen):
    assert checkers.check_tails([tail(clock, *seen)], the_log("a", "b", "c"))


def change(clock, version, number=None, op="raise", **facts):
    return clock.call(op, register="r", version=version, number=version - 1 if number is None else number, **facts)


def test_a_register_that_loses_nothing_is_right(clock):
    history = [
        change(clock, 2),
        change(clock, 3, op="update", expected=2),
        failed(clock, "raise", UNKNOWN, register="r"),
        change(clock, 3, op="read"),
    ]
    assert checkers.check_registers(history, Truth(registers={"r": (4, 3)})) == []
    assert checkers.check_registers(history, Truth(registers={"r": (3, 2)})) == []


@pytest.mark.parametrize(
    ("changes", "final", "finding"),
    [
        ([(2, 1), (3, 1)], (3, 1), "r at version 3 is 1: a change was lost"),
        ([(2, 1), (2, 1)], (2, 1), "r: version 2 was acknowledged 2 times"),
        ([(2, 1), (3, 2)], (2, 1), "r is 1, after 2 acknowledged and 0 unclear changes"),
        ([(2, 1)], (3, 2), "r is 2, after 1 acknowledged and 0 unclear changes"),
    ],
    ids=["lost", "two writers of a version", "undone", "applied twice"],
)
def test_a_register_that_loses_a_change_is_found(clock, changes, final, finding):
    history = [change(clock, *each) for each in changes]
    assert finding in checkers.check_registers(history, Truth(registers={"r": final}))


def test_a_stale_change_that_was_taken_is_found(clock):
    history = [change(clock, 2), change(clock, 3), change(clock, 4, op="update", expected=2)]
    found = checkers.check_registers(history, Truth(registers={"r": (4, 3)}))
    assert found == ["r: a change of version 2 made version 4"]


def test_a_read_older_than_a_write_that_had_returned_is_found(clock):
    history = [change(clock, 2), change(clock, 1, op="read")]
    truth = Truth(registers={"r": (2, 1)})
    assert checkers.check_reads(history, truth) == ["r: version 1 was read after 2 had been acknowledged"]
    early = {**history[1], "start": 1.2}
    assert checkers.check_reads([history[0], early], truth) == []


def test_a_look_older_than_an_edit_that_had_returned_is_found(clock):
    history = [edit(clock, 2, "x", expected=1), edit(clock, 1, "", op="look")]
    truth = Truth(notes={1: (2, "x")})
    assert checkers.check_reads(history, truth) == ["note 1: version 1 was read after 2 had been acknowledged"]


def edit(clock, version, content, op="edit", **facts):
    return clock.call(op, sequence=1, version=version, content=content, **facts)


def test_a_message_edited_by_one_at_a_time_is_right(clock):
    history = [edit(clock, 2, "x", expected=1), edit(clock, 2, "x", op="look"), edit(clock, 3, "y", expected=2)]
    assert checkers.check_notes(history, Truth(notes={1: (3, "y")})) == []


@pytest.mark.parametrize(
    ("edits", "final", "finding"),
    [
        ([(2, "x", 1), (2, "y", 1)], (2, "y"), "note 1 at version 2 is ['x', 'y']"),
        ([(2, "x", 1), (2, "y", 1)], (2, "y"), "note 1: version 2 was acknowledged 2 times"),
        ([(2, "x", 1), (3, "y", 1)], (3, "y"), "note 1: a change of version 1 made version 3"),
        ([(2, "x", 1), (3, "y", 2)], (2, "x"), "note 1 is at 2 in the end, after 3"),
    ],
    ids=["two contents", "two writers", "stale", "lost"],
)
def test_an_edit_that_is_lost_is_found(clock, edits, final, finding):
    history = [edit(clock, version, content, expected=expected) for version, content, expected in edits]
    assert finding in checkers.check_notes(history, Truth(notes={1: final}))


def session(clock, life=3600.0):
    return clock.call("session_start", session="s", life=life)


def ended(clock):
    return clock.call("session_end", session="s", found=True)


def asked(clock, found):
    return clock.call("session_get", session="s", found=found)


def test_a_session_that_lives_until_its_end_is_right(clock):
    history = [session(clock), asked(clock, True), ended(clock), asked(clock, False)]
    assert checkers.check_sessions(history, Truth()) == []
    assert checkers.check_sessions([session(clock)], Truth(living=frozenset("s"))) == []
    short = [session(clock, life=1.4), asked(clock, True), asked(clock, False)]
    assert checkers.check_sessions(short, Truth()) == []


def test_a_session_that_answers_after_its_end_is_found(clock):
    history = [session(clock), ended(clock), asked(clock, True)]
    assert checkers.check_sessions(history, Truth()) == ["session s answered 0.500 s after its end"]
    assert checkers.check_sessions(history[:2], Truth(living=frozenset("s"))) == ["session s lives again in the end"]


def test_a_session_that_answers_after_it_has_expired_is_found(clock):
    history = [session(clock, life=0.4), asked(clock, True)]
    assert checkers.check_sessions(history, Truth()) == ["session s answered 0.100 s after its end"]


def test_a_session_that_is_lost_is_found(clock):
    history = [session(clock), asked(clock, False)]
    assert checkers.check_sessions(history, Truth()) == ["session s was lost", "session s was lost in the end"]


def admitted(at, degraded=False, allowed=True):
    facts = {"op": "limit", "task": "t", "user": "u", "error": None, "allowed": allowed, "degraded": degraded}
    return {**facts, "start": at, "end": at + 0.01}


def test_no_more_than_the_limit_in_a_window_is_right():
    history = [admitted(at) for at in (0, 0.1, 0.2, 2.1, 2.2, 2.3)]
    assert checkers.check_limits(history, 3, 2.0) == []
    others = [admitted(0.3, degraded=True), admitted(0.4, allowed=False)]
    assert checkers.check_limits([*history, *others], 3, 2.0) == []


def test_more_than_the_limit_in_a_window_is_found():
    history = [admitted(at) for at in (0, 1.5, 1.6, 2.1, 2.2)]
    assert checkers.check_limits(history, 3, 2.0) == ["u: 4 admitted within 2.0 s, of 3"]


def counted(clock, **facts):
    return clock.call("count", **{"allowed": True, "degraded": False, **facts})


@pytest.mark.parametrize(("counter", "right"), [(1, False), (2, True), (4, True), (5, False)])
def test_what_is_counted_is_counted_once(clock, counter, right):
    history = [counted(clock), counted(clock), counted(clock, degraded=True), failed(clock, "count", UNKNOWN)]
    assert (checkers.check_counter(history, Truth(counter=counter)) == []) is right


def test_what_another_tenant_finds_is_found(clock):
    questions = [clock.call("foreign", what="history", found=found) for found in (False, True)]
    assert checkers.check_tenants(questions[:1]) == []
    assert checkers.check_tenants(questions) == ["another tenant found a history"]


def test_calls_that_end_late_or_wrongly_are_found(clock):
    good = [append(clock, 1, "a"), failed(clock, "append", UNKNOWN, log="log", texts=["b"])]
    assert checkers.check_ends(good, DEADLINES) == []
    late = append(clock, 1, "a", seconds=9.0)
    hung = failed(clock, "tail", {**UNKNOWN, "error": "Hung"}, log="log")
    wrong = failed(clock, "read", {**UNKNOWN, "error": "AutoReconnect", "escaped": True}, register="r")
    assert checkers.check_ends([late, hung, wrong], DEADLINES) == [
        "read ended in AutoReconnect",
        "append took 9.0 s (None)",
        "tail took 0.5 s (Hung)",
    ]
