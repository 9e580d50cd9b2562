"""What every way of calling does, the same on one server and on a cluster."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from gateway_support import ADD, ECHO, READ, WRITE, ended, inline, keys_of, opened

from convostore.gateways.redis_cluster import slot_of
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.keys import redis_key
from convostore.repositories.exceptions import ConnectionError as OurConnectionError
from convostore.repositories.exceptions import Outcome, RepositoryError, ValidationError


@pytest.fixture
def gateway(clients):
    return clients.state


@pytest.fixture
def keys(tenant):
    return keys_of(tenant, 30)


async def test_a_command_gives_the_raw_reply(gateway, keys):
    key = keys[0]
    assert await gateway.command(WRITE, "SET", key, "1") == b"OK"
    assert await gateway.command(READ, "GET", key) == b"1"
    assert await gateway.command(READ, "GET", keys[1]) is None
    assert await gateway.command(WRITE, "INCRBY", key, 4) == 5
    assert await gateway.command(WRITE, "HSET", keys[2], "field", b"\x00\xff", "other", 1.5) == 2
    assert await gateway.command(READ, "HGETALL", keys[2]) == [b"field", b"\x00\xff", b"other", b"1.5"]
    assert await gateway.command(READ, "HMGET", keys[2], "field", "none") == [b"\x00\xff", None]
    assert await gateway.command(WRITE, "ZADD", keys[3], 1.5, "one") == 1
    assert await gateway.command(READ, "ZRANGE", keys[3], 0, -1, "WITHSCORES") == [b"one", b"1.5"]
    assert await gateway.command(READ, "EXISTS", key) == 1
    assert await gateway.command(WRITE, "PEXPIRE", key, 100_000) == 1


async def test_commands_go_together_and_answer_in_order_from_all_servers(gateway, keys):
    sets = await gateway.commands(WRITE, [("SET", key, number) for number, key in enumerate(keys)])
    assert sets == [b"OK"] * len(keys)
    gets = await gateway.commands(READ, [("GET", key) for key in keys])
    assert gets == [str(number).encode() for number in range(len(keys))]
    assert len({slot_of(("GET", key)) * 3 // 16_384 for key in keys}) == 3, "the keys lie on all servers"
    assert await gateway.commands(READ, []) == []
    assert await gateway.scripts(READ, ECHO, []) == []


async def test_a_refusal_among_several_is_a_value_and_alone_an_error(gateway, keys):
    key = keys[0]
    replies = await gateway.commands(WRITE, [("SET", key, "text"), ("INCR", key), ("GET", key)])
    assert replies[::2] == [b"OK", b"text"]
    assert type(replies[1]) is RepositoryError
    assert replies[1].outcome is Outcome.NOT_APPLIED
    with pytest.raises(RepositoryError, match="Redis refused write: ERR") as caught:
        await gateway.command(WRITE, "INCR", key)
    assert caught.value.outcome is Outcome.NOT_APPLIED
    with pytest.raises(RepositoryError, match="refused write"):
        await gateway.script(WRITE, inline("return redis.call('INCR', KEYS[1])"), [key])
    with pytest.raises(RepositoryError, match="refused"):
        await gateway.command(WRITE, "LPUSH", key, "x")


async def test_a_script_runs_with_its_keys_and_arguments(gateway, keys):
    assert await gateway.script(READ, ECHO, keys[:1], "text") == b"text"
    assert [await gateway.script(WRITE, ADD, keys[:1], 2) for _ in range(3)] == [2, 4, 6]
    assert await gateway.scripts(WRITE, ADD, [([key], [1]) for key in keys]) == [7, *[1] * (len(keys) - 1)]


async def test_a_script_that_the_server_has_forgotten_is_sent_again(gateway, keys):
    fresh = inline(f"-- {keys[0]}\nreturn redis.call('INCR', KEYS[1])")
    assert await gateway.script(WRITE, fresh, keys[:1]) == 1
    await gateway.each_node(WRITE, "SCRIPT", "FLUSH")
    assert await gateway.script(WRITE, fresh, keys[:1]) == 2
    await gateway.each_node(WRITE, "SCRIPT", "FLUSH")
    assert await gateway.scripts(WRITE, fresh, [([key], []) for key in keys[:4]]) == [3, 1, 1, 1]
    assert await gateway.script(WRITE, fresh, keys[:1]) == 4


async def test_a_scan_finds_all_keys_of_a_pattern_on_all_servers(gateway, tenant):
    there = {redis_key("scan", (tenant, str(number)), "x").encode() for number in range(2_000)}
    await gateway.commands(WRITE, [("SET", key, 1) for key in there])
    pattern = redis_key("scan", (tenant, "PLACE")).replace("PLACE}", "*")
    found = [key async for bundle in gateway.scan(READ, pattern) for key in bundle]
    assert set(found) == there


async def test_each_node_is_asked_once(gateway, redis_kind):
    sizes = await gateway.each_node(READ, "DBSIZE")
    assert len(sizes) == (3 if redis_kind == "cluster" else 1)
    assert gateway.is_cluster == (redis_kind == "cluster")
    ids = await gateway.each_node(READ, "INFO", "server")
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("value", ["\ud800", None, True, [1], {}])
async def test_what_cannot_be_sent_is_refused_and_not_quoted(gateway, keys, value):
    for _ in range(3):
        with pytest.raises(ValidationError, match="Thing: holds what cannot be sent") as caught:
            await gateway.command(WRITE, "SET", keys[0], f"secret{value}" if isinstance(value, str) else value)
        assert caught.value.original_error is None
        assert caught.value.__suppress_context__
    assert await gateway.command(READ, "GET", keys[0]) is None
    assert not gateway.breaker.is_open


async def test_observers_and_the_breaker_see_each_call(redis_url, keys):
    seen = []
    async with opened(redis_url, observers=[seen.append]) as gateway:
        await gateway.command(READ, "GET", keys[0])
        seen.clear()
        await gateway.command(WRITE, "SET", keys[0], "x")
        await ended(gateway.command(WRITE, "INCR", keys[0]))
    assert [(each.operation, each.collection, each.error) for each in seen] == [("write", "test", None)] * 2
    assert all(each.duration > 0 for each in seen)


def test_another_event_loop_is_told_that_it_is_another_one(redis_url, tenant):
    gateway = RedisGateway.connect(redis_url)
    key = keys_of(tenant, 1)[0]

    async def elsewhere():
        for call in (gateway.command(WRITE, "INCR", key), gateway.script(WRITE, ADD, [key], 1)):
            with pytest.raises(RepositoryError, match="write: the connections to Redis belong to another event loop"):
                await call
        async with opened(redis_url) as own:
            return await own.command(READ, "GET", key)

    with asyncio.Runner() as runner:
        assert runner.run(gateway.command(WRITE, "INCR", key)) == 1
        with ThreadPoolExecutor() as pool:
            assert pool.submit(asyncio.run, elsewhere()).result() == b"1"
        runner.run(gateway.aclose())


async def test_a_closed_gateway_says_so(redis_url, keys):
    for use_first in (True, False):
        async with opened(redis_url) as gateway:
            if use_first:
                await gateway.command(READ, "GET", keys[0])
        for call in (
            gateway.command(READ, "GET", keys[0]),
            gateway.commands(READ, [("GET", key) for key in keys]),
            gateway.script(READ, ECHO, keys[:1], "x"),
            gateway.each_node(READ, "DBSIZE"),
        ):
            with pytest.raises(RepositoryError, match="read: the connections to Redis are closed"):
                await call
        assert not gateway.breaker.is_open
        await gateway.aclose()


@pytest.mark.one_server
async def test_nobody_at_the_address_is_told_at_once_and_nothing_was_applied():
    async with opened("redis://127.0.0.1:1/0") as gateway:
        error, _ = await ended(gateway.command(WRITE, "SET", "k", "v"))
        assert isinstance(error, OurConnectionError)
        assert str(error) == "no connection to Redis could be made for write"
        assert error.outcome is Outcome.NOT_APPLIED
