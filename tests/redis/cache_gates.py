"""A gateway to a real server whose scripts can be held up, so that a test decides what happens in between."""

import asyncio
from collections.abc import Sequence
from typing import Any

from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.scripts import Script


class Gateway(RedisGateway):
    """A gateway whose scripts can be held up, on their way to the server or on their way back."""

    def hold(self, name: str) -> tuple["Gate", "Gate"]:
        """Return the gates before and after a script."""
        self.gates = {**getattr(self, "gates", {}), name: (Gate(), Gate())}
        return self.gates[name]

    async def script(self, operation: Operation, script: Script, keys: Sequence[str], *arguments: Any) -> Any:
        before, after = getattr(self, "gates", {}).get(script.name, (None, None))
        if before is not None:
            await before.pass_through()
        answer = await super().script(operation, script, keys, *arguments)
        if after is not None:
            await after.pass_through()
        return answer


class Gate:
    """Where a task waits until the test lets it go; open until it is closed."""

    def __init__(self) -> None:
        self.reached, self._open = asyncio.Event(), asyncio.Event()
        self._open.set()

    def close(self) -> None:
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    async def pass_through(self) -> None:
        self.reached.set()
        await self._open.wait()
