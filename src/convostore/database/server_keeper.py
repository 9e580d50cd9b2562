"""The process that owns the local servers of one data directory.

It is started by the first user of the directory, belongs to no terminal, and ends its servers when the last
user has gone. The kernel tells it: each user holds a shared lock for as long as he lives.
"""

import json
import os
import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from convostore.database.child_server import start_together
from convostore.database.file_lock import FileLock
from convostore.database.process_identity import ProcessIdentity
from convostore.database.server_kinds import MongodServer, ValkeyServer
from convostore.database.server_state import DirectoryLayout, ServerAddresses, ServerState
from convostore.database.throw_away import discard, end_leftovers
from convostore.repositories.exceptions import LocalServerError

__all__ = ["ServerKeeper", "main"]

POLL_SECONDS = 0.1
LOCK_SECONDS = 10.0


class ServerKeeper:
    """Starts the servers of a directory, waits until nobody uses them, stops them.

    Args:
        layout: the data directory.
        mongod: the program.
        valkey_server: the program.
        start_lock: the lock on starting, already held.
    """

    def __init__(self, layout: DirectoryLayout, mongod: Path, valkey_server: Path, start_lock: FileLock) -> None:
        self._layout = layout
        self._mongod = MongodServer(mongod, layout)
        self._valkey = ValkeyServer(valkey_server, layout)
        self._servers = (self._valkey, self._mongod)  # the quicker to fail comes first
        self._start_lock = start_lock
        self._users_lock = FileLock.open(layout.users_lock)
        self._servers_lock = FileLock.open(layout.servers_lock)

    def start(self) -> None:
        """Start both servers and write down where they are.

        Raises:
            LocalServerError: one of them does not start, or the directory is in use by a stranger.
        """
        if not (end_leftovers(self._layout) and self._servers_lock.try_exclusive()):
            message = f"The servers of {self._layout.directory} belong to a process that cannot be reached."
            raise LocalServerError("local servers", message=message)
        start_together(self._servers, self._servers_lock.descriptor)
        ServerState(
            ServerAddresses(self._mongod.uri, self._valkey.url),
            ProcessIdentity.of(os.getpid()),
            tuple(ProcessIdentity.of(server.pid) for server in self._servers),
        ).write(self._layout)

    def wait_until_unused(self) -> None:
        """Wait for the end of the last user, or of a server."""
        # The one who started us holds the inherited lock as well; from here on we compete like everybody.
        self._start_lock.close()
        self._start_lock = FileLock.open(self._layout.start_lock)
        while not self._is_unused() and all(server.is_running() for server in self._servers):
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """Stop both servers and remove what told of them, so that the next user starts anew."""
        # Held until this process ends: who comes now must not attach.
        self._start_lock.wait_exclusive(LOCK_SECONDS)
        self._layout.state.unlink(missing_ok=True)
        for server in self._servers:
            server.begin_stop()
        for server in self._servers:
            server.finish_stop()
        if self._layout.is_throw_away and self._users_lock.try_exclusive():
            discard(self._layout)

    def _is_unused(self) -> bool:
        if not self._start_lock.try_exclusive():
            return False
        if self._users_lock.try_exclusive():
            return True
        self._start_lock.unlock()
        return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Leave the process that started us, then keep the servers of a directory."""
    options = _parse(arguments)
    if os.fork():
        os._exit(0)  # so that the keeper is nobody's zombie
    os.chdir("/")
    _listen_to_signals()
    layout = DirectoryLayout(options.directory)
    start_lock = FileLock.inherited(options.start_lock)
    keeper = ServerKeeper(layout, options.mongod, options.valkey_server, start_lock)
    try:
        _start(keeper, options.report)
        keeper.wait_until_unused()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        keeper.stop()


def _parse(arguments: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("mongod", type=Path)
    parser.add_argument("valkey_server", type=Path)
    parser.add_argument("start_lock", type=int, help="descriptor of the lock on starting")
    parser.add_argument("report", type=int, help="descriptor for the outcome of the start")
    return parser.parse_args(arguments)


def _listen_to_signals() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())


def _start(keeper: ServerKeeper, descriptor: int) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as report:
        try:
            keeper.start()
        except LocalServerError as error:
            keeper.stop()  # before the report, so that a failed start leaves nothing behind
            json.dump({"database_type": error.database_type, "message": str(error)}, report)
            sys.exit(1)
        json.dump({}, report)


if __name__ == "__main__":
    main()
