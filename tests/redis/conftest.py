"""Ways to real Redis servers; each test takes tenants of its own, so that it finds nothing of another.

A test that uses ``clients``, ``redis_settings`` or ``redis_url`` runs three times: on Valkey (``[valkey]``, or on what
``CONVOSTORE_REDIS_URL`` names), on Redis (``[redis]``, where ``redis-server`` is on the PATH) and on a cluster of three
(``[cluster]``). One that is heavy, or that has nothing to do with the kind of server, says ``@pytest.mark.one_server``
and runs on Valkey only; ``pytestmark = pytest.mark.one_server`` says so for a module. ``-k valkey`` is that one.

``own_server`` is a server of the test's own, to be frozen, killed or filled.
"""

import os
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from pydantic import SecretStr

from convostore.database.redis_client import RedisClients
from convostore.database.settings import RedisSettings, variable
from convostore.testing.redis_groups import LocalCluster
from convostore.testing.redis_servers import RedisServer, find_program

SESSION_KEY = "a session key of tests, 32 or longer"
KINDS = ["valkey", "redis", "cluster"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "one_server: runs on Valkey only, not on Redis and on a cluster as well")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "redis_kind" in metafunc.fixturenames:
        kinds = KINDS[:1] if metafunc.definition.get_closest_marker("one_server") else KINDS
        metafunc.parametrize("redis_kind", kinds, indirect=True, scope="session")


@pytest.fixture
def tenant() -> str:
    """A tenant that no other test uses, with what has a meaning in a key."""
    return f"acme:{{{uuid.uuid4().hex[:12]}}}%"


@pytest.fixture(scope="session")
def redis_kind(request: pytest.FixtureRequest) -> str:
    """On what the test runs: ``valkey``, ``redis`` or ``cluster``."""
    kind: str = request.param
    if kind == "redis" and find_program("redis") is None:
        pytest.skip("no redis-server on the PATH")
    return kind


@pytest.fixture(scope="session")
def redis_url(redis_kind: str, request: pytest.FixtureRequest) -> str:
    """The address of a server, or of a cluster, that all tests share."""
    url: str = request.getfixturevalue(f"_{redis_kind}_url")
    return url


@pytest.fixture(scope="session")
def _valkey_url() -> Iterator[str]:
    named = os.environ.get(variable("redis_url"))
    if named:
        yield named
        return
    with RedisServer("valkey") as server:
        yield server.url


@pytest.fixture(scope="session")
def _redis_url() -> Iterator[str]:
    with RedisServer("redis") as server:
        yield server.url


@pytest.fixture(scope="session")
def _cluster_url() -> Iterator[str]:
    with LocalCluster() as cluster:
        yield cluster.url


@pytest.fixture
def redis_settings(redis_url: str) -> RedisSettings:
    """Patient settings: a busy machine is no fault."""
    return RedisSettings(
        redis_url=SecretStr(redis_url), redis_deadline=5, cache_deadline=5, session_key=SecretStr(SESSION_KEY)
    )


@pytest.fixture
async def clients(redis_settings: RedisSettings) -> AsyncIterator[RedisClients]:
    opened = RedisClients.open(redis_settings)
    try:
        yield opened
    finally:
        await opened.aclose()


@pytest.fixture
def own_server() -> Iterator[RedisServer]:
    """A server of the test's own."""
    with RedisServer() as server:
        yield server
