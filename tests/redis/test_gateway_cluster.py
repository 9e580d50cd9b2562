"""A cluster: slots that move, servers that go."""

import asyncio

import pytest
from gateway_support import ADD, READ, WRITE, ended, eventually, keys_of, opened

from convostore.gateways.breaker import Breaker
from convostore.gateways.redis_cluster import slot_of
from convostore.models.keys import redis_key
from convostore.repositories.exceptions import ConnectionError as OurConnectionError
from convostore.repositories.exceptions import DeadlineExceededError, Outcome, RepositoryError
from convostore.testing.redis_groups import LocalCluster

pytestmark = pytest.mark.one_server
DEADLINE = 0.3


@pytest.fixture(scope="module")
def shared_cluster():
    with LocalCluster() as cluster:
        yield cluster


@pytest.fixture
def fragile():
    with LocalCluster() as cluster:
        yield cluster


def _of_server(keys, index):
    return [key for key in keys if slot_of(("GET", key)) * 3 // 16_384 == index]


def test_a_key_is_found_in_every_command():
    key = redis_key("test", ("acme",), "x")
    slot = slot_of(("GET", key))
    assert slot > 0
    assert slot_of(("GET", key.encode())) == slot
    assert slot_of(("EVALSHA", "sha", 1, key, "argument")) == slot
    assert slot_of(("EVAL", "text", 2, key, key)) == slot
    assert slot_of(("PING",)) == slot_of(("EVAL", "text", 0)) == 0


async def test_a_slot_that_has_moved_is_followed(shared_cluster, tenant):
    async with opened(shared_cluster.url) as gateway:
        key = keys_of(tenant, 1)[0]
        slot = slot_of(("GET", key))
        source = slot * 3 // 16_384
        assert await gateway.script(WRITE, ADD, [key], 1) == 1
        for step in range(1, 4):
            shared_cluster.move_slot(slot, source, (source + 1) % 3)
            source = (source + 1) % 3
            assert await gateway.script(WRITE, ADD, [key], 1) == 3 * step - 1
            assert await gateway.commands(WRITE, [("INCR", key), ("GET", key)]) == [3 * step, str(3 * step).encode()]
            assert await gateway.command(WRITE, "INCR", key) == 3 * step + 1


async def test_while_slots_move_every_increment_is_made_once(shared_cluster, tenant):
    async with opened(shared_cluster.url) as gateway:
        key = keys_of(tenant, 1)[0]
        slot = slot_of(("GET", key))
        moving = asyncio.ensure_future(asyncio.to_thread(_move_about, shared_cluster, slot))
        answers = []
        while not moving.done() or len(answers) < 200:
            answers.append(await gateway.command(WRITE, "INCR", key))
        await moving
        assert answers == list(range(1, len(answers) + 1))


def _move_about(cluster, slot):
    start = slot * 3 // 16_384
    for step in range(6):
        cluster.move_slot(slot, (start + step) % 3, (start + step + 1) % 3)


async def test_a_key_in_a_slot_under_way_is_asked_for_where_it_is(shared_cluster, tenant):
    key = keys_of(tenant, 1)[0]
    slot = slot_of(("GET", key))
    giver, taker = shared_cluster.servers[slot * 3 // 16_384], shared_cluster.servers[(slot * 3 // 16_384 + 1) % 3]
    names = {server: server.ask("CLUSTER", "MYID") for server in (giver, taker)}
    async with opened(shared_cluster.url) as gateway:
        await gateway.command(READ, "GET", key)
        taker.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", names[giver])
        giver.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", names[taker])
        try:
            assert await gateway.command(WRITE, "INCR", key) == 1
            assert await gateway.commands(WRITE, [("INCR", key), ("INCR", key)]) == [2, 3]
        finally:
            for server in (giver, taker):
                server.ask("CLUSTER", "SETSLOT", slot, "STABLE")
            taker.ask("FLUSHALL")


async def test_keys_of_different_slots_in_one_script_are_refused(shared_cluster, tenant):
    async with opened(shared_cluster.url) as gateway:
        with pytest.raises(RepositoryError, match="refused write: CROSSSLOT"):
            await gateway.script(WRITE, ADD, keys_of(tenant, 2), 1)


@pytest.mark.parametrize("way", ["killed", "frozen"])
async def test_a_server_that_is_away_does_not_take_the_others_with_it(fragile, tenant, way):
    keys = keys_of(tenant, 60)
    there, gone = _of_server(keys, 0) + _of_server(keys, 2), _of_server(keys, 1)
    async with opened(fragile.url, deadline=DEADLINE, breaker=Breaker(5, 0.3)) as gateway:
        gateway.deadline = 5
        await gateway.commands(WRITE, [("SET", key, 0) for key in keys])
        gateway.deadline = DEADLINE
        server = fragile.servers[1]
        (server.kill if way == "killed" else server.pause)()
        errors = [(await ended(gateway.command(WRITE, "INCR", key)))[0] for key in gone[:8]]
        assert all(isinstance(error, OurConnectionError) for error in errors)
        assert str(errors[-1]) == "Redis does not answer: write was not sent"
        gateway.deadline = 5  # what the others do is not about seconds
        for number in range(1, 6):
            calls = await asyncio.gather(*(ended(gateway.command(WRITE, "INCR", key)) for key in there))
            assert [result for result, _ in calls] == [number] * len(there)
        assert await gateway.commands(READ, [("GET", key) for key in there]) == [b"5"] * len(there)
        gateway.deadline = DEADLINE
        error, seconds = await ended(gateway.commands(WRITE, [("INCR", key) for key in keys]))
        assert isinstance(error, OurConnectionError)
        assert error.outcome is Outcome.UNKNOWN, "the others have carried out their part"
        assert seconds < DEADLINE + 1.5
        if way == "frozen":
            server.resume()
            gateway.deadline = 5
            await eventually(lambda: _succeeds(gateway, gone[0]))


async def _succeeds(gateway, key):
    return not isinstance((await ended(gateway.command(READ, "GET", key)))[0], Exception)


async def test_a_cluster_is_found_although_the_first_of_its_servers_is_frozen_or_away(fragile, tenant):
    fragile.servers[0].pause()
    key = _of_server(keys_of(tenant, 60), 1)[0]
    async with opened(fragile.url, deadline=DEADLINE) as gateway:
        error, seconds = await ended(gateway.command(WRITE, "INCR", key))
        assert isinstance(error, DeadlineExceededError)
        assert error.outcome is Outcome.NOT_APPLIED
        gateway.deadline = 5
        assert await gateway.command(WRITE, "INCR", key) == 1
        assert seconds < DEADLINE + 1.5
    fragile.servers[0].kill()
    async with opened(fragile.url) as gateway:
        assert await gateway.command(WRITE, "INCR", key) == 2


async def test_a_server_that_is_no_cluster_is_named_so(own_server):
    async with opened(own_server.url.replace("redis://", "redis+cluster://").removesuffix("/0")) as gateway:
        with pytest.raises(RepositoryError, match="the server is part of no cluster, so its address begins with"):
            await gateway.command(READ, "GET", "k")
