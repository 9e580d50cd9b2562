"""No read through the cache is older than a write that has returned, whatever is evicted, cancelled, lost or killed.

With ``CONVOSTORE_TEST_SCALE=10`` there are a million reads, and with ``-s`` the table of what came of them.
"""

import asyncio
import os
import uuid

import pytest
from cached_checker import Plan, check

SCALE = int(os.environ.get("CONVOSTORE_TEST_SCALE", "1"))
LIMIT = 110 if SCALE == 1 else 300 * SCALE  # seconds
READS, KILLS, LOST = (4_000, 2, 0.2) if SCALE == 1 else (100_000 * SCALE, 5 * SCALE, 0.05)
NEAR = {"lost": 0, "lease": 1} if SCALE == 1 else {"lost": LOST}  # else on a busy machine it would hardly be in use
WILD = {"kills": 0, "pause": 0.4, "lease": 6}  # without the guard nothing puts the cache out of use
COLUMNS = ("reads", "hits", "near", "writes", "told", "lost", "kills", "cancelled", "old", "behind", "stale")

pytestmark = pytest.mark.timeout(LIMIT + 10)


@pytest.fixture
def checked(store, convostore_settings, convostore_redis_settings):
    """Lets the processes loose with a cache, and returns what came of it."""

    async def run(cache, reads=READS, **given):
        plan = Plan(
            mongodb=convostore_settings.mongodb_uri.get_secret_value(),
            database=convostore_settings.database_name,
            redis=convostore_redis_settings.redis_url.get_secret_value(),
            tenant=uuid.uuid4().hex,
            cache=cache,
            reads=reads,
            limit=LIMIT,
            **given,
        )
        outcome = await asyncio.to_thread(check, plan)
        print(f"\n{cache} {given}: " + ", ".join(f"{name} {outcome.get(name, 0)}" for name in COLUMNS))
        seen = f"p50 {outcome['elsewhere_p50']:.3f} s, longest {outcome['elsewhere_longest']:.3f} s"
        print(f"{outcome['elsewhere']} written elsewhere, not seen for {seen}; oldest read {outcome['oldest']:.3f} s")
        happened = ("reads", "hits", "writes", "appends", "units", "elsewhere", "evictions", "told")
        assert all(outcome[name] for name in happened)
        return outcome

    return run


async def test_no_read_is_older_than_a_write_that_has_returned(checked):
    outcome = await checked("SlowCache", kills=KILLS, lost=LOST)
    assert (outcome["old"], outcome["behind"], outcome["stale"]) == (0, 0, 0)
    assert outcome["reads"] >= READS
    assert outcome["kills"] >= KILLS
    assert outcome["cancelled"]
    assert outcome["lost"], "nothing was lost"
    assert outcome["raises"]


async def test_what_a_process_keeps_is_not_further_behind_than_it_says(checked):
    outcome = await checked("SlowCache", kills=KILLS, near="near", **NEAR)
    assert (outcome["old"], outcome["behind"], outcome["stale"]) == (0, 0, 0)
    assert outcome["near"]


async def test_the_checker_sees_a_process_that_does_not_listen_to_what_changes(checked):
    outcome = await checked("SlowCache", 2 * READS, near="blind", lost=0, **WILD)
    assert outcome["old"] > 0


async def test_the_checker_sees_what_deleting_after_a_write_leaves_behind(checked):
    outcome = await checked("PlainDelCache", 2 * READS, **WILD | {"pause": 0.1})
    assert outcome["old"] > 0


async def test_the_checker_sees_what_is_left_behind_where_invalidations_are_lost(checked):
    outcome = await checked("HopefulCache", 4 * READS, lost=0.5, **WILD | {"pause": 0.1})
    assert outcome["old"] > 0
