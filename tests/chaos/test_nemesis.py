"""A schedule follows from its seed, and what is done is written down."""

import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from convostore.testing import Nemesis

KINDS = ["kill", "freeze", "part"]


def test_the_same_seed_gives_the_same_schedule():
    assert Nemesis(7, 100, KINDS).schedule == Nemesis(7, 100, KINDS).schedule
    assert Nemesis(7, 100, KINDS).schedule != Nemesis(8, 100, KINDS).schedule


def test_a_schedule_fills_its_time_with_each_kind_equally_often():
    schedule = Nemesis(7, 300, KINDS, quiet=(1, 2), lasting=(0.5, 1)).schedule
    spent = sum(step.quiet + step.seconds for step in schedule)
    assert 297 <= spent <= 300
    times = Counter(step.kind for step in schedule)
    assert set(times) == set(KINDS)
    assert max(times.values()) - min(times.values()) <= 1
    assert all(1 <= step.quiet <= 2 and 0.5 <= step.seconds <= 1 for step in schedule)


async def test_the_faults_come_one_after_the_other_and_are_written_down():
    there = []

    @asynccontextmanager
    async def fault(step):
        assert there == []
        there.append(step.kind)
        yield f"{step.kind}ed"
        there.remove(step.kind)

    nemesis = Nemesis(7, 0.2, KINDS, quiet=(0.01, 0.02), lasting=(0.01, 0.02))
    began = time.monotonic()
    journal = await nemesis.run(dict.fromkeys(KINDS, fault))
    assert [entry.kind for entry in journal] == [step.kind for step in nemesis.schedule]
    assert all(entry.detail == f"{entry.kind}ed" for entry in journal)
    moments = [began, *(moment for entry in journal for moment in (entry.begin, entry.end)), time.monotonic()]
    assert moments == sorted(moments)


async def test_a_fault_that_cannot_be_made_is_no_finding_but_an_error():
    @asynccontextmanager
    async def broken(_):
        raise LookupError
        yield

    with pytest.raises(LookupError):
        await Nemesis(7, 1, KINDS, quiet=(0, 0), lasting=(0.1, 0.1)).run(dict.fromkeys(KINDS, broken))


async def test_it_ends_when_it_is_enough():
    assert await Nemesis(7, 100, KINDS, quiet=(0, 0)).run({}, until=lambda: True) == []
