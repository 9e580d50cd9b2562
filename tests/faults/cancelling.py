"""Cancelling a call at each of the points where it waits, in the styles that applications use."""

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial

import anyio


class Stepped:
    """Awaits a coroutine and pulls a trigger when it, or a task that it has started, waits for the n-th time.

    Args:
        work: the coroutine.
        at: at which of its waits, from 1.
        late: pull it only when that wait is over and before the waiter learns of it, so that the answer to a command
            has been read, and is lost.
    """

    def __init__(self, work, at, late):
        self.work, self.at, self.late = work, at, late
        self.steps = 0
        self.pull = lambda: None
        self._family = set()

    def __await__(self):
        loop = asyncio.get_running_loop()
        factory = loop.get_task_factory()
        self._family.add(asyncio.current_task())
        loop.set_task_factory(self._create)
        try:
            return (yield from self._steps(self.work))
        finally:
            loop.set_task_factory(factory)

    def _create(self, loop, coroutine, **options):
        ours = asyncio.current_task() in self._family
        task = asyncio.Task(self._watched(coroutine) if ours else coroutine, loop=loop, **options)
        if ours:
            self._family.add(task)
            task.add_done_callback(lambda _: coroutine.close())  # one cancelled before its first step
        return task

    async def _watched(self, coroutine):
        return await _Steps(self._steps(coroutine))

    def _steps(self, work):
        inner = work.__await__()
        step = partial(inner.send, None)
        while True:
            try:
                waiting = step()
            except StopIteration as stop:
                return stop.value
            self._look(waiting)
            try:
                step = partial(inner.send, (yield waiting))
            except BaseException as error:  # noqa: BLE001 - whatever is thrown in belongs to the coroutine
                step = partial(inner.throw, error)

    def _look(self, waiting):
        self.steps += 1
        if self.steps != self.at:
            return
        if self.late and waiting is not None:
            waiting.add_done_callback(lambda _: self.pull())
        else:
            asyncio.get_running_loop().call_soon(self.pull)


class _Steps:
    def __init__(self, steps):
        self._generator = steps

    def __await__(self):
        return self._generator


@dataclass
class Ending:
    """How a call ended: with a result, an error, or by the cancellation."""

    result: object = None
    error: BaseException | None = None
    cancelled: bool = False
    steps: int = 0


async def plain(stepped):
    task = asyncio.ensure_future(_run(stepped))
    stepped.pull = task.cancel
    return await task


async def by_timeout(stepped):
    async with asyncio.timeout(None) as timeout:
        stepped.pull = lambda: timeout.reschedule(0)
        return await stepped


async def by_sibling(stepped):
    fail = asyncio.Event()

    async def sibling():
        await fail.wait()
        raise SiblingError

    async def work():
        try:
            return await stepped
        finally:
            waiting.cancel()

    stepped.pull = fail.set
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(sibling())
        working = group.create_task(work())
    return working.result()


async def by_scope(stepped):
    with anyio.move_on_after(60) as scope:
        stepped.pull = scope.cancel
        return await stepped
    raise asyncio.CancelledError


async def by_scope_above(stepped):
    """A scope around a task of its own, as FastAPI and Starlette have it around a request."""
    result = None

    async def work():
        nonlocal result
        result = (await stepped,)

    async with anyio.create_task_group() as group:
        stepped.pull = group.cancel_scope.cancel
        group.start_soon(work)
    if result is None:
        raise asyncio.CancelledError
    return result[0]


class SiblingError(Exception):
    pass


async def _run(stepped):
    return await stepped


STYLES = (plain, by_timeout, by_sibling, by_scope, by_scope_above)


async def struck(work, at, style, *, late=False):
    """Run a coroutine, cancelled at the n-th wait in a style, and say how it ended."""
    stepped = Stepped(work, at, late)
    ending = Ending()
    try:
        ending.result = await style(stepped)
    except (asyncio.CancelledError, TimeoutError):
        ending.cancelled = True
    except BaseExceptionGroup as group:
        _unpack(ending, group)
    except Exception as error:  # noqa: BLE001 - the test looks at it
        ending.error = error
    ending.steps = stepped.steps
    if not stepped.steps:
        with contextlib.suppress(RuntimeError):
            stepped.work.close()
    return ending


def _unpack(ending, group):
    errors = [error for error in group.exceptions if not isinstance(error, SiblingError)]
    ending.error = errors[0] if errors else None
    ending.cancelled = not errors
