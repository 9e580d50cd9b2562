"""The way to a cluster: which server a key belongs to, and where to go when it has moved.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/

The driver's own client closes the connections of all servers when one of them fails, which cuts calls to the others,
and does not say what was sent.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError

from convostore.gateways.redis_wire import ClosedWireError, Command, Flight, NoClusterError, Places, SingleWire, Unsent

LOOK_INTERVAL = 0.5  # seconds at least between two looks at the cluster, while something about it is doubtful
LOOK_SECONDS = 0.5  # for a server to tell about the cluster, before another is asked
HOPS = 5
_SCRIPTS = frozenset({"EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO"})


class ClusterWire:
    """The way to a cluster: a wire to each primary, and the table of the slots.

    Args:
        seeds: host and port of some of the servers.
        make: returns a connection to a host and port that is not open yet.
        size: connections at most, to each server.
    """

    def __init__(self, seeds: Sequence[tuple[str, int]], make: Callable[[str, int], Connection], size: int) -> None:
        self._make = make
        self._size = size
        self._wires: dict[str, SingleWire] = {}
        self._names = [_name(*seed) for seed in seeds]  # whom to ask about the cluster, the most trusted first
        self._slots: list[str] = []
        self._doubtful = True
        self._looked = 0.0
        self._looking = asyncio.Lock()
        self._closed = False

    def places(self, commands: Sequence[Command]) -> Places | None:
        """Return the server of each command's first key."""
        if self._must_look():
            return None
        found: dict[str, list[int]] = {}
        for index, command in enumerate(commands):
            found.setdefault(self._slots[slot_of(command)], []).append(index)
        return found

    def servers(self) -> list[str]:
        """Return the primaries."""
        return sorted(set(self._slots) - {""})

    async def execute(
        self, commands: Sequence[Command], flight: Flight, place: str = "", packed: bytes = b""
    ) -> list[Any]:
        """Send commands to a server, and those whose keys it does not have to where it says they are."""
        if not place:
            self._doubtful = True
            raise Unsent from ClusterDownError("no server has the slot")
        replies = await self._ask(place, commands, flight, packed)
        for index, command in enumerate(commands):
            for _ in range(HOPS):
                if not isinstance(replies[index], AskError):
                    break
                replies[index] = await self._follow(replies[index], place, command, flight)
        return replies

    async def _ask(self, place: str, commands: Sequence[Command], flight: Flight, packed: bytes = b"") -> list[Any]:
        try:
            replies = await self._wire(place).execute(commands, flight, packed=packed)
        except BaseException:
            self._distrust(place)
            raise
        self._doubtful |= any(isinstance(reply, ClusterDownError) for reply in replies)
        return replies

    async def _follow(self, answer: AskError, place: str, command: Command, flight: Flight) -> Any:
        name = _name(answer.host or place.rpartition(":")[0], answer.port)
        flight = Flight(flight.end)  # the replies of the others are kept
        if not isinstance(answer, MovedError):  # the slot is on its way, and this key may have arrived
            return (await self._ask(name, [("ASKING",), command], flight))[1]
        self._slots[answer.slot_id] = name
        self._doubtful = True
        return (await self._ask(name, [command], flight))[0]

    def _must_look(self) -> bool:
        if not self._slots:
            return True
        return self._doubtful and not self._looking.locked() and time.monotonic() - self._looked > LOOK_INTERVAL

    def _distrust(self, name: str) -> None:
        self._doubtful = True
        if name in self._names:
            self._names.remove(name)
            self._names.append(name)

    async def look(self, flight: Flight) -> None:
        """Ask the servers, one after the other, which slots each has."""
        async with self._looking:
            if self._slots and time.monotonic() - self._looked <= LOOK_INTERVAL:
                return  # somebody else has looked meanwhile
            self._looked = time.monotonic()
            failure: BaseException | None = None
            for name in list(self._names):
                failure = await self._learn(name, flight)
                if failure is None:
                    return
            if not self._slots:
                raise Unsent from failure

    async def _learn(self, name: str, flight: Flight) -> BaseException | None:
        asked = Flight(flight.end)  # nothing of the call itself is sent here
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                table = (await self._ask(name, [("CLUSTER", "SLOTS")], asked))[0]
        except Unsent as error:
            return error.__cause__
        except (RedisError, OSError) as error:
            return error
        if isinstance(table, RedisError):
            if "cluster support disabled" in str(table):
                raise NoClusterError
            return table
        await self._take_over(table, name)
        return None

    async def _take_over(self, table: list[Any], source: str) -> None:
        host = source.rpartition(":")[0]
        slots = [""] * 16_384
        for low, high, primary, *_ in table:
            name = _name((primary[0] or b"").decode() or host, primary[1])
            slots[low : high + 1] = [name] * (high + 1 - low)
        self._slots, self._doubtful = slots, "" in slots
        self._names = [source, *(name for name in self.servers() if name != source)]
        for gone in self._wires.keys() - self._names:
            await self._wires[gone].drop_idle()

    def _wire(self, name: str) -> SingleWire:
        if self._closed:
            raise ClosedWireError
        if name not in self._wires:
            host, _, port = name.rpartition(":")
            self._wires[name] = SingleWire(lambda: self._make(host, int(port)), self._size)
        return self._wires[name]

    def new_connection(self) -> Connection:
        """Return a connection of its own to the server trusted most: what is published to one reaches all."""
        host, _, port = self._names[0].rpartition(":")
        self._names.append(self._names.pop(0))  # it may be this one that is away: another the next time
        return self._make(host, int(port))

    async def aclose(self) -> None:
        """Close all connections; one that is in use when its command ends."""
        self._closed = True
        for wire in self._wires.values():
            await wire.aclose()


def slot_of(command: Command) -> int:
    """Return the slot of a command's first key: a script's is behind its number of keys; none counts as slot 0."""
    index = 3 if command[0] in _SCRIPTS else 1
    if len(command) <= index:
        return 0
    key = command[index]
    return int(key_slot(key if isinstance(key, bytes) else str(key).encode()))


def _name(host: str, port: int) -> str:
    return f"{host}:{port}"
