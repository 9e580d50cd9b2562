"""Lines of a file or of standard input, plain or gzipped, in bounded memory."""

import asyncio
import gzip
import io
import os
import stat
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Self, TypeVar

T = TypeVar("T")
STANDARD_INPUT = "-"
MAX_LINE_BYTES = 64 * 1024 * 1024
_PORTION_BYTES = 1024 * 1024
_PORTION_LINES = 2000
_BUFFER_BYTES = 1024 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """A line that is not empty.

    Attributes:
        number: counted from 1, empty lines included.
        text: its bytes; empty if it could not be read.
        problem: why it could not be read, or None.
    """

    number: int
    text: bytes
    problem: str | None = None


class LineSource:
    """Reads lines in portions; use it with ``with``.

    Args:
        path: of the file; ``-`` is standard input.
        max_line_bytes: a longer line is a problem, and is not kept in memory.

    Attributes:
        size: of the file in bytes, or None where that is not known.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: str | Path, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._raw = _open(path)
        information = os.fstat(self._raw.fileno())
        self.size = information.st_size if stat.S_ISREG(information.st_mode) else None
        self._buffered = _Counting(self._raw)
        self._lines: Any = None
        self._number = 0
        self._ended = False

    @property
    def position(self) -> int:
        """How many bytes of the file were read."""
        return self._buffered.count

    async def portion(self) -> list[Line]:
        """Return the next lines, about a megabyte of them or one; empty at the end."""
        return await in_thread(self._read_portion)

    def _read_portion(self) -> list[Line]:
        lines: list[Line] = []
        size = 0
        while not self._ended and size < _PORTION_BYTES and len(lines) < _PORTION_LINES:
            line = self._read_line()
            if line is not None:
                lines.append(line)
                size += len(line.text)
        return lines

    def _read_line(self) -> Line | None:
        self._number += 1
        try:
            text = self._stream().readline(self._max_line_bytes + 1)
            too_long = len(text) > self._max_line_bytes
            if too_long:
                self._skip_rest(text)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            self._ended = True
            return Line(self._number, b"", "the compressed data is damaged or ends early")
        if too_long:
            return Line(self._number, b"", f"longer than {self._max_line_bytes} bytes")
        self._ended = not text
        if self._number == 1:
            text = text.removeprefix(_BYTE_ORDER_MARK)
        return Line(self._number, text) if text.strip() else None

    def _skip_rest(self, text: bytes) -> None:
        while text and not text.endswith(b"\n"):
            text = self._stream().readline(_BUFFER_BYTES)

    def _stream(self) -> Any:
        # Not before the first line is asked for: looking at standard input may take its time.
        if self._lines is None:
            buffered = io.BufferedReader(self._buffered, _BUFFER_BYTES)
            gzipped = buffered.peek(len(_GZIP_MAGIC)).startswith(_GZIP_MAGIC)
            self._lines = io.BufferedReader(gzip.GzipFile(fileobj=buffered), _BUFFER_BYTES) if gzipped else buffered
        return self._lines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._raw.close()


def _open(path: str | Path) -> BinaryIO:
    if str(path) == STANDARD_INPUT:
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    return Path(path).open("rb", buffering=0)


class _Counting(io.RawIOBase):
    """A raw stream that counts what was read of it."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        read: int | None = self._raw.readinto(buffer)
        self.count += read or 0
        return read


async def in_thread(function: Callable[[], T]) -> T:
    """Run a function that may wait in a thread that does not keep the program from ending.

    Those of ``asyncio.to_thread`` do: a program that reads from a terminal could not be interrupted.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def report(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]
        else:
            future.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(report, result, failure)

    threading.Thread(target=run, daemon=True).start()
    return await future
