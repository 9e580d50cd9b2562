"""One member of a replica set, with the proxy through which clients reach it."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, ClassVar, Self

from convostore.database.child_server import HOST
from convostore.database.server_binaries import ServerBinaries
from convostore.database.server_kinds import REPLICA_SET, MongodServer
from convostore.database.server_state import DirectoryLayout
from convostore.gateways.member_probe import is_primary, set_fail_point, step_down
from convostore.testing.mongo_proxy import MongoProxy

__all__ = ["SET_NAME", "Member", "MemberProxy"]

SET_NAME = REPLICA_SET
_HANDSHAKES = (None, "hello", "isMaster", "ismaster")


class MemberProxy(MongoProxy):
    """A proxy that tells clients the addresses of proxies for those of members.

    Attributes:
        names: what each address of a member is to be called; both of one length, so that no message changes its own.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.names: Mapping[bytes, bytes] = {}

    def told(self, name: str | None, answer: bytes) -> bytes:
        """Return the answer with the other addresses where it tells of members."""
        if name in _HANDSHAKES:
            for own, other in self.names.items():
                if len(own) != len(other):
                    raise OSError("addresses of different lengths")
                answer = answer.replace(own, other)
        return answer


class Member:
    """A mongod as a child process, with its proxy; made by ``ReplicaSet``.

    Attributes:
        number: its place in the set.
        port: where it listens on loopback, the same over restarts.
        proxy: through which clients reach it.
    """

    def __init__(self, number: int, port: int, layout: DirectoryLayout, keep_open: int) -> None:
        self.number, self.port = number, port
        self.proxy = MemberProxy(HOST, port)
        self._server = _MemberServer(number, layout)
        self._keep_open = keep_open

    @property
    def address(self) -> str:
        """Where it listens, past all proxies, as ``host:port``."""
        return f"{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id, 0 when it does not run."""
        return self._server.pid if self._server.is_running() else 0

    async def __aenter__(self) -> Self:
        self._ends = AsyncExitStack()
        await self._ends.enter_async_context(self.proxy)
        self._ends.callback(self.kill)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._ends.aclose()

    def launch(self) -> None:
        """Start the process.

        Raises:
            LocalServerError: the program cannot be run.
        """
        self._server.start(self.port, self._keep_open)

    async def answering(self) -> None:
        """Wait until it answers.

        Raises:
            LocalServerError: it ended, or does not answer; the message shows the end of its log.
        """
        await asyncio.to_thread(self._server.wait_until_ready)

    def kill(self) -> None:
        """End it at once, as a crash does; its data and its port stay for a restart."""
        self._server.begin_stop()
        self._server.finish_stop()

    async def restart(self) -> None:
        """End it at once if it runs, start it again with its data, and wait until it answers."""
        self.kill()
        self.launch()
        await self.answering()

    def pause(self) -> None:
        """Freeze it: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._server.process and self._server.is_running():
            self._server.process.send_signal(number)

    async def is_primary(self) -> bool:
        """Tell whether it takes itself for the primary."""
        return await asyncio.to_thread(is_primary, HOST, self.port)

    async def step_down(self, seconds: int) -> bool:
        """Let it give up the office of primary for some seconds; say whether it did."""
        return await asyncio.to_thread(step_down, HOST, self.port, seconds)

    async def fail(self, mode: Mapping[str, Any] | str, **data: Any) -> None:
        """Arm the fail point ``failCommand``, or disarm it with ``"off"``.

        Args:
            mode: such as ``{"times": 3}``, ``{"activationProbability": 0.1}``, ``"alwaysOn"``, ``"off"``.
            data: such as ``failCommands=["insert"], closeConnection=True, appName="convostore"``.
        """
        await asyncio.to_thread(set_fail_point, HOST, self.port, mode, data)


class _MemberServer(MongodServer):
    """The process of a member."""

    cache_gigabytes: ClassVar[str] = "0.25"
    oplog_megabytes: ClassVar[str] = "64"

    def __init__(self, number: int, layout: DirectoryLayout) -> None:
        super().__init__(ServerBinaries.find().mongod, layout)
        self.data = layout.directory / f"mongod-{number}"  # several of a kind are in one directory
        self.log = layout.directory / f"mongod-{number}.log"

    def is_ready(self) -> bool:
        """Tell whether it answers; the set is founded later."""
        return self.answers()
