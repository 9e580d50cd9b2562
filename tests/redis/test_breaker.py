"""The breaker: open after failures in a row, half open once in each pause."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from convostore.gateways.breaker import Breaker


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_it_opens_after_failures_in_a_row_and_lets_one_through_in_each_pause():
    clock = Clock()
    breaker = Breaker(3, 2.0, clock)
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
        assert breaker.admits()
    breaker.failed()
    assert breaker.is_open
    for _ in range(3):
        clock.now += 1.9
        assert not breaker.admits()
        clock.now += 0.2
        assert [breaker.admits() for _ in range(5)] == [True, False, False, False, False]
        breaker.failed()
    clock.now += 2.1
    assert breaker.admits()
    breaker.succeeded()
    assert not breaker.is_open
    assert all(breaker.admits() for _ in range(5))


def test_another_one_shares_the_settings_and_not_the_failures():
    clock = Clock()
    breaker = Breaker(1, 5.0, clock)
    other = breaker.another()
    breaker.failed()
    assert other.admits()
    other.failed()
    assert not other.admits()
    clock.now += 5.1
    assert other.admits()


@given(st.lists(st.sampled_from(["call", "fail", "wait"]), max_size=60), st.integers(1, 4))
def test_an_open_breaker_never_lets_two_through_in_one_pause(steps, failures):
    clock = Clock()
    breaker = Breaker(failures, 1.0, clock)
    let_through = []
    for step in steps:
        clock.now += 0.4 if step == "wait" else 0.0
        if step == "fail":
            breaker.failed()
        if step == "call" and breaker.is_open and breaker.admits():
            let_through.append(clock.now)
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(let_through))
