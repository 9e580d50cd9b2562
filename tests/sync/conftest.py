"""What the tests of the feed share: the database past the library, a proxy, and the server's view of what is open."""

import os

import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient, MongoClient
from sync_support import address_of

from convostore import ConvoStore
from convostore.testing.mongo_proxy import MongoProxy


@pytest.fixture(scope="session")
def scale():
    """How much longer than usual a test is to go on: ``CONVOSTORE_TEST_SCALE``."""
    return int(os.environ.get("CONVOSTORE_TEST_SCALE", "1"))


@pytest.fixture
async def raw(store, convostore_settings):
    """The database of the test as another program sees it."""
    async with AsyncMongoClient(convostore_settings.mongodb_uri.get_secret_value()) as client:
        yield client[convostore_settings.database_name]


@pytest.fixture
def server(convostore_servers):
    """The server as it is seen by a client that has nothing to do with the event loop."""
    with MongoClient(convostore_servers.mongodb_uri, serverMonitoringMode="poll") as client:
        client.admin.command("ping")
        yield client


@pytest.fixture
async def proxy(convostore_servers):
    async with MongoProxy(*address_of(convostore_servers.mongodb_uri)) as proxy:
        yield proxy


@pytest.fixture
async def proxied(store, proxy, convostore_settings, convostore_redis_settings):
    """A second store on the database of ``store``, whose commands go through the proxy."""
    settings = convostore_settings.evolve(mongodb_uri=SecretStr(proxy.uri))
    async with ConvoStore.open(settings, convostore_redis_settings) as proxied:
        yield proxied
        proxy.heal()
