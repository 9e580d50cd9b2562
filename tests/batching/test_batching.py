"""Calls travel together without waiting for one another, each with his own answer."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convostore import DeadlineExceededError, EntityNotFoundError, Outcome, RepositoryError
from convostore.gateways.batching import Batcher
from convostore.gateways.flights import BatchLimits
from convostore.gateways.waiting import FairQueue, Waiting


class Wire:
    """Answers twice the item, odd ones above 100 with an error, once it is let go."""

    @property
    def sent(self) -> list[int]:
        return [item for batch in self.batches for item in batch]

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.alone: list[int] = []
        self.gate = asyncio.Event()
        self.shut: asyncio.Event | None = None  # of batches, where it is another one than that of lone calls
        self.broken: Exception | None = None

    async def send(self, items: Sequence[int]) -> list[int | RepositoryError]:
        self.batches.append(list(items))
        await (self.shut or self.gate).wait()
        if self.broken:
            raise self.broken
        return [EntityNotFoundError("Thing", str(item)) if item > 100 and item % 2 else 2 * item for item in items]

    async def one(self, item: int) -> int:
        self.alone.append(item)
        await self.gate.wait()
        return 2 * item


def make(deadline: float = 5, **limits: int) -> tuple[Wire, "Batcher[int, int]"]:
    wire = Wire()
    return wire, Batcher(wire.send, "MongoDB", deadline, BatchLimits(**limits))


def call(wire: Wire, batcher: "Batcher[int, int]", item: int, owner: str = "acme", **more: bool) -> "asyncio.Task[int]":
    return asyncio.create_task(batcher.call(owner, item, lambda: wire.one(item), **more))


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_lone_call_goes_at_once_and_by_itself() -> None:
    wire, batcher = make()
    wire.gate.set()
    assert await batcher.call("acme", 4, lambda: wire.one(4)) == 8
    assert (wire.alone, wire.batches) == ([4], [])


async def test_who_comes_while_the_flights_are_away_travels_together() -> None:
    wire, batcher = make()
    tasks = [call(wire, batcher, item) for item in range(50)]
    await turn()
    assert (wire.alone, wire.batches) == ([0, 1], [])
    wire.gate.set()
    assert await asyncio.gather(*tasks) == [2 * item for item in range(50)]
    assert sorted(wire.sent) == list(range(2, 50))
    assert len(wire.batches) <= 2


async def test_each_gets_his_own_error_and_the_others_their_results() -> None:
    wire, batcher = make()
    tasks = [call(wire, batcher, item) for item in range(98, 110)]
    wire.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for item, result in zip(range(98, 110), results, strict=True):
        if item in wire.alone or item <= 100 or item % 2 == 0:
            assert result == 2 * item
        else:
            assert isinstance(result, EntityNotFoundError)
            assert result.entity_id == str(item)


async def test_a_failure_of_the_batch_is_told_to_each_with_an_error_of_his_own() -> None:
    wire, batcher = make()
    tasks = [call(wire, batcher, item) for item in range(6)]
    await turn()
    wire.broken = DeadlineExceededError("MongoDB", outcome=Outcome.UNKNOWN, message="cut")
    wire.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [result for result in results if isinstance(result, DeadlineExceededError)]
    assert len(failed) == 4
    assert len({id(error) for error in failed}) == 4
    assert all(str(error) == "cut" and error.outcome is Outcome.UNKNOWN for error in failed)


@pytest.mark.parametrize("departed", [False, True])
async def test_a_cancelled_caller_changes_nothing_for_the_others(departed: bool) -> None:
    wire, batcher = make()
    tasks = [call(wire, batcher, item) for item in range(8)]
    await turn()
    if departed:
        flight = call(wire, batcher, 50)
        wire.gate.set()
        await turn()
        wire.gate.clear()
        tasks.append(flight)
    tasks[5].cancel()
    await turn()
    wire.gate.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    kept = [result for index, result in enumerate(results) if index != 5]
    assert all(isinstance(result, int) for result in kept)
    if not departed:
        assert isinstance(results[5], asyncio.CancelledError)
        assert 5 not in wire.sent, "it had not left yet"


async def test_a_call_whose_time_is_over_says_whether_it_was_sent() -> None:
    wire, batcher = make(deadline=0.05, flights=1)
    wire.shut = asyncio.Event()
    first = call(wire, batcher, 1)
    await turn()
    with pytest.raises(DeadlineExceededError) as waiting:
        await call(wire, batcher, 2, writes=True)
    assert waiting.value.outcome is Outcome.NOT_APPLIED
    second = call(wire, batcher, 3, writes=True)
    await turn()
    wire.gate.set()
    assert await first == 2
    with pytest.raises(DeadlineExceededError) as sent:
        await second
    assert wire.batches == [[3]], "the call that had given up was not sent"
    assert sent.value.outcome is Outcome.UNKNOWN
    wire.shut.set()
    await batcher.aclose()


async def test_whoever_is_told_that_he_was_not_sent_does_not_leave_in_the_same_turn() -> None:
    wire, batcher = make(flights=1)
    first = call(wire, batcher, 0)
    await turn()
    end = asyncio.get_running_loop().time() + 0.02
    late = asyncio.create_task(batcher.call("acme", 2, lambda: wire.one(2), writes=True, end=end))
    await turn()
    wire.gate.set()
    time.sleep(0.05)  # noqa: ASYNC251 - the flight lands and his time is over in one turn of the loop
    with pytest.raises(DeadlineExceededError) as over:
        await late
    assert over.value.outcome is Outcome.NOT_APPLIED
    assert await first == 0
    await turn()
    assert wire.sent == []


async def test_each_is_given_up_at_his_own_end_in_whatever_order_they_came() -> None:
    wire, batcher = make(flights=1)
    first = call(wire, batcher, 0)
    await turn()
    now = asyncio.get_running_loop().time()
    gone: list[int] = []

    async def wait(number: int, seconds: float) -> None:
        with pytest.raises(DeadlineExceededError):
            await batcher.call("acme", number, lambda: wire.one(number), end=now + seconds)
        assert asyncio.get_running_loop().time() >= now + seconds
        gone.append(number)

    await asyncio.gather(*(wait(number, seconds) for number, seconds in enumerate((0.15, 0.05, 0.1, 0.2))))
    assert gone == [1, 2, 0, 3]
    wire.gate.set()
    assert await first == 0


async def test_too_many_waiting_are_refused_at_once_and_later_ones_served() -> None:
    wire, batcher = make(flights=1, waiting=3)
    tasks = [call(wire, batcher, item) for item in range(4)]
    await turn()
    with pytest.raises(DeadlineExceededError, match="too many") as refused:
        await batcher.call("acme", 9, lambda: wire.one(9), writes=True)
    assert refused.value.outcome is Outcome.NOT_APPLIED
    wire.gate.set()
    assert await asyncio.gather(*tasks) == [0, 2, 4, 6]
    assert await batcher.call("acme", 9, lambda: wire.one(9)) == 18


async def test_owners_take_turns() -> None:
    wire, batcher = make(flights=1, items=10)
    tasks = [call(wire, batcher, 0, "loud")]
    await turn()
    tasks += [call(wire, batcher, item, "loud") for item in range(1, 100)]
    tasks += [call(wire, batcher, 200, "quiet"), call(wire, batcher, 202, "shy")]
    await turn()
    wire.gate.set()
    await asyncio.gather(*tasks)
    assert {200, 202} <= set(wire.batches[0])
    assert [item for item in wire.sent if item < 200] == list(range(1, 100)), "each in his own order"


async def test_a_batch_keeps_to_its_size_but_takes_at_least_one() -> None:
    wire, batcher = make(flights=1, size=100)
    tasks = [call(wire, batcher, 0)]
    await turn()
    tasks += [
        asyncio.create_task(batcher.call("acme", item, lambda: wire.one(0), size=size))
        for item, size in ((1, 500), (2, 60), (3, 40), (4, 1))
    ]
    await turn()
    wire.gate.set()
    await asyncio.gather(*tasks)
    assert wire.batches == [[1], [2, 3], [4]]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), max_size=60), st.integers(1, 9))
def test_the_queue_gives_back_everything_once_in_the_order_of_each_owner(
    calls: list[tuple[str, int]], items: int
) -> None:
    loop = asyncio.new_event_loop()
    queue: FairQueue[int, int] = FairQueue()
    for number, (owner, size) in enumerate(calls):
        queue.put(Waiting(owner, number, size, loop.create_future()))
    taken = []
    while queue:
        batch = queue.take(items, 50)
        assert 1 <= len(batch) <= items
        assert len(batch) == 1 or sum(waiting.size for waiting in batch) <= 50
        taken += batch
    loop.close()
    assert len(queue) == 0
    for owner in "abc":
        expected = [number for number, (name, _) in enumerate(calls) if name == owner]
        assert [waiting.item for waiting in taken if waiting.owner == owner] == expected
    assert len(taken) == len(calls)
