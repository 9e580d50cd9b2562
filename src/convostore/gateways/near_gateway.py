"""A gateway that keeps replies in the process: a read of a key that has not changed asks nobody.

Promise: **a reply that is kept is what the key held at a moment that was not more than ``lag`` seconds before the
call.** Hence what another process had been told to have written ``lag`` seconds before the call is in it. What this
process itself has written is in it at once: a call that writes to a key forgets it before it returns, whatever came of
it, and with it every reply that is on its way.

It rests on ``Tracking``: a reply is kept only while the server says what changes, it is given away only while what the
server has said is known to be complete but for the last ``lag`` seconds, and all are forgotten when the connection
over which it says so is lost. What befalls that connection (it stalls, it is cut, the server is frozen) ends the use of
what is kept within ``lag`` seconds; reads then go to the server, as they would without.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from convostore.gateways.near_replies import NearReplies
from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.redis_tracking import Tracking
from convostore.gateways.redis_wire import Command, Part, Wire
from convostore.gateways.scripts import Script


class NearGateway(RedisGateway):
    """A gateway that keeps the replies to GETs below a prefix.

    Args:
        wire: the way to the server, which is no cluster.
        prefix: of the keys.
        room: bytes that may be kept.
        lag: seconds that a reply may be behind what other processes write.
        policies: of the gateway.

    Attributes:
        replies: what is kept.
        hits: how many reads it has answered.
    """

    def __init__(self, wire: Wire, *, prefix: str, room: int, lag: float, **policies: Any) -> None:
        super().__init__(wire, **policies)
        self.replies = NearReplies(room)
        self.tracking = Tracking(wire, prefix, lag, self._changed)
        self.hits = 0
        self._prefix = prefix

    async def command(self, operation: Operation, *parts: Part) -> Any:
        """Send one command and return its reply, or the reply that is kept."""
        if parts[0] == "GET" and isinstance(parts[1], str) and parts[1].startswith(self._prefix):
            return await self._read(parts[1], partial(super().command, operation, *parts))
        try:
            return await super().command(operation, *parts)
        finally:
            self._written(operation, [parts[1:2]])

    async def _read(self, key: str, read: Callable[[], Any]) -> Any:
        if self.tracking.is_complete():
            kept = self.replies.get(key)
            if kept is not None:
                self.hits += 1
                return kept
        if not self.tracking.stands:
            return await read()
        right, reply = self.replies.ask(key), None
        try:
            reply = await read()
        finally:
            self.replies.answer(key, right, reply)
        return reply

    async def commands(self, operation: Operation, commands: Sequence[Command]) -> list[Any]:
        """Send several commands together, as the gateway does."""
        try:
            return await super().commands(operation, commands)
        finally:
            self._written(operation, [command[1:2] for command in commands])

    async def script(self, operation: Operation, script: Script, keys: Sequence[str], *arguments: Part) -> Any:
        """Run a script, as the gateway does."""
        try:
            return await super().script(operation, script, keys, *arguments)
        finally:
            self._written(operation, [keys])

    async def scripts(
        self, operation: Operation, script: Script, calls: Sequence[tuple[Sequence[str], Command]]
    ) -> list[Any]:
        """Run a script several times, as the gateway does."""
        try:
            return await super().scripts(operation, script, calls)
        finally:
            self._written(operation, [keys for keys, _ in calls])

    def _written(self, operation: Operation, several: Iterable[Sequence[Part]]) -> None:
        if operation.writes:
            self.replies.forget(str(key) for keys in several for key in keys)

    def _changed(self, keys: Sequence[bytes] | None) -> None:
        if keys is None:
            self.replies.forget_everything()
        else:
            self.replies.forget(key.decode(errors="replace") for key in keys)

    async def aclose(self) -> None:
        """Listen to no changes any more, close all connections, and wait for what is under way."""
        await self.tracking.aclose()
        await super().aclose()
