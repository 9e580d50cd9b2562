"""Who uses one directory at the same time shares its servers, and the last one out stops them."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from pymongo.errors import OperationFailure
from server_users import UserProcess, connect, processes_of, read, write

from convostore.database.local_servers import LocalServers, default_data_directory, running_servers
from convostore.database.process_identity import ProcessIdentity
from convostore.database.server_state import DirectoryLayout, ServerState

StartUser = Callable[[Path | None], UserProcess]


def test_both_servers_can_be_used(servers: LocalServers) -> None:
    write(servers.addresses, 1)
    assert read(servers.addresses) == ([1], [1])


def test_servers_listen_on_loopback_only(servers: LocalServers) -> None:
    listening = [
        connection.laddr.ip
        for process in processes_of(servers.directory)
        for connection in process.net_connections("all")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1", "127.0.0.1"]


def test_transactions_work(servers: LocalServers) -> None:
    with connect(servers.addresses) as client, client.start_session() as session:
        with session.start_transaction():
            client.transactions.values.insert_one({"_id": 1}, session=session)
            client.transactions.others.insert_one({"_id": 1}, session=session)
            session.abort_transaction()
        with session.start_transaction():
            client.transactions.values.insert_one({"_id": 2}, session=session)
        assert [found["_id"] for found in client.transactions.values.find()] == [2]
        assert client.transactions.others.count_documents({}) == 0


def test_persistent_servers_refuse_fail_points(servers: LocalServers) -> None:
    with connect(servers.addresses) as client, pytest.raises(OperationFailure, match="no such command"):
        client.admin.command("configureFailPoint", "failCommand", mode="off")


def test_holds_of_one_process_are_counted(data: Path) -> None:
    first = LocalServers.acquire_sync(data)
    second = LocalServers.acquire_sync(data)
    assert second.addresses == first.addresses
    first.release_sync()
    first.release_sync()
    assert running_servers(data) == second.addresses
    assert len(processes_of(data)) == 3
    second.release_sync()
    assert running_servers(data) is None
    assert processes_of(data) == []


def test_release_does_not_wait_for_other_users(servers: LocalServers) -> None:
    other = LocalServers.acquire_sync(servers.directory)
    before = time.monotonic()
    other.release_sync()
    assert time.monotonic() - before < 0.5
    assert running_servers(servers.directory) == servers.addresses


def test_last_process_out_stops_the_servers(data: Path, start_user: StartUser) -> None:
    first = start_user(data).ready()
    second = start_user(data).ready()
    assert second.addresses == first.addresses
    first.leave()
    write(second.addresses, 1)
    assert read(second.addresses) == ([1], [1])
    second.leave()
    assert processes_of(data) == []


def test_six_processes_at_once_start_one_pair(data: Path, start_user: StartUser) -> None:
    users = [start_user(data) for _ in range(6)]
    assert len({user.ready().addresses for user in users}) == 1
    assert len(processes_of(data, "server_keeper")) == 1
    assert len(processes_of(data)) == 3


@pytest.mark.slow
def test_data_lasts_in_a_directory_of_ones_own(data: Path) -> None:
    for value in (1, 2):
        servers = LocalServers.acquire_sync(data)
        write(servers.addresses, value)
        expected = list(range(1, value + 1))
        assert read(servers.addresses) == (expected, expected)
        servers.release_sync()
    assert not DirectoryLayout(data).state.exists()


async def test_asynchronous_use(data: Path) -> None:
    async with await LocalServers.acquire(data) as servers:
        assert running_servers(data) == servers.addresses
    await servers.release()
    assert processes_of(data) == []


def test_stale_state_is_not_believed(servers: LocalServers, tmp_path: Path) -> None:
    state, elsewhere = ServerState.read(DirectoryLayout(servers.directory)), DirectoryLayout(tmp_path)
    assert state
    state.write(elsewhere)
    assert running_servers(tmp_path) == servers.addresses
    recycled = ProcessIdentity(os.getpid(), state.keeper.started)
    for keeper, mongod in ((recycled, state.servers[0]), (state.keeper, recycled)):
        ServerState(state.addresses, keeper, (mongod, state.servers[1])).write(elsewhere)
        assert running_servers(tmp_path) is None
    elsewhere.state.write_text("{")
    assert running_servers(tmp_path) is None


@pytest.mark.slow
def test_keeper_has_no_hold_on_the_pipes_of_its_user(data: Path, start_user: StartUser) -> None:
    first = start_user(data).ready()
    second = LocalServers.acquire_sync(data)
    first.process.kill()
    assert first.process.stdout is not None
    assert first.process.stdout.read() == ""  # returns only when nobody holds the other end
    assert running_servers(data) == second.addresses
    second.release_sync()


def test_default_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVOSTORE_DATA", str(tmp_path))
    assert default_data_directory() == tmp_path
    monkeypatch.delenv("CONVOSTORE_DATA")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    assert "convostore" in default_data_directory().parts
