"""P1 to P7, P9, P10, P16: under kills, pauses, stepdowns, partitions and lost connections nothing promised is broken.

``make chaos DURATION=600 SEED=1`` is the long run; without them this is a short one with another seed each time.
"""

import os
import time

import pytest
from chaos_report import keep, report
from chaos_run import Crowd, any_seed, nemesis_of, run, servers

DURATION = float(os.environ.get("CHAOS_DURATION") or 25)
STARTING, CHECKING = 60, 120


@pytest.mark.slow
@pytest.mark.timeout(STARTING + 4 * DURATION + CHECKING)
async def test_nothing_promised_is_broken_while_servers_fail(capsys, tmp_path):
    seed = int(os.environ.get("CHAOS_SEED") or any_seed())
    with capsys.disabled():
        print(f"\nchaos with CHAOS_SEED={seed} for {DURATION:.0f} s")
    async with servers() as served:
        started = time.monotonic()
        outcome = await run(served, nemesis_of(served, seed, DURATION), Crowd(), seed)
        seconds = time.monotonic() - started
    with capsys.disabled():
        print(f"\nseed {seed}, {seconds:.0f} s\n\n{report(outcome)}")
    if outcome.all_violations:
        keep(outcome, tmp_path)
    assert outcome.all_violations == [], f"the history is kept in {tmp_path}"
    assert len(outcome.journal) > 0
