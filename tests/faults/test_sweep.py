"""P1, P3, P5, P15: wherever the connection is lost, a write is applied once or not at all, and the answer is true."""

import asyncio
import os
import random
from collections import Counter

import pytest
from fault_support import FORGOTTEN_SOCKETS, address_of
from public_writes import WRITES, one_more
from pydantic import SecretStr

from convostore import ConvoStore, DuplicateEntityError, Outcome, RepositoryError
from convostore.gateways import translation
from convostore.gateways.mongo_transaction import MongoTransaction
from convostore.gateways.shared_inserts import Placed
from convostore.repositories.slot_writer import SlotWriter
from convostore.testing.mongo_proxy import Fault, MongoProxy

pytestmark = FORGOTTEN_SOCKETS
AT_ONCE = 16  # each opens a client of its own, and all go through one proxy
PERSISTENT = 10
STORM_ROUNDS = 2
PAST_THE_DRIVER = 2
CUTS = (Fault.CUT_BEFORE, Fault.CUT_AFTER)


class Trial:
    """One write through a proxy of its own, with what it answered and what is true."""

    def __init__(self, write, store, settings, truth):
        self.write, self.store, self.settings, self.truth = write, store, settings, truth
        self.error = None
        self.seen = []

    async def run(self, arm):
        self.cid = await self.write.prepare(self.store.tenant("acme"))
        await self.store.mongodb.activity.flush()
        async with MongoProxy(*address_of(self.settings.mongodb_uri.get_secret_value())) as self.proxy:
            # Patient where a busy machine, with many trials in one process, would be taken for a fault.
            given = {
                "mongodb_uri": SecretStr(self.proxy.uri),
                "server_selection_timeout": 2.0,
                "wait_queue_timeout": 20,
            }
            async with ConvoStore.open(self.settings.evolve(**given)) as store:
                await self._act(store, arm)
                await self._check(store.tenant("acme"))
        return self

    async def _act(self, store, arm):
        acme = store.tenant("acme")
        if self.write.warm is not None:
            await self.write.warm(acme, self.cid)
            await store.mongodb.activity.flush()
        self.base = await self.write.applied(self.truth, self.cid) if self.write.warm else 0
        self.proxy.commands.clear()
        arm(self.proxy)
        try:
            await self.write.act(store, acme, self.cid)
        except RepositoryError as error:
            self.error = error
        self.seen = list(self.proxy.commands)
        self.struck = list(self.proxy.struck)
        self.proxy.heal()

    async def _check(self, acme):
        applied = await self.write.applied(self.truth, self.cid)
        already = 1 if "replayed" in self.write.name else 0
        allowed = self._allowed(already)
        assert applied in allowed, f"{self}: applied {applied} times, not {allowed}"
        if self.write.name not in {"create", "delete"}:
            follower = await one_more(acme, self.cid)  # the next call works, at once
            assert follower is None
            await self.truth.log(self.cid)
        if self.write.name == "delete":
            await self._check_deletion(acme)

    def _allowed(self, already):
        if already:
            return (1,)
        if self.error is None:
            return (1,)
        return (0,) if self.error.outcome is Outcome.NOT_APPLIED else (0, 1)

    async def _check_deletion(self, acme):
        await acme.conversations.delete(self.cid)  # finishes what the fault has left
        assert await self.truth.contents(self.cid) == []
        assert (await self.truth.log(self.cid))[-1]["kind"] == "seal"

    def __str__(self):
        answer = "ok" if self.error is None else f"{type(self.error).__name__}, {self.error.outcome}"
        return f"{self.write} under {self.struck} answered {answer}"


