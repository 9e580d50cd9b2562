"""Whoever is killed, nothing is left behind and the next user finds working servers."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pymongo.errors import PyMongoError
from server_users import UserProcess, connect, processes_of, read, wait_until, wait_until_nothing_runs, write

from convostore.database.local_servers import LocalServers, running_servers
from convostore.database.server_state import DirectoryLayout
from convostore.database.throw_away import sweep_abandoned

StartUser = Callable[[Path | None], UserProcess]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place of its own for throw-away directories."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return place


def test_killed_user_leaves_no_servers(data: Path, start_user: StartUser) -> None:
    user = start_user(data).ready()
    assert len(processes_of(data)) == 3
    before = time.monotonic()
    user.kill()
    assert wait_until_nothing_runs(data) == []
    assert time.monotonic() - before < 3
    assert not DirectoryLayout(data).state.exists()


@pytest.mark.slow
def test_user_killed_while_starting_leaves_no_servers(data: Path, start_user: StartUser) -> None:
    user = start_user(data)
    wait_until(lambda: processes_of(data, "bin/mongod"))
    user.kill()
    with_servers = LocalServers.acquire_sync(data)
    write(with_servers.addresses, 1)
    with_servers.release_sync()
    assert processes_of(data) == []


def test_killed_keeper_takes_its_servers_along(data: Path, own_servers: LocalServers) -> None:
    write(own_servers.addresses, 1)
    for keeper in processes_of(data, "server_keeper"):
        keeper.kill()
    wait_until(lambda: running_servers(data) is None, seconds=0.5)
    assert wait_until_nothing_runs(data, 2) == []
    again = LocalServers.acquire_sync(data)
    assert read(again.addresses) == ([1], [1])
    again.release_sync()


@pytest.mark.parametrize("program", ["bin/mongod", "-server"])
def test_one_server_dies_the_other_follows(data: Path, own_servers: LocalServers, program: str) -> None:
    write(own_servers.addresses, 1)
    victim = next(p for p in processes_of(data) if program in p.cmdline()[0])
    victim.kill()
    wait_until(lambda: running_servers(data) is None)
    again = LocalServers.acquire_sync(data)
    assert again.addresses != own_servers.addresses
    assert len(processes_of(data)) == 3
    assert read(again.addresses) == ([1], [1])
    again.release_sync()


def test_keeper_ignores_the_terminal(servers: LocalServers) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        processes_of(servers.directory, "server_keeper")[0].send_signal(number)
    time.sleep(0.5)
    assert running_servers(servers.directory) == servers.addresses


def test_keeper_told_to_end_ends_cleanly(data: Path, own_servers: LocalServers) -> None:
    processes_of(data, "server_keeper")[0].terminate()
    assert wait_until_nothing_runs(data) == []
    assert not DirectoryLayout(data).state.exists()
    with connect(own_servers.addresses, 300) as client, pytest.raises(PyMongoError):
        client.admin.command("ping")


def test_throw_away_directory_is_removed(temporary: Path) -> None:
    servers = LocalServers.acquire_sync()
    assert servers.directory.parent == temporary
    with connect(servers.addresses) as client:
        client.admin.command("configureFailPoint", "failCommand", mode="off")
    other = LocalServers.acquire_sync(servers.directory)
    assert other.addresses == servers.addresses
    servers.release_sync()
    assert servers.directory.exists()
    other.release_sync()
    assert list(temporary.iterdir()) == []
    assert processes_of(servers.directory) == []


def test_throw_away_directory_of_a_killed_user_is_removed(temporary: Path, start_user: StartUser) -> None:
    user = start_user(None).ready()
    user.kill()
    assert wait_until_nothing_runs(user.directory, 3) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_throw_away_directory_of_a_killed_keeper_is_removed(temporary: Path, start_user: StartUser) -> None:
    swept_by_user, swept_later = start_user(None).ready(), start_user(None).ready()
    for directory in (swept_by_user.directory, swept_later.directory):
        processes_of(directory, "server_keeper")[0].kill()
        assert wait_until_nothing_runs(directory, 2) == []
    sweep_abandoned()
    assert set(temporary.iterdir()) == {swept_by_user.directory, swept_later.directory}
    swept_by_user.leave()
    assert list(temporary.iterdir()) == [swept_later.directory]
    swept_later.kill()
    assert list(temporary.iterdir()) == [swept_later.directory]
    servers = LocalServers.acquire_sync()
    assert list(temporary.iterdir()) == [servers.directory]
    servers.release_sync()


def test_sweep_leaves_what_is_used_or_not_ours(temporary: Path, start_user: StartUser) -> None:
    used = start_user(None).ready()
    (temporary / "convostore-notes").mkdir()
    sweep_abandoned()
    assert (temporary / "convostore-notes").exists()
    write(used.addresses, 1)
    assert read(used.addresses) == ([1], [1])
    used.leave()


async def test_cancelled_acquire_gives_the_servers_back(data: Path) -> None:
    starting = asyncio.create_task(LocalServers.acquire(data))
    while not processes_of(data, "mongod"):  # noqa: ASYNC110 - a process sets no event
        await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert processes_of(data) == []


def test_forgotten_hold_is_reported_and_ends(data: Path) -> None:
    servers = LocalServers.acquire_sync(data)
    with pytest.warns(ResourceWarning, match=r"users\.lock"):
        del servers
    assert wait_until_nothing_runs(data) == []
