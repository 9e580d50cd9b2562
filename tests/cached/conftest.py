"""Stores that read conversations through the cache, each as of a process of its own, and a proxy before the Redis."""

import os
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr

from convostore import ConvoStore
from convostore.testing.redis_proxy import RedisProxy
from convostore.testing.redis_servers import RedisServer


@pytest.fixture(scope="session")
def scale():
    """How much longer than usual a test is to go on: ``CONVOSTORE_TEST_SCALE``."""
    return int(os.environ.get("CONVOSTORE_TEST_SCALE", "1"))


@pytest.fixture
async def opened(store, convostore_settings, convostore_redis_settings):
    """Opens stores on the database of ``store`` that cache; given a setting, with another Redis or patience."""
    async with AsyncExitStack() as stack:

        async def open_one(**given):
            settings = convostore_redis_settings.evolve(**{"cache_conversations": True, **given})
            return await stack.enter_async_context(ConvoStore.open(convostore_settings, settings))

        yield open_one


@pytest.fixture
async def one(opened):
    return await opened()


@pytest.fixture
async def other(opened):
    return await opened()


@pytest.fixture
async def proxy(convostore_redis_settings):
    parts = urlsplit(convostore_redis_settings.redis_url.get_secret_value())
    async with RedisProxy(parts.hostname, parts.port) as proxy:
        yield proxy


@pytest.fixture
async def behind(opened, proxy):
    """A store whose way to the Redis can be cut."""
    store = await opened(redis_url=SecretStr(proxy.url), breaker_pause=0.05)
    yield store
    proxy.heal()


@pytest.fixture
def own_redis():
    with RedisServer() as server:
        yield server
