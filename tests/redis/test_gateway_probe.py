"""What a server says of itself, and which servers are refused."""

from dataclasses import replace

import pytest
from gateway_support import opened

from convostore.gateways.redis_probe import RedisFacts, check, probe
from convostore.repositories.exceptions import ConnectionError as OurConnectionError
from convostore.repositories.exceptions import RepositoryError
from convostore.testing.redis_groups import LocalSentinels
from convostore.testing.redis_servers import RedisServer

FACTS = RedisFacts("redis", (7, 0, 15), "standalone", False, True, 0, "noeviction", ())


async def test_the_facts_of_a_server(clients, redis_kind):
    facts = await probe(clients.state)
    assert facts.name == ("redis" if redis_kind == "redis" else "valkey")
    assert facts.version >= (6, 2)
    assert facts.mode == ("cluster" if redis_kind == "cluster" else "standalone")
    assert facts.scripting
    assert facts.problem is None
    assert facts.title == f"{facts.name} {'.'.join(map(str, facts.version))}"
    assert await check(clients.state) == facts


@pytest.mark.one_server
async def test_memory_and_persistence():
    with RedisServer(maxmemory="20mb", maxmemory_policy="allkeys-lru") as server:
        async with opened(server.url) as gateway:
            facts = await probe(gateway)
            assert (facts.max_memory, facts.policy, facts.persistence) == (20 * 2**20, "allkeys-lru", ())
            server.ask("CONFIG", "SET", "save", "60 1")
            assert (await probe(gateway)).persistence == ("rdb",)
            server.ask("CONFIG", "SET", "appendonly", "yes")
            assert (await probe(gateway)).persistence == ("aof", "rdb")


@pytest.mark.one_server
async def test_a_server_that_runs_no_scripts_is_refused_and_one_that_hides_its_settings_is_not(own_server):
    own_server.ask("ACL", "SETUSER", "hidden", "on", ">p", "~*", "+@all", "-config")
    async with opened(f"redis://hidden:p@{own_server.address}") as gateway:
        assert (await check(gateway)).persistence == ()
    own_server.ask("ACL", "SETUSER", "mute", "on", ">p", "~*", "+@all", "-eval")
    async with opened(f"redis://mute:p@{own_server.address}") as gateway:
        with pytest.raises(RepositoryError, match=r"^valkey \S+ runs no scripts, without which nothing here works$"):
            await check(gateway)


@pytest.mark.parametrize(
    ("changes", "usable"),
    [
        ({"version": (6, 2, 0)}, True),
        ({"version": (6, 0, 16)}, False),
        ({"version": (5,)}, False),
        ({"name": "valkey", "version": (7, 2, 4)}, True),
        ({"name": "valkey", "version": (7, 1)}, False),
        ({"scripting": False}, False),
        ({"mode": "sentinel"}, False),
        ({"mode": "cluster"}, False),
        ({"mode": "cluster", "asked_as_cluster": True}, True),
    ],
    ids=str,
)
def test_which_servers_can_be_used(changes, usable):
    facts = replace(FACTS, **changes)
    assert (facts.problem is None) == usable
    assert facts.problem is None or facts.problem.startswith(facts.title)


@pytest.mark.slow
@pytest.mark.one_server
async def test_a_sentinel_and_a_part_of_a_cluster_are_told_by_their_address():
    with LocalSentinels(sentinels=1) as group:
        async with opened(group.sentinels[0].url) as gateway:
            with pytest.raises(RepositoryError, match=r"is a Sentinel: its address begins with redis\+sentinel://"):
                await check(gateway)
        async with opened(group.url) as gateway:
            assert (await check(gateway)).mode == "standalone"
    with RedisServer(cluster_enabled="yes") as server:
        async with opened(server.url) as gateway:
            with pytest.raises(RepositoryError, match=r"is part of a cluster: its address begins with redis\+cluster"):
                await check(gateway)


@pytest.mark.one_server
async def test_a_server_that_is_away_is_no_verdict(own_server):
    own_server.kill()
    async with opened(own_server.url) as gateway:
        with pytest.raises(OurConnectionError):
            await check(gateway)
