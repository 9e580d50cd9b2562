"""What a Redis or Valkey server is, and whether it can be used."""

import re
from dataclasses import dataclass

from convostore.gateways.near_gateway import NearGateway
from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.repositories.exceptions import (
    ConnectionError,  # noqa: A004 - the name is the specification's
    RepositoryError,
)

OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
_INFO = Operation("INFO", "redis", "Server", repeatable=True)
_SCRIPT = Operation("EVAL", "redis", "Server", repeatable=True)
_SAVING = Operation("CONFIG GET", "redis", "Server", repeatable=True)


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What a server says of itself; of a cluster, the server that was asked.

    Attributes:
        name: ``redis`` or ``valkey``.
        version: its version.
        mode: ``standalone``, ``sentinel`` or ``cluster``.
        asked_as_cluster: whether the address says that it is a cluster.
        scripting: whether scripts run.
        max_memory: bytes that it may use, 0 for all there are.
        policy: what it evicts when they are used up, such as ``noeviction``.
        persistence: what of ``aof`` and ``rdb`` it writes to disk; it may not tell of the second.
    """

    name: str
    version: tuple[int, ...]
    mode: str
    asked_as_cluster: bool
    scripting: bool
    max_memory: int
    policy: str
    persistence: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name and version, for people."""
        return f"{self.name} {'.'.join(map(str, self.version))}"

    @property
    def problem(self) -> str | None:
        """Why the server cannot be used, or None."""
        if self.mode == "sentinel":
            return f"{self.title} is a Sentinel: its address begins with redis+sentinel://, and names the service"
        if self.mode == "cluster" and not self.asked_as_cluster:
            return f"{self.title} is part of a cluster: its address begins with redis+cluster://"
        if self.version < OLDEST[self.name]:
            return f"{self.title} is too old: Redis 6.2 or Valkey 7.2 or later is needed"
        return None if self.scripting else f"{self.title} runs no scripts, without which nothing here works"


async def probe(gateway: RedisGateway) -> RedisFacts:
    """Return the facts about the server of a gateway.

    Raises:
        RepositoryError: it cannot be reached, or does not tell.
    """
    info = _fields(await gateway.command(_INFO, "INFO"))
    name = "valkey" if "valkey_version" in info else "redis"
    saves = ("aof",) * (info.get("aof_enabled") == "1") + ("rdb",) * await _saves(gateway)
    return RedisFacts(
        name=name,
        version=tuple(int(part) for part in re.findall(r"\d+", info[f"{name}_version"])[:3]),
        mode=info.get("server_mode", info.get("redis_mode", "standalone")),
        asked_as_cluster=gateway.is_cluster,
        scripting=await _runs_scripts(gateway),
        max_memory=int(info.get("maxmemory", 0)),
        policy=info.get("maxmemory_policy", ""),
        persistence=saves,
    )


async def check(gateway: RedisGateway) -> RedisFacts:
    """Return the facts about the server of a gateway, if it can be used as the gateway means to.

    Raises:
        RepositoryError: it cannot; the message says why.
    """
    facts = await probe(gateway)
    if facts.problem:
        raise RepositoryError(facts.problem)
    if isinstance(gateway, NearGateway):
        await gateway.tracking.check()
    return facts


def _fields(info: bytes) -> dict[str, str]:
    lines = info.decode(errors="replace").splitlines()
    return {name: value for name, found, value in (line.partition(":") for line in lines) if found}


async def _runs_scripts(gateway: RedisGateway) -> bool:
    try:
        return bool(await gateway.command(_SCRIPT, "EVAL", "return redis.call('TIME')[1]", 0))
    except ConnectionError:
        raise
    except RepositoryError:
        return False


async def _saves(gateway: RedisGateway) -> bool:
    try:
        return bool((await gateway.command(_SAVING, "CONFIG", "GET", "save"))[1])
    except ConnectionError:
        raise
    except RepositoryError:  # hosted servers do not let it be asked
        return False
