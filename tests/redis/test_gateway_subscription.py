"""Published messages: all while the connection stands, and a mark wherever some may be missing."""

import asyncio
import contextlib

import pytest
from gateway_support import WRITE, eventually, opened

from convostore.gateways.redis_subscription import MISSED, Subscription


class Listener:
    """Reads a subscription in a task of its own."""

    def __init__(self, subscription):
        self.heard = []
        self._messages = subscription.messages()

    async def _listen(self):
        async for message in self._messages:
            self.heard.append(message)

    async def __aenter__(self):
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._messages.aclose()


async def _heard(gateway, channel, listener):
    """Publish until the listener has heard something."""

    async def publish():
        await gateway.command(WRITE, "PUBLISH", channel, "anybody")
        return b"anybody" in listener.heard

    await eventually(publish)
    listener.heard.clear()


async def test_what_is_published_arrives_in_order_and_once(clients, tenant):
    gateway = clients.state
    channel, other = f"one-{tenant}", f"two-{tenant}"
    async with Listener(gateway.subscribe(channel, other)) as listener:
        await _heard(gateway, channel, listener)
        await eventually(lambda: _quiet(listener))
        for number in range(100):
            await gateway.command(WRITE, "PUBLISH", (channel, other)[number % 2], number)
        await eventually(lambda: len(listener.heard) >= 100)
        assert listener.heard == [str(number).encode() for number in range(100)]


async def _quiet(listener):
    before = len(listener.heard)
    await asyncio.sleep(0.1)
    quiet = len(listener.heard) == before
    listener.heard.clear()
    return quiet


@pytest.mark.one_server
@pytest.mark.parametrize("way", ["restarted", "cut", "frozen"])
async def test_after_a_loss_comes_a_mark_and_then_the_next_messages(own_server, way):
    async with opened(own_server.url) as gateway, Listener(Subscription(gateway._wire, ["c"], 0.1)) as listener:
        await _heard(gateway, "c", listener)
        if way == "restarted":
            own_server.restart()
        elif way == "cut":
            own_server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        else:
            own_server.pause()
            await asyncio.sleep(0.6)
            own_server.resume()
        await eventually(lambda: MISSED in listener.heard)
        await _heard(gateway, "c", listener)
        assert MISSED not in listener.heard


@pytest.mark.one_server
async def test_a_quiet_channel_is_not_taken_for_a_loss(own_server):
    async with opened(own_server.url) as gateway, Listener(Subscription(gateway._wire, ["c"], 0.1)) as listener:
        await _heard(gateway, "c", listener)
        await asyncio.sleep(0.7)
        await gateway.command(WRITE, "PUBLISH", "c", "x")
        await eventually(lambda: b"x" in listener.heard)
        assert set(listener.heard) <= {b"x", b"anybody"}


@pytest.mark.one_server
async def test_a_subscription_begins_although_the_server_is_not_there_yet(own_server):
    own_server.kill()
    async with opened(own_server.url) as gateway, Listener(Subscription(gateway._wire, ["c"], 0.1)) as listener:
        await asyncio.sleep(0.3)
        own_server.start()
        gateway.breaker.succeeded()
        await eventually(lambda: MISSED in listener.heard)
        await _heard(gateway, "c", listener)


@pytest.mark.one_server
async def test_a_reader_that_stops_leaves_no_connection(own_server):
    async with opened(own_server.url) as gateway:
        async with Listener(gateway.subscribe("c")) as listener:
            await _heard(gateway, "c", listener)
        await eventually(lambda: "sub=1" not in own_server.ask("CLIENT", "LIST", "TYPE", "pubsub"))
