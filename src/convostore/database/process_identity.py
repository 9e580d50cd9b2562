"""A process named so that another one with a recycled id is never taken for it."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

__all__ = ["ProcessIdentity"]


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process id with the time at which that process started.

    Attributes:
        pid: the process id.
        started: the start time, in whatever unit the platform tells it; good for comparison only.
    """

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self:
        """Identify a process that is running now."""
        return cls(pid, _start_time(pid) or "")

    def is_alive(self) -> bool:
        """Tell whether this process runs; a zombie does not."""
        return self.started != "" and _start_time(self.pid) == self.started

    def kill(self) -> None:
        """End this process at once, if it is still there."""
        if self.is_alive():
            os.kill(self.pid, signal.SIGKILL)


def _start_time(pid: int) -> str | None:
    return _start_time_linux(pid) if sys.platform == "linux" else _start_time_elsewhere(pid)


def _start_time_linux(pid: int) -> str | None:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name of the program, in parentheses, may hold anything; the fields after it are fixed (proc(5)).
    state, *fields = status.rpartition(")")[2].split()
    return None if state in "ZX" else f"{boot}:{fields[18]}"


def _start_time_elsewhere(pid: int) -> str | None:
    listing = subprocess.run(  # noqa: S603 - a fixed command with a number
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = listing.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else started.strip()