@pytest.fixture
def trials(store, convostore_settings, truth):
    """Run pairs of a write and what befalls it, many at once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(write, arm, deadline):
        async with gate:
            return await Trial(write, store, convostore_settings.evolve(deadline=deadline), truth).run(arm)

    async def run(pairs, deadline=30.0):
        results = await asyncio.gather(*(one(*pair, deadline) for pair in pairs), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        assert not failures, "\n".join(f"{type(failure).__name__}: {failure}" for failure in failures)
        return results

    return run


def _cut(fault, n, times):
    if fault is Fault.CUT_BEFORE:
        return lambda proxy: proxy.cut_before(n, times)
    return lambda proxy: proxy.cut_after(n, times)


async def _points(trials, times):
    """Return each write with each fault at each of the commands that it sends undisturbed."""
    undisturbed = await trials([(write, lambda _: None) for write in WRITES])
    assert [str(trial) for trial in undisturbed if trial.error] == []
    return [
        (trial.write, _cut(fault, n, times))
        for trial in undisturbed
        for n in range(1, len(trial.seen) + 1)
        for fault in CUTS
    ]


def _print(capsys, what, results):
    answers = Counter("ok" if trial.error is None else str(trial.error.outcome) for trial in results)
    faults = sum(len(trial.struck) for trial in results)
    with capsys.disabled():
        print(f"\n{what}: {len(results)} points, {faults} faults, answers {dict(answers)}")


@pytest.mark.parametrize("times", [1, PAST_THE_DRIVER, PERSISTENT])
async def test_a_write_cut_anywhere_is_applied_once_or_says_that_it_is_not(trials, times, capsys):
    results = await trials(await _points(trials, times))
    assert all(trial.struck for trial in results)
    if times == 1:  # the driver's retry hides it, but for a unit of work that has only one attempt
        assert [str(trial) for trial in results if trial.error and trial.write.name != "transaction"] == []
    if times == PAST_THE_DRIVER:  # an append looks and tries again by itself
        assert [str(trial) for trial in results if trial.error and trial.write.name.startswith("append")] == []
    if times == PERSISTENT:  # what never gets through cannot be ok
        assert [str(trial) for trial in results if not trial.error and trial.write.patient is False] == []
    _print(capsys, f"cut {times} times", results)


async def test_a_write_in_a_storm_of_cuts_is_applied_once_or_says_that_it_is_not(trials, capsys):
    seed = int(os.environ.get("FAULT_SEED", random.randrange(10**6)))
    rng = random.Random(seed)

    def storm(share):
        mine = random.Random(rng.random())
        return lambda proxy: setattr(proxy, "rule", lambda _: mine.choice(CUTS) if mine.random() < share else None)

    with capsys.disabled():
        print(f"\nstorm with FAULT_SEED={seed}")
    pairs = [(write, storm(share)) for write in WRITES for share in (0.4, 0.7) for _ in range(STORM_ROUNDS)]
    _print(capsys, "storm", await trials(pairs))


def _only(name):
    return next(write for write in WRITES if write.name == name)


async def test_the_sweep_sees_a_naive_append(trials, monkeypatch):
    """The mutant inserts again after an unclear answer, and takes the conflict with itself for somebody else's."""

    async def never_mine(*_):
        return Placed(0, DuplicateEntityError("Message", "somebody else's"))

    monkeypatch.setattr(SlotWriter, "_own", never_mine)
    with pytest.raises(AssertionError, match="applied 2 times"):
        await trials([(_only("append, warm"), _cut(Fault.CUT_AFTER, 1, PAST_THE_DRIVER))])


async def test_the_sweep_sees_an_answer_that_lies(trials, monkeypatch):
    monkeypatch.setattr(translation, "_outcome", lambda _: Outcome.NOT_APPLIED)
    with pytest.raises(AssertionError, match="not applied: applied 1 times"):
        await trials([(_only("create"), _cut(Fault.CUT_AFTER, 1, PAST_THE_DRIVER))])


async def test_the_sweep_sees_a_transaction_left_open(trials, monkeypatch, truth):
    async def never(_):
        return True

    monkeypatch.setattr(MongoTransaction, "_abort_once", never)
    with pytest.raises(AssertionError, match="DeadlineExceededError"):
        await trials([(_only("transaction"), _cut(Fault.CUT_BEFORE, 4, PERSISTENT))], deadline=3.0)
    await truth.admin.command("killAllSessions", [])
