"""Real servers on loopback, shared by the processes that use one data directory.

The first user starts them, the next attach, the last one out stops them. A user is counted by a lock that
the kernel takes back when he dies, so servers never outlive their users, however these end. They are for trying
out, and for tests: there is no access control.
"""

import asyncio
import json
import os
import select
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import platformdirs

from convostore.database.file_lock import FileLock
from convostore.database.server_binaries import WAYS_OUT, ServerBinaries
from convostore.database.server_state import DirectoryLayout, ServerAddresses, ServerState
from convostore.database.throw_away import DEATH_SECONDS, create_throw_away, remove_if_abandoned, sweep_abandoned
from convostore.repositories.exceptions import LocalServerError

__all__ = ["LocalServers", "ServerAddresses", "default_data_directory", "running_servers"]

LOCK_SECONDS = 120.0
START_SECONDS = 100.0
STOP_SECONDS = 40.0
POLL_SECONDS = 0.02
SHOWN_CHARACTERS = 2000


class LocalServers:
    """A user's hold on the shared servers of one data directory.

    Made by :meth:`acquire` or :meth:`acquire_sync`; give it back, or use it in an ``async with``.

    Attributes:
        addresses: where the servers answer.
        directory: the data directory.
    """

    def __init__(self, directory: Path, state: ServerState, users_lock: FileLock) -> None:
        self.addresses = state.addresses
        self.directory = directory
        self._keeper = state.keeper
        self._users_lock: FileLock | None = users_lock

    @classmethod
    async def acquire(cls, directory: Path | None = None) -> "LocalServers":
        """Use the servers of a directory, starting them if nobody does.

        Args:
            directory: holds the data, made if it is missing. None: a throw-away directory, removed at the
                end, whose mongod accepts fail points.

        Raises:
            LocalServerError: no programs to run, or they do not start; the message says what to do.
        """
        starting = asyncio.ensure_future(asyncio.to_thread(cls.acquire_sync, directory))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread cannot be cancelled; what it brings must not stay with nobody.
            with suppress(LocalServerError):
                await (await starting).release()
            raise

    @classmethod
    def acquire_sync(cls, directory: Path | None = None) -> "LocalServers":
        """Do the same as :meth:`acquire` outside of an event loop."""
        if sys.platform == "win32":
            raise LocalServerError("local servers", message=f"No local servers on Windows. {WAYS_OUT}")
        try:
            return cls._acquire_throw_away() if directory is None else cls._acquire(directory.absolute())
        except LocalServerError:
            raise
        except OSError as error:
            message = f"Local servers cannot use their directory: {error}"
            raise LocalServerError("local servers", error, message=message) from error

    async def release(self) -> None:
        """Stop using the servers; if nobody else does, they are gone when this returns.

        A second call does nothing.
        """
        await asyncio.to_thread(self.release_sync)

    def release_sync(self) -> None:
        """Do the same as :meth:`release` outside of an event loop."""
        if self._users_lock:
            self._users_lock.close()
            self._users_lock = None
            layout = DirectoryLayout(self.directory)
            self._wait_until_stopped(layout)
            remove_if_abandoned(layout, DEATH_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.release()

    @classmethod
    def _acquire_throw_away(cls) -> "LocalServers":
        sweep_abandoned()
        layout, hold = create_throw_away()
        try:
            return cls._acquire(layout.directory)
        finally:
            hold.close()
            remove_if_abandoned(layout, DEATH_SECONDS)

    @classmethod
    def _acquire(cls, directory: Path) -> "LocalServers":
        layout = DirectoryLayout(directory)
        with closing(_lock_start(layout)) as start_lock:
            users_lock = FileLock.open(layout.users_lock)
            try:
                users_lock.try_shared()
                state = ServerState.read(layout)
                if state is None or not state.is_running():
                    state = _start_keeper(layout, start_lock)
            except BaseException:
                users_lock.close()
                raise
        return cls(directory, state, users_lock)

    def _wait_until_stopped(self, layout: DirectoryLayout) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while self._keeper.is_alive() and time.monotonic() < deadline:
            if _has_users(layout):
                return
            time.sleep(POLL_SECONDS)


def default_data_directory() -> Path:
    """Return where the command line keeps its data.

    Returns:
        ``CONVOSTORE_DATA`` of the environment, else the user's data directory by the platform's convention.
    """
    named = os.environ.get("CONVOSTORE_DATA")
    return Path(named).expanduser() if named else platformdirs.user_data_path("convostore", appauthor=False)


def running_servers(directory: Path) -> ServerAddresses | None:
    """Tell where the servers of a directory answer at this moment.

    Args:
        directory: the data directory; need not exist.

    Returns:
        Their addresses, or None when they do not run. Nobody keeps them running for the caller.
    """
    state = ServerState.read(DirectoryLayout(directory.absolute()))
    return state.addresses if state and state.is_running() else None


def _lock_start(layout: DirectoryLayout) -> FileLock:
    """Make the directory and lock it against everyone else who starts, attaches or stops."""
    deadline = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < deadline:
        layout.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock.open(layout.start_lock)
        # A throw-away directory may have been removed while we waited, and the lock with it. A keeper that
        # has lost a server needs the lock to stop the other.
        if lock.wait_exclusive(deadline - time.monotonic()) and lock.is_at(layout.start_lock):
            state = ServerState.read(layout)
            if state is None or not state.is_failing():
                return lock
        lock.close()
        time.sleep(POLL_SECONDS)
    raise LocalServerError("local servers", message=f"Somebody else holds {layout.start_lock} for too long.")


def _has_users(layout: DirectoryLayout) -> bool:
    """Tell whether somebody certainly uses the servers, and nobody is about to stop them."""
    try:
        with (
            closing(FileLock.open(layout.start_lock)) as start_lock,
            closing(FileLock.open(layout.users_lock)) as users_lock,
        ):
            return start_lock.try_exclusive() and not users_lock.try_exclusive()
    except FileNotFoundError:
        return False


def _start_keeper(layout: DirectoryLayout, start_lock: FileLock) -> ServerState:
    """Start the keeper and wait for its report.

    It inherits the lock on starting, so that nobody interferes even if this process is killed meanwhile.
    """
    binaries = ServerBinaries.find()
    reader, writer = os.pipe()
    programs = [layout.directory, binaries.mongod, binaries.valkey_server]
    with os.fdopen(reader, encoding="utf-8") as report, layout.keeper_log.open("wb") as log:
        try:
            subprocess.run(  # noqa: S603 - our own module
                [
                    *(sys.executable, "-P", "-m", "convostore.database.server_keeper"),
                    *map(str, [*programs, start_lock.descriptor, writer]),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(start_lock.descriptor, writer),
                start_new_session=True,
                check=False,
            )
        finally:
            os.close(writer)
        readable, _, _ = select.select([report], [], [], START_SECONDS)
        return _reported_state(layout, report.read() if readable else "")


def _reported_state(layout: DirectoryLayout, report: str) -> ServerState:
    if report and (problem := json.loads(report)):
        raise LocalServerError(problem["database_type"], message=problem["message"])
    state = ServerState.read(layout) if report else None
    if state is None:
        trace = layout.keeper_log.read_text(encoding="utf-8", errors="replace")[-SHOWN_CHARACTERS:]
        message = f"The keeper of the local servers ended before they were ready. {trace}".strip()
        raise LocalServerError("local servers", message=message)
    return state
