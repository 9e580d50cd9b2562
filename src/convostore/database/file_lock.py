"""Advisory lock on a file, which the kernel takes back when its holder dies."""

import io
import os
import sys
import time
from pathlib import Path
from typing import Self

if sys.platform != "win32":
    import fcntl

__all__ = ["FileLock"]

POLL_SECONDS = 0.02


class FileLock:
    """A ``flock`` on one opening of a file.

    Two objects exclude each other even in one process, because each opens the file anew. A process that
    inherits the descriptor holds the same lock; it is free when the last of them has closed it.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file of a lock, creating it where it is missing; nothing is locked yet.

        Args:
            path: the file; its directory must be there.

        Raises:
            OSError: the file cannot be opened.
        """
        return cls(io.FileIO(path, "a"))

    @classmethod
    def inherited(cls, descriptor: int) -> Self:
        """Take over a descriptor that the parent process has locked."""
        return cls(io.FileIO(descriptor, "a"))

    @property
    def descriptor(self) -> int:
        """The file descriptor, to be passed on to a child."""
        return self._file.fileno()

    def try_exclusive(self) -> bool:
        """Lock against everybody, or return False when somebody else holds the lock."""
        return self._try(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Lock against exclusive holders, or return False when there is one."""
        return self._try(fcntl.LOCK_SH)

    def wait_exclusive(self, seconds: float) -> bool:
        """Lock against everybody, or return False when that was not possible for so long."""
        deadline = time.monotonic() + seconds
        while not self.try_exclusive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def is_at(self, path: Path) -> bool:
        """Tell whether the path still leads to the file that was opened, which a removal ends."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), path.stat())
        except FileNotFoundError:
            return False

    def unlock(self) -> None:
        """Give the lock back and keep the file open."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file, which gives the lock back unless another process inherited it."""
        self._file.close()

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self.descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
