"""What all tests share: a store on a real server, and two tenants in it."""

import gc
import logging
import re
from collections.abc import Iterator

import pytest

from convostore import ConvoStore, TenantStore

# As a plugin found by itself, which it is for users, it would be imported before coverage is measured.
pytest_plugins = ["convostore.testing.plugin"]


@pytest.fixture
def store(convostore_store: ConvoStore) -> ConvoStore:
    return convostore_store


@pytest.fixture
def acme(store: ConvoStore) -> TenantStore:
    return store.tenant("acme")


@pytest.fixture
def rival(store: ConvoStore) -> TenantStore:
    return store.tenant("rival")


@pytest.fixture(scope="module", autouse=True)
def _forgotten_sockets_are_collected_where_they_are_forgiven(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let no later module be blamed for sockets that the driver has forgotten in one whose tests overlook them."""
    yield
    if any("unclosed <socket" in str(mark.args) for mark in request.node.iter_markers("filterwarnings")):
        gc.collect()


class _Listener(logging.Handler):
    """Looks into whatever is logged while a test runs for what must be in no log line: ids of sessions, passwords."""

    secrets = re.compile(r"\b[A-Za-z0-9_-]{20}\.[A-Za-z0-9_-]{32}\b|://[^/@\s'\"]*:[^/@\s'\"]+@|s3cr3t-marker|pl4nted")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look into a record and all that it carries."""
        if self.secrets.search(f"{record.getMessage()} {vars(record)}"):
            self.found.append(f"{record.name}: {record.getMessage()} {vars(record)}")


@pytest.fixture(autouse=True)
def _no_secret_is_logged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a test fail during which the library has logged a secret, unless that is what it is about."""
    listener, logger = _Listener(), logging.getLogger("convostore")
    logger.addHandler(listener)
    yield
    logger.removeHandler(listener)
    if request.node.get_closest_marker("logs_secrets") is None:
        assert listener.found == []
