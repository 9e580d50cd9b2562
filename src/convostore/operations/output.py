"""Outputs: where an export goes, a file that is there only once it is whole, or standard output."""

import gzip
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, Protocol

STANDARD_OUTPUT = "-"
_LEVEL = 6


class Output(Protocol):
    """Takes bytes."""

    def write(self, data: bytes, /) -> object:
        """Write them, or raise OSError."""
        ...


@contextmanager
def open_output(path: str | Path) -> Iterator[Output]:
    """Open an output for the time of a ``with``; a name that ends in ``.gz`` is compressed.

    The file is written beside its place and moved there at the end; after an exception nothing is left of it, and what
    was there before stays. A path that is no ordinary file, such as a pipe, is written to directly.

    Args:
        path: of the file; ``-`` is standard output.

    Raises:
        OSError: it cannot be written.
    """
    target = Path(path)
    if str(path) == STANDARD_OUTPUT:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    elif target.exists() and not target.is_file():
        with target.open("wb") as stream:
            yield stream
    else:
        with _beside(target.resolve()) as raw, _compressed(raw, target.suffix) as stream:
            yield stream


@contextmanager
def _beside(target: Path) -> Iterator[BinaryIO]:
    partial = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.partial")
    with _removed_on_failure(partial.unlink), partial.open("xb") as raw:
        yield raw
        raw.flush()
        os.fsync(raw.fileno())
        partial.replace(target)


@contextmanager
def _removed_on_failure(remove: Callable[..., None]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        remove(missing_ok=True)
        raise


@contextmanager
def _compressed(raw: BinaryIO, suffix: str) -> Iterator[IO[bytes]]:
    if suffix != ".gz":
        yield raw
        return
    # Without a name and a time in it the same conversations make the same file.
    with gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as stream:
        yield stream  # type: ignore[misc]
