"""P12, P18: a cancelled call never hands its reply to another, loses no place of the pool, leaves nothing behind."""

import asyncio
import os
import random

import psutil
import pytest
from gateway_support import ECHO, READ, STYLES, cut_short, eventually, keys_of, opened
from redis.asyncio.connection import Connection
from redis_scale import scaled

from convostore.gateways import redis_wire

SIZE = 8
WORKERS = 64
MANY = {"valkey": scaled(20_000), "redis": scaled(4_000), "cluster": scaled(4_000)}


class Swarm:
    """Workers that ask for unique tokens in every way, and are cut short at random."""

    def __init__(self, gateway, keys, seed):
        self.gateway, self.keys, self.random = gateway, keys, random.Random(seed)
        self.done = self.cut = 0
        self.crossed = []

    async def run(self, calls):
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work(calls // WORKERS))

    async def _work(self, calls):
        for _ in range(calls):
            call, expected = self._call()
            style = self.random.choice((*STYLES, None, None))
            delay = self.random.expovariate(1 / 0.004)
            result = await (cut_short(call, delay, style) if style else call)
            self.done += result is not None
            self.cut += result is None
            if result not in (None, expected):
                self.crossed.append((expected, result))

    def _call(self):
        token = f"{self.random.getrandbits(64):x}" * self.random.choice((1, 1, 1, 5_000))
        tokens = [f"{token}{number}" for number in range(3)]
        way = self.random.randrange(4)
        if way == 0:
            return self.gateway.command(READ, "ECHO", token), token.encode()
        if way == 1:
            return self.gateway.commands(READ, [("ECHO", each) for each in tokens]), [each.encode() for each in tokens]
        if way == 2:
            return self.gateway.script(READ, ECHO, [self.random.choice(self.keys)], token), token.encode()
        calls = [([self.random.choice(self.keys)], [each]) for each in tokens]
        return self.gateway.scripts(READ, ECHO, calls), [each.encode() for each in tokens]


async def all_usable(gateway, key):
    """Whether as many calls as there are places can be under way at the same time."""
    waiting = [asyncio.ensure_future(gateway.command(READ, "BLPOP", key, 4)) for _ in range(SIZE)]
    await asyncio.sleep(0.1)
    async with asyncio.timeout(4):
        async with opened(gateway.url, size=1) as other:
            for number in range(SIZE):
                await other.command(READ, "RPUSH", key, number)
        return len(await asyncio.gather(*waiting))


def sockets():
    return {(each.fd, each.laddr) for each in psutil.Process().net_connections(kind="tcp")}


@pytest.mark.slow
async def test_thousands_of_calls_cut_short_cross_no_reply_and_leave_nothing(redis_url, redis_kind, tenant, capsys):
    seed = int(os.environ.get("SEED", random.getrandbits(32)))
    tasks, before = asyncio.all_tasks(), sockets()
    async with opened(redis_url, size=SIZE, deadline=30) as gateway:
        gateway.url = redis_url
        swarm = Swarm(gateway, keys_of(tenant, 10), seed)
        await swarm.run(MANY[redis_kind])
        assert swarm.crossed == [], f"SEED={seed}"
        assert min(swarm.done, swarm.cut) > MANY[redis_kind] // 20, "the test cuts too much or too little"
        assert await all_usable(gateway, keys_of(tenant, 1)[0]) == SIZE
    assert asyncio.all_tasks() == tasks
    await eventually(lambda: sockets() <= before)
    with capsys.disabled():
        print(f"\n{redis_kind}: {swarm.done} calls answered, {swarm.cut} cut short, none crossed")


@pytest.mark.one_server
async def test_the_swarm_sees_a_wire_that_keeps_a_connection_with_an_unread_reply(redis_url, tenant, monkeypatch):
    async def is_clean(_):
        return False

    async with opened(redis_url, size=SIZE, deadline=30) as gateway:

        async def keep(connection, writer=None):
            if connection.is_connected:
                gateway._wire._idle.append(connection)

        with monkeypatch.context() as patch:
            patch.setattr(redis_wire, "drop", keep)
            patch.setattr(Connection, "can_read", is_clean)
            swarm = Swarm(gateway, keys_of(tenant, 10), 1)
            # Some replies are of a kind that the gateway trips over.
            await asyncio.wait([asyncio.ensure_future(swarm.run(2_000))])
        assert swarm.crossed


@pytest.mark.one_server
async def test_a_reply_that_nobody_has_asked_for_costs_the_connection(own_server):
    async with opened(own_server.url, size=1) as gateway:
        await gateway.command(READ, "ECHO", "first")
        (connection,) = gateway._wire._idle
        await connection.send_command("ECHO", "stray", check_health=False)
        await eventually(connection.can_read)
        assert await gateway.command(READ, "ECHO", "second") == b"second"


@pytest.mark.one_server
async def test_who_waits_for_a_place_is_served_in_his_turn_and_may_give_up(own_server):
    async with opened(own_server.url, size=1) as gateway:
        blocked = asyncio.ensure_future(gateway.command(READ, "BLPOP", "k", 5))
        await asyncio.sleep(0.05)
        waiting = [asyncio.ensure_future(gateway.command(READ, "ECHO", str(number))) for number in range(20)]
        await asyncio.sleep(0.05)
        for task in waiting[::2]:
            task.cancel()
        own_server.ask("RPUSH", "k", "x")
        assert await blocked == [b"k", b"x"]
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        assert [each for each in ended if isinstance(each, bytes)] == [str(n).encode() for n in range(1, 20, 2)]


@pytest.mark.one_server
async def test_closing_waits_for_nobody_and_leaves_no_socket(own_server):
    before = sockets()
    async with opened(own_server.url, size=4) as gateway:
        busy = [asyncio.ensure_future(gateway.command(READ, "BLPOP", "k", 1)) for _ in range(4)]
        await asyncio.sleep(0.1)
        await gateway.aclose()
        assert await asyncio.gather(*busy) == [None] * 4
        await eventually(lambda: sockets() <= before)


@pytest.mark.one_server
async def test_a_frozen_server_keeps_no_socket_of_calls_that_have_ended(own_server):
    before = sockets()
    async with opened(own_server.url, size=2, deadline=0.3) as gateway:
        await gateway.command(READ, "ECHO", "there")
        own_server.pause()
        big = "x" * 30_000_000  # more than the sockets' buffers take
        await asyncio.gather(*(gateway.command(READ, "ECHO", big) for _ in range(3)), return_exceptions=True)
        await eventually(lambda: sockets() <= before)
        own_server.resume()
