"""A database server as a child process that dies with its parent."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from convostore.database.server_binaries import WAYS_OUT
from convostore.database.server_state import DirectoryLayout
from convostore.repositories.exceptions import LocalServerError

__all__ = ["HOST", "ChildServer", "PortTakenError", "free_ports", "start_together"]

HOST = "127.0.0.1"
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02
PORT_ATTEMPTS = 5
SHOWN_LINES = 12
SHOWN_CHARACTERS = 600
PR_SET_PDEATHSIG = 1


class PortTakenError(Exception):
    """Exception raised when somebody else took the port between its choice and its use."""


class ChildServer(ABC):
    """One server, its data and its log in a subdirectory and a file of the data directory."""

    name: ClassVar[str]
    database_type: ClassVar[str]

    def __init__(self, program: Path, layout: DirectoryLayout) -> None:
        self.program = program
        self.throw_away = layout.is_throw_away
        self.data = layout.directory / self.name
        self.log = layout.directory / f"{self.name}.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command line for the present port."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Bring the server a step nearer to use and tell whether it is there.

        Raises:
            PortTakenError: a server that is not this child answers on the port.
        """

    @property
    def pid(self) -> int:
        """The process id, 0 before the start."""
        return self.process.pid if self.process else 0

    def is_running(self) -> bool:
        """Tell whether the process is there."""
        return self.process is not None and self.process.poll() is None

    def start(self, port: int, keep_open: int) -> None:
        """Start the process.

        Args:
            port: where to listen on loopback.
            keep_open: a file descriptor that the server is to inherit.

        Raises:
            LocalServerError: the program cannot be run.
        """
        self.port = port
        self.data.mkdir(exist_ok=True)
        with self.log.open("wb") as log:
            try:
                self.process = subprocess.Popen(  # noqa: S603 - a program of the user's own choice
                    self.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    pass_fds=(keep_open,),
                    preexec_fn=_die_with_parent(),  # noqa: PLW1509 - the keeper has one thread
                )
            except OSError as error:
                raise self._failure(f"cannot be run: {error}") from error

    def wait_until_ready(self) -> None:
        """Wait until the server can be used.

        Raises:
            PortTakenError: its port was taken.
            LocalServerError: it ended, or was not ready in time; the message shows the end of its log.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            if not self.is_running():
                raise self._ended()
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready within {READY_SECONDS:.0f} s")
            time.sleep(POLL_SECONDS)

    def begin_stop(self) -> None:
        """Tell the process to end: at once if its data is thrown away, else after writing everything."""
        if self.process and self.is_running():
            self.process.send_signal(signal.SIGKILL if self.throw_away else signal.SIGTERM)

    def finish_stop(self) -> None:
        """Wait for the end of the process; force it when that takes too long."""
        if self.process:
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def _ended(self) -> Exception:
        if "address already in use" in self._log_text().lower():
            return PortTakenError()
        status = self.process.returncode if self.process else None
        return self._failure(f"ended at once with status {status}")

    def _failure(self, what: str) -> LocalServerError:
        lines = self._log_text().splitlines()
        # mongod goes on talking after the lines that count, of severity E or F; others have no such lines.
        severe = [line for line in lines if '"s":"E"' in line or '"s":"F"' in line]
        shown = [line[:SHOWN_CHARACTERS] for line in (severe or lines)[-SHOWN_LINES:]]
        log = "\n  ".join(["The end of its log:", *shown])
        message = f"The local server {self.program} {what}. {log}\nIf that cannot be mended: {WAYS_OUT}"
        return LocalServerError(self.database_type, message=message)

    def _log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def free_ports(count: int) -> list[int]:
    """Choose different ports on loopback that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def start_together(
    servers: Sequence[ChildServer], keep_open: int, choose_ports: Callable[[int], list[int]] = free_ports
) -> None:
    """Start servers at the same time and wait until all are ready.

    Args:
        servers: what to start.
        keep_open: a file descriptor that they are to inherit.
        choose_ports: gives so many ports to try; asked again for a server whose port was taken.

    Raises:
        LocalServerError: one of them does not come up. Those that did are left running.
    """
    for server, port in zip(servers, choose_ports(len(servers)), strict=True):
        server.start(port, keep_open)
    for server in servers:
        _settle(server, keep_open, choose_ports)


def _settle(server: ChildServer, keep_open: int, choose_ports: Callable[[int], list[int]]) -> None:
    for _ in range(PORT_ATTEMPTS):
        try:
            return server.wait_until_ready()
        except PortTakenError:
            server.begin_stop()
            server.finish_stop()
            server.start(choose_ports(1)[0], keep_open)
    message = f"The local server {server.program} found its port taken {PORT_ATTEMPTS} times."
    raise LocalServerError(server.database_type, message=message)


def _die_with_parent() -> Callable[[], None] | None:
    """Return what a child does before it becomes the server: ask the kernel to end it with its parent."""
    if sys.platform != "linux":
        return None
    # Loaded here, because the child may only call what is loaded already.
    set_option = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        set_option(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask
