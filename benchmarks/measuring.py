"""Measuring two ways of doing the same thing, turn by turn, so that noise strikes both."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Case:
    """One piece of work, done by the raw driver and by convostore with the same round trips."""

    name: str
    raw: Call
    ours: Call


@dataclass(frozen=True, slots=True)
class Result:
    """Medians over the rounds, in seconds an operation, and the spread of the ratio."""

    name: str
    callers: int
    raw: float
    ours: float
    ratio: float
    low: float
    high: float


async def _one_by_one(call: Call, times: int) -> float:
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        await call()
        durations.append(time.perf_counter() - started)
    return statistics.median(durations)


async def _together(call: Call, callers: int, times: int) -> float:
    async def caller() -> None:
        for _ in range(times):
            await call()

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (time.perf_counter() - started) / (callers * times)


async def compare(case: Case, callers: int, rounds: int, times: int) -> Result:
    """Return the ratio ours to raw: the median over rounds that alternate between both."""
    pairs = []
    for turn in range(rounds + 1):
        first, second = (case.raw, case.ours) if turn % 2 else (case.ours, case.raw)
        one = await _round(first, callers, times)
        two = await _round(second, callers, times)
        pairs.append((one, two) if turn % 2 else (two, one))
    pairs = pairs[1:]  # the first warms up
    ratios = sorted(ours / raw for raw, ours in pairs)
    quarter = len(ratios) // 4
    return Result(
        case.name,
        callers,
        statistics.median(raw for raw, _ in pairs),
        statistics.median(ours for _, ours in pairs),
        statistics.median(ratios),
        ratios[quarter],
        ratios[-1 - quarter],
    )


async def _round(call: Call, callers: int, times: int) -> float:
    return await (_one_by_one(call, times) if callers == 1 else _together(call, callers, times))
