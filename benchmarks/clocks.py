"""Clocks: of the wall, of the processor in this process, and in the servers."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import psutil

from convostore.database.local_servers import LocalServers
from convostore.database.server_state import DirectoryLayout, ServerState

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Clocks:
    """What a measurement reads, in seconds.

    Attributes:
        wall: passes by itself.
        client: processor time of this process, all its threads together.
        servers: processor time of the servers, in steps of 10 ms on Linux.
    """

    wall: Clock = time.perf_counter
    client: Clock = time.process_time
    servers: Clock = lambda: 0.0

    @classmethod
    def beside(cls, servers: LocalServers) -> "Clocks":
        """Return clocks that see the processes of local servers."""
        state = ServerState.read(DirectoryLayout(servers.directory))
        pids = [] if state is None else [server.pid for server in state.servers]
        return cls(servers=_processor_time(pids))


def _processor_time(pids: Iterable[int]) -> Clock:
    processes = [psutil.Process(pid) for pid in pids]

    def read() -> float:
        return sum(times.user + times.system for times in (process.cpu_times() for process in processes))

    return read
