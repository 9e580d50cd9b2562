"""Data directories that are removed when their last user has gone."""

import os
import shutil
import tempfile
from contextlib import closing, suppress
from pathlib import Path

from convostore.database.file_lock import FileLock
from convostore.database.server_state import DirectoryLayout, ServerState

__all__ = ["DEATH_SECONDS", "create_throw_away", "discard", "end_leftovers", "remove_if_abandoned", "sweep_abandoned"]

PREFIX = "convostore-"
DEATH_SECONDS = 5.0


def create_throw_away() -> tuple[DirectoryLayout, FileLock]:
    """Make an empty throw-away directory.

    Returns:
        Its layout, with the users' lock held shared: a sweep takes whatever bears the mark without a user.

    Raises:
        OSError: there is no room for it.
    """
    layout = DirectoryLayout(Path(tempfile.mkdtemp(prefix=PREFIX)))
    hold = FileLock.open(layout.users_lock)
    hold.try_shared()
    layout.throw_away_mark.touch()
    return layout, hold


def sweep_abandoned() -> None:
    """Remove the throw-away directories of this user whose keeper was killed before it could."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # whoever sweeps at the same time
            if directory.lstat().st_uid == os.getuid() and not directory.is_symlink():
                remove_if_abandoned(DirectoryLayout(directory))


def remove_if_abandoned(layout: DirectoryLayout, patience: float = 0.0) -> None:
    """Remove a throw-away directory that has neither users nor servers; leave every other one alone.

    Args:
        layout: the directory; need not exist.
        patience: seconds to wait for somebody who is just starting or stopping its servers.
    """
    if not layout.is_throw_away:
        return
    with (
        suppress(FileNotFoundError),
        closing(FileLock.open(layout.start_lock)) as start,
        closing(FileLock.open(layout.users_lock)) as users,
    ):
        if start.wait_exclusive(patience) and users.try_exclusive() and end_leftovers(layout):
            discard(layout)


def discard(layout: DirectoryLayout) -> None:
    """Remove a directory, of which the caller holds all locks."""
    # It goes in one step, else somebody could create a file in it between two steps of its removal.
    doomed = layout.directory.with_name(f"{layout.directory.name}-removed")
    with suppress(FileNotFoundError):
        layout.directory.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def end_leftovers(layout: DirectoryLayout) -> bool:
    """End servers that outlived their keeper.

    On Linux the kernel has ended them with it; elsewhere they are found by what the keeper wrote down.

    Returns:
        True if no server of this directory runs any more, False if their keeper is alive.
    """
    state = ServerState.read(layout)
    if state and not state.keeper.is_alive():
        for server in state.servers:
            server.kill()
    with closing(FileLock.open(layout.servers_lock)) as servers:
        return servers.wait_exclusive(0 if state and state.keeper.is_alive() else DEATH_SECONDS)
