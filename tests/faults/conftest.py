"""What the fault tests share: a proxy in front of the server, and a connection that nothing disturbs."""

import gc
import warnings

import pytest
import pytest_asyncio
from fault_support import Truth, address_of
from pydantic import SecretStr
from pymongo import AsyncMongoClient

from convostore import ConvoStore
from convostore.testing.mongo_proxy import MongoProxy


@pytest.fixture(autouse=True)
def _collected():
    """Garbage of one test is not to be reported by the next one."""
    yield
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


@pytest_asyncio.fixture
async def truth(store, convostore_settings):
    """What is really in the database of the test, read past the proxy and past the library."""
    async with AsyncMongoClient(convostore_settings.mongodb_uri.get_secret_value(), tz_aware=True) as client:
        yield Truth(client, convostore_settings.database_name)


@pytest_asyncio.fixture
async def proxy(convostore_servers):
    async with MongoProxy(*address_of(convostore_servers.mongodb_uri)) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def proxied(store, proxy, convostore_settings):
    """A second store on the database of ``store``, whose commands go through the proxy."""
    async with ConvoStore.open(convostore_settings.evolve(mongodb_uri=SecretStr(proxy.uri))) as proxied:
        proxy.commands.clear()
        yield proxied
        proxy.heal()
