"""Data directories that must be left by every process at the end of a test."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from server_users import UserProcess, wait_until_nothing_runs

from convostore.database.local_servers import LocalServers


@pytest.fixture
def start_user() -> Iterator[Callable[[Path | None], UserProcess]]:
    """Start processes that use the servers of a directory; kill them at the end."""
    users: list[UserProcess] = []

    def start(directory: Path | None) -> UserProcess:
        users.append(UserProcess(directory))
        return users[-1]

    yield start
    for user in users:
        user.kill()


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """A persistent data directory; nothing may run on it at the end of the test."""
    yield from _left_in_peace(tmp_path / "data")


@pytest.fixture
def own_servers(data: Path) -> Iterator[LocalServers]:
    """Servers on a persistent directory, which the test may kill."""
    servers = LocalServers.acquire_sync(data)
    yield servers
    servers.release_sync()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServers]:
    """Servers on a persistent directory, which must outlive each test."""
    for directory in _left_in_peace(tmp_path_factory.mktemp("servers")):
        servers = LocalServers.acquire_sync(directory)
        yield servers
        servers.release_sync()


def _left_in_peace(directory: Path) -> Iterator[Path]:
    yield directory
    left = wait_until_nothing_runs(directory)
    for process in left:
        process.kill()
    assert left == []


@pytest.fixture(scope="session", autouse=True)
def _importable_by_children() -> Iterator[None]:
    source = Path(__file__).parents[2] / "src"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")]))
        yield
