"""The suite measures what is wanted on real servers, and nothing fails on the way."""

import pytest
from benchmarks import aims, contest
from benchmarks.clocks import Clocks
from benchmarks.measuring import Plan
from benchmarks.newest_cells import ChatPlan
from benchmarks.open_loop import Load
from benchmarks.overload import Plan as OverloadPlan
from benchmarks.suite import QUICK, Choice, Suite

from convostore.database.local_servers import ServerAddresses

TINY = QUICK._replace(
    plan=Plan(rounds=2, seconds=0.01, at_most=2),
    loads=(Load(100, 0.2),),
    open_rounds=1,
    overload=OverloadPlan(2, before=1, during=1, after=1),
    cells=3,
    chat=ChatPlan(50, 9),
)


ON_REDIS = {contest.RATE, contest.SESSION, contest.CACHE}
ON_BOTH = {contest.CELL, contest.CELLS}
ON_MONGODB = set(aims.AIMS) - ON_REDIS - ON_BOTH


@pytest.mark.parametrize(
    ("store", "only", "names"),
    # Each of the names on MongoDB has an e in it.
    [("redis", "", ON_REDIS), ("mongodb", "e", ON_MONGODB), ("", "warm", ON_BOTH)],
)
async def test_what_is_wanted_is_measured(convostore_servers: ServerAddresses, store, only, names):
    choice = Choice(TINY, only=only, store=store, callers=(1, 3), peers=False)
    suite = Suite(choice, convostore_servers, Clocks(), lambda _: None)
    await suite.run()
    found = suite.findings
    ours = [one for one in found.closed if one.contestant == contest.OURS]
    assert {(one.case, one.callers) for one in ours} == {(name, callers) for name in names for callers in (1, 3)}
    assert [one for one in found.closed if one.failed] == []
    assert {one.case for one in found.opened} == names & {contest.GET, contest.APPEND_MANY}
    assert [one for one in found.opened if one.tally.failed] == []
    assert {one.case for one in found.overloads} == names & {contest.GET, contest.APPEND_MANY}
    assert [second for one in found.overloads for second in one.seconds if second.failed] == []
    assert "MongoDB" in found.facts["servers"]


async def test_the_chat_load_tells_what_part_of_the_reads_goes_to_the_database(convostore_servers: ServerAddresses):
    suite = Suite(Choice(TINY, only=contest.CHAT, peers=False), convostore_servers, Clocks(), lambda _: None)
    await suite.run()
    cold, warm = suite.findings.chat
    assert (cold.reads, warm.reads) == (50, 50)
    assert cold.share > warm.share
