"""A run whose workers are broken on purpose is found out: what a checker has never found, it might never find.

What is not shielded from cancellation is found by ``tests/faults/test_cancellation.py``.
"""

import asyncio
from contextlib import asynccontextmanager
from functools import partial

import pytest
import pytest_asyncio
from chaos_mutants import DRIVER_RETRIES, NO_UNIQUE_KEY, PLAIN_DEL, W1
from chaos_run import STALE_READS, Crowd, run, servers

from convostore.testing import Nemesis

SEED = 3
ISOLATE, LOSE, LOSE_REDIS = "isolate until replaced", "mongodb: lose connections", "redis: lose connections"
MUTANTS = {
    W1: (("append",), ISOLATE, "logs", "was acknowledged at"),
    NO_UNIQUE_KEY: (("append_keyed",), LOSE, "idempotency keys", "stored first"),
    DRIVER_RETRIES: (("count",), LOSE_REDIS, "counter", "the counter is"),
    PLAIN_DEL: (("raise", "update"), LOSE_REDIS, STALE_READS, "had been acknowledged"),
}
ROUNDS = 4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served():
    async with servers() as served:
        served.faults[ISOLATE] = partial(_isolated_until_replaced, served.replica_set)
        yield served


@asynccontextmanager
async def _isolated_until_replaced(replica_set, step):
    """Part the primary from the others, however long these take to elect another."""
    primary = await replica_set.primary()
    with replica_set.isolated(primary):
        others = [member for member in replica_set.members if member is not primary]
        while not any([await member.is_primary() for member in others]):  # noqa: ASYNC110 - in another process
            await asyncio.sleep(0.05)
        yield f"member {primary.number}"


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("mutant", MUTANTS)
async def test_the_checkers_see(mutant, served):
    only, kind, checker, finding = MUTANTS[mutant]
    crowd = Crowd(processes=2, writers=4, readers=4, mutant=mutant, only=only, pause=0.02)
    for number in range(ROUNDS):  # how often it happens depends on how busy the machine is
        nemesis = Nemesis(SEED + number, 3, [kind], quiet=(0.5, 0.5), lasting=(2, 2))
        outcome = await run(served, nemesis, crowd, SEED + number)
        if [each for each in outcome.violations[checker] if finding in each]:
            return
    pytest.fail(f"the checker of {checker} did not see it")


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_they_see_nothing_where_nothing_is_broken(served):
    only = tuple(sorted({op for ops, *_ in MUTANTS.values() for op in ops}))
    nemesis = Nemesis(SEED, 8, [ISOLATE, LOSE, LOSE_REDIS], quiet=(0.5, 0.5), lasting=(2, 2))
    outcome = await run(served, nemesis, Crowd(processes=2, only=only, pause=0.02), SEED)
    assert outcome.all_violations == []
    assert len(outcome.journal) == len(nemesis.schedule) > 0


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_no_read_is_stale_as_long_as_the_primary_stays(served):
    nemesis = Nemesis(SEED, 8, [LOSE, LOSE_REDIS], quiet=(0.5, 0.5), lasting=(2, 2))
    outcome = await run(served, nemesis, Crowd(processes=2, only=("raise", "update", "edit"), pause=0.02), SEED)
    assert outcome.violations[STALE_READS] == outcome.all_violations == []
