"""P12: a deadline and a shield in one: whatever ends the wait, the work has ended by then, cancelled at most once."""

import asyncio
import gc
import time

import anyio
import pytest

from convostore.gateways.cancellation import cancel_once, end_by


class Work:
    """Works for some seconds, and takes some more to clean up; counts how often it is cancelled meanwhile."""

    def __init__(self, seconds, cleaning=0.0):
        self.seconds, self.cleaning = seconds, cleaning
        self.cancelled, self.ended = 0, False

    async def __call__(self):
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            await self._clean_up()
            raise
        finally:
            self.ended = True
        return "done"

    async def _clean_up(self):
        try:
            await asyncio.sleep(self.cleaning)
        except asyncio.CancelledError:
            self.cancelled += 1


async def _fail(error):
    await asyncio.sleep(0)
    raise error


async def test_a_result_and_an_error_come_through():
    assert await end_by(1, 0, Work(0)) == "done"
    error = LookupError("text")
    with pytest.raises(LookupError) as caught:
        await end_by(1, 0, _fail, error)
    assert caught.value is error


@pytest.mark.parametrize("grace", [0, 0.05])
async def test_at_the_deadline_the_work_is_cancelled_once_and_has_ended(grace):
    work = Work(9, cleaning=0.1)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        await end_by(0.05, grace, work)
    assert (work.cancelled, work.ended) == (1, True)
    assert time.monotonic() - started < 1
    assert asyncio.current_task().cancelling() == 0


async def test_what_ends_within_the_grace_is_not_cancelled():
    work = Work(0.1)
    with pytest.raises(TimeoutError):
        await end_by(0.02, 5, work)
    assert (work.cancelled, work.ended) == (0, True)


@pytest.mark.parametrize("grace", [0, 0.02])
@pytest.mark.parametrize("deadline", [0.05, 9], ids=["during the end at the deadline", "before"])
async def test_a_cancellation_is_raised_once_the_work_has_ended(deadline, grace):
    work = Work(9, cleaning=0.15)
    task = asyncio.create_task(end_by(deadline, grace, work))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (work.cancelled, work.ended) == (1, True)


async def test_a_scope_that_cancels_again_and_again_cancels_the_work_once():
    work = Work(9, cleaning=0.1)
    with anyio.move_on_after(0.02) as scope:
        await end_by(9, 0, work)
    assert scope.cancelled_caught
    assert (work.cancelled, work.ended) == (1, True)


async def test_work_that_is_cancelled_from_elsewhere_does_not_leave_its_caller_waiting():
    tasks = asyncio.all_tasks()
    caller = asyncio.create_task(end_by(9, 0, Work(9)))
    await asyncio.sleep(0.01)
    [inner] = asyncio.all_tasks() - tasks - {caller}
    inner.cancel()
    await asyncio.wait([caller], timeout=1)
    assert caller.cancelled()


async def test_an_error_after_the_deadline_is_not_complained_of(caplog):
    async def late():
        await asyncio.sleep(0.05)
        raise LookupError

    with pytest.raises(TimeoutError):
        await end_by(0.01, 1, late)
    gc.collect()
    assert not caplog.records


async def test_an_error_after_the_cancellation_is_not_complained_of(caplog):
    async def failing():
        try:
            await asyncio.sleep(9)
        except asyncio.CancelledError:
            raise LookupError from None

    async def cancelled():
        task = asyncio.create_task(cancel_once(failing()))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    await cancelled()
    gc.collect()
    assert not caplog.records
