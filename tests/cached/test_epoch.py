"""What a process knows of the epoch, and for how long, by a clock of the test's own."""

import asyncio

import pytest
from cached_support import eventually

from convostore.gateways.epoch_counter import EpochCounter
from convostore.repositories.cache_epoch import CacheEpoch
from convostore.repositories.exceptions import ConnectionError as StoreConnectionError

LEASE = 1.0


class Clock:
    def __init__(self):
        self.seconds = 1000.0

    def __call__(self):
        return self.seconds


class Counter(EpochCounter):
    """The number, which may be out of reach."""

    away = False

    async def read(self):
        self.check()
        return await super().read()

    async def advance(self):
        self.check()
        return await super().advance()

    def check(self):
        if self.away:
            raise StoreConnectionError("MongoDB")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def counter(store):
    return Counter(store.mongodb)


@pytest.fixture
async def epoch(counter, clock):
    epoch = CacheEpoch(counter, LEASE, clock)
    yield epoch
    await epoch.aclose()


@pytest.fixture
async def other(store, clock):
    epoch = CacheEpoch(EpochCounter(store.mongodb), LEASE, clock)
    yield epoch
    await epoch.aclose()


async def looked(epoch):
    """Let what has been asked for be looked up."""
    epoch.usable()
    await epoch.aclose()
    return epoch.usable()


async def test_where_nobody_has_raised_it_the_first_look_is_enough(epoch):
    assert epoch.usable() is None
    assert await looked(epoch) == 0
    assert (await epoch.current())[:2] == (0, 0)


async def test_it_counts_for_a_lease_from_before_the_look(epoch, counter, clock):
    await looked(epoch)
    counter.away = True
    clock.seconds += 0.99 * LEASE
    assert await looked(epoch) == 0
    clock.seconds += 0.01 * LEASE
    assert await looked(epoch) is None
    with pytest.raises(StoreConnectionError):
        await epoch.current()
    counter.away = False
    assert await looked(epoch) == 0


async def test_it_is_looked_up_before_it_ends(epoch, clock):
    await looked(epoch)
    for _ in range(10):
        clock.seconds += 0.6 * LEASE
        assert epoch.usable() == 0
        await epoch.aclose()


async def test_a_number_is_used_once_somebody_has_known_it_for_three_leases(epoch, other, clock):
    await looked(other)
    await epoch.forsake()
    assert epoch.usable() is None
    clock.seconds += LEASE
    for _ in range(5):
        assert await looked(other) is None
        assert await looked(epoch) is None
        clock.seconds += 0.55 * LEASE
    assert (await epoch.current())[:2] == (1, 0)
    clock.seconds += LEASE
    await looked(epoch)
    await eventually(lambda: _is_used(epoch, clock))
    clock.seconds += LEASE
    assert await looked(other) == 1


async def _is_used(epoch, clock):
    clock.seconds += LEASE
    return await looked(epoch) == 1


async def test_what_is_raised_again_settles_anew(epoch, other, clock):
    await epoch.forsake()
    clock.seconds += 2.9 * LEASE
    await other.forsake()
    clock.seconds += LEASE
    assert await looked(epoch) is None
    assert (await epoch.current())[:2] == (2, 0)
    clock.seconds += LEASE
    assert await looked(epoch) is None, "nobody has known the second for long enough"
    assert (await epoch.current())[:2] == (2, 0)


async def test_a_number_that_was_raised_meanwhile_is_not_settled(counter):
    await counter.advance()
    await counter.advance()
    await counter.settle(1)
    assert (await counter.read())[:2] == (2, 0)
    await counter.settle(2)
    assert (await counter.read())[:2] == (2, 2)


async def test_writes_that_fail_together_raise_it_once(epoch, counter, clock):
    await asyncio.gather(*(epoch.abandon() for _ in range(20)))
    await epoch.abandon()
    assert (await counter.read()).number == 1
    clock.seconds += 3 * LEASE
    await epoch.abandon()
    assert (await counter.read()).number == 2


async def test_it_is_raised_in_good_time_while_writes_fail(epoch, counter, clock):
    await epoch.abandon()
    for number in range(2, 5):
        clock.seconds += 1.6 * LEASE
        await asyncio.wait_for(epoch.abandon(), LEASE / 2)
        await epoch.aclose()
        assert (await counter.read()).number == number


async def test_a_raise_that_has_failed_is_made_good_before_the_cache_is_used(epoch, counter, clock):
    await looked(epoch)
    counter.away = True
    with pytest.raises(StoreConnectionError):
        await epoch.abandon()
    assert epoch.usable() is None
    counter.away = False
    clock.seconds += LEASE
    await looked(epoch)
    assert (await counter.read())[:2] == (1, 0)
    assert epoch.raised == 1
