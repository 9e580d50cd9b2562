"""What convostore keeps in Redis, and how much room it takes."""

from collections import Counter, defaultdict
from dataclasses import dataclass

from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.keys import NAMESPACE

SCANNED = 100_000
_WEIGHED = 200  # keys of a kind of which the size is asked
_SCAN = Operation("SCAN", "redis", "Key", repeatable=True)
_WEIGH = Operation("MEMORY USAGE", "redis", "Key", repeatable=True)


@dataclass(frozen=True, slots=True)
class KeyStats:
    """The keys of one kind.

    Attributes:
        kind: such as ``session``.
        keys: how many were found.
        bytes_per_key: on average, of some of them.
    """

    kind: str
    keys: int
    bytes_per_key: float


@dataclass(frozen=True, slots=True)
class RedisStats:
    """What was found.

    Attributes:
        kinds: in the order of their names.
        complete: whether all keys were looked at.
    """

    kinds: list[KeyStats]
    complete: bool


async def collect(gateway: RedisGateway, most: int = SCANNED) -> RedisStats:
    """Count the keys of each kind.

    Args:
        gateway: the way to the server.
        most: look at about so many keys; 0 for all.

    Raises:
        RepositoryError: the server failed.
    """
    counts: Counter[str] = Counter()
    samples: defaultdict[str, list[bytes]] = defaultdict(list)
    complete = True
    async for keys in gateway.scan(_SCAN, f"{NAMESPACE}:*"):
        for key in keys:
            kind = key.split(b":", 2)[1].decode(errors="replace")
            counts[kind] += 1
            if len(samples[kind]) < _WEIGHED:
                samples[kind].append(key)
        if most and counts.total() >= most:
            complete = False
            break
    kinds = [KeyStats(kind, counts[kind], await _weight(gateway, samples[kind])) for kind in sorted(counts)]
    return RedisStats(kinds, complete)


async def _weight(gateway: RedisGateway, keys: list[bytes]) -> float:
    sizes = await gateway.commands(_WEIGH, [("MEMORY", "USAGE", key) for key in keys])
    known = [size for size in sizes if isinstance(size, int)]  # some have gone meanwhile
    return sum(known) / len(known) if known else 0.0
