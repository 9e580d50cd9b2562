"""What a process of a chaos run is to do, and how it writes down what it did."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from typing import Any

import anyio
from pydantic import SecretStr

from convostore import RepositoryError
from convostore.database.settings import MongoSettings, RedisSettings

SESSION_KEY = "a session key of tests, 32 or longer"
CANCELLED_SHARE, LONGEST_PATIENCE = 0.01, 0.05


@dataclass(frozen=True)
class Plan:
    """What one process does.

    Attributes:
        mongodb, database, redis: the servers.
        history: the file of the history.
        process: its number.
        writers, readers: how many of each.
        seed: of its random choices.
        skew: seconds by which its clock is wrong.
        mutant: what is broken in it on purpose, or nothing.
        pause: seconds between two calls of a writer or reader, at most.
        only: the kinds of calls that its writers make; all if there are none.
    """

    mongodb: str
    database: str
    redis: str
    history: str
    process: int
    writers: int
    readers: int
    seed: int
    skew: float = 0.0
    mutant: str = ""
    pause: float = 0.1
    only: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return it as a word of a command line."""
        return json.dumps(asdict(self))

    def mongo_settings(self) -> MongoSettings:
        """Settings that notice a frozen server sooner than by default, so that more faults fit into a run."""
        return MongoSettings(
            mongodb_uri=SecretStr(self.mongodb), database_name=self.database, deadline=5, heartbeat=1, connect_timeout=1
        )

    def redis_settings(self) -> RedisSettings:
        """Settings more patient than by default: the machine is busy, and a proxy stands in between."""
        return RedisSettings(
            redis_url=SecretStr(self.redis),
            redis_deadline=0.5,
            cache_deadline=0.3,
            cache_conversations=True,
            session_key=SecretStr(SESSION_KEY),
        )


class History:
    """Writes down what was called when, and what came of it.

    Attributes:
        process: the number of the process.
        lag: seconds for which its loop was kept from turning so far; each call is told its own share.
    """

    def __init__(self, file: Any, process: int) -> None:
        self._file, self.process = file, process
        self._rng = random.Random(process)
        self.lag = 0.0
        self._open: dict[int, dict[str, Any]] = {}
        self._count = 0

    async def call(self, op: str, task: str, call: Awaitable[Any], tell: Callable[[Any], dict[str, Any]], **facts: Any):
        """Await a call, write it down, and return its answer, or None if it failed.

        Now and then it is cancelled, again and again as the scopes of AnyIO do, and so is unclear.
        """
        self._count += 1
        record = {"op": op, "task": f"{self.process}/{task}", "start": time.monotonic(), "lag": self.lag, **facts}
        number, self._open[self._count] = self._count, record
        patience = self._rng.uniform(0, LONGEST_PATIENCE) if self._rng.random() < CANCELLED_SHARE else float("inf")
        try:
            with anyio.move_on_after(patience) as scope:
                answer = await call
        except RepositoryError as error:
            self._close(number, error=type(error).__name__, outcome=str(error.outcome), retryable=error.retryable)
        except Exception as error:  # noqa: BLE001 - what must not happen is to be seen
            self._close(number, error=type(error).__name__, outcome="unknown", retryable=False, escaped=True)
        else:
            if not scope.cancelled_caught:
                self._close(number, error=None, **tell(answer))
                return answer
            self._close(number, error="Cancelled", outcome="unknown", retryable=False)
        return None

    def _close(self, number: int, /, **facts: Any) -> None:
        record = self._open.pop(number)
        record |= {"end": time.monotonic(), "lag": round(self.lag - record["lag"], 3)} | facts
        self._file.write(json.dumps(record) + "\n")

    async def measure_lag(self) -> None:
        """Add up how long the loop is kept from turning, by a machine that is busy with other things."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.02)
            self.lag += max(0.0, time.monotonic() - before - 0.04)

    def give_up(self) -> None:
        """Write down the calls that never ended."""
        for number in list(self._open):
            self._close(number, error="Hung", outcome="unknown", retryable=False)
