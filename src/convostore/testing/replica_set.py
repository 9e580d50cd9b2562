"""A replica set of one's own, whose members can be killed, frozen, cut off and parted from each other.

    async with ReplicaSet() as replica_set:
        async with ConvoStore.open(mongodb_uri=replica_set.uri) as store:
            async with replica_set.killed(await replica_set.primary()):
                await store.tenant("acme").messages.append(conversation_id, message)

Clients reach each member through a proxy of its own (``member.proxy``): it tells them the addresses of the proxies for
those of the members, so that none goes past. The members reach each other through further proxies, which know who
connects, so that a pair can be parted while clients reach both; on Linux only, and no privilege is needed.

The members are child processes that forget everything at the end, and die with the thread that started them.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import ClassVar, TypeVar

from convostore.database.child_server import HOST, free_ports
from convostore.database.throw_away import create_throw_away, discard
from convostore.gateways.member_probe import found_replica_set, has_sync_source
from convostore.repositories.exceptions import LocalServerError
from convostore.testing.ensemble import Ensemble
from convostore.testing.peer_proxy import PeerProxy, owners_of_ports
from convostore.testing.replica_set_member import SET_NAME, Member

__all__ = ["Member", "ReplicaSet"]

READY_SECONDS = 60.0
POLL_SECONDS = 0.05
T = TypeVar("T")


class ReplicaSet(Ensemble):
    """Members on loopback, ready in about three seconds; use it with ``async with``.

    Args:
        size: how many members.

    Attributes:
        members: the members; any of them may be the primary.
    """

    # A member is missed soon, so that a test need not wait for ten seconds.
    settings: ClassVar[dict[str, int]] = {
        "electionTimeoutMillis": 1000,
        "heartbeatIntervalMillis": 200,
        "heartbeatTimeoutSecs": 1,
        "catchUpTimeoutMillis": 2000,
    }

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self._size = size
        self.members: list[Member] = []
        self._peers: list[PeerProxy] = []

    @property
    def uri(self) -> str:
        """The address of the set, through the proxies of its members."""
        return f"mongodb://{','.join(member.proxy.address for member in self.members)}/?replicaSet={SET_NAME}"

    @property
    def direct_uri(self) -> str:
        """The addresses of the members past all proxies; a client has to connect to each of them directly."""
        return f"mongodb://{','.join(member.address for member in self.members)}/"

    async def _start(self) -> None:
        layout, hold = create_throw_away()
        self._ends.callback(discard, layout)
        self._ends.callback(hold.close)
        for number, port in enumerate(free_ports(self._size)):
            member = Member(number, port, layout, hold.descriptor)
            self.members.append(await self._ends.enter_async_context(member))
            peer = PeerProxy(HOST, port, self._sources)
            self._peers.append(await self._ends.enter_async_context(peer))
        self._introduce()
        for member in self.members:
            member.launch()
        await asyncio.gather(*(member.answering() for member in self.members))
        addresses = [peer.address for peer in self._peers]
        first = self.members[0]
        await asyncio.to_thread(found_replica_set, HOST, first.port, SET_NAME, addresses, self.settings)
        await self.settled()

    def _introduce(self) -> None:
        """Let each proxy tell clients the addresses of the proxies."""
        names = {
            peer.address.encode(): member.proxy.address.encode()
            for peer, member in zip(self._peers, self.members, strict=True)
        }
        for member in self.members:
            member.proxy.names = names

    def _sources(self) -> dict[int, int]:
        """Return which member connects from which port."""
        numbers = {member.pid: member.number for member in self.members if member.pid}
        return {port: numbers[pid] for port, pid in owners_of_ports(numbers).items()}

    async def primary(self) -> Member:
        """Return the primary; wait until there is one.

        Raises:
            LocalServerError: there is none for a minute.
        """
        return await _first("a primary", lambda: _who(self.members, Member.is_primary))

    async def secondaries(self) -> list[Member]:
        """Return the members that are not the primary, once there is one."""
        primary = await self.primary()
        return [member for member in self.members if member is not primary]

    async def settled(self) -> None:
        """Wait until there is a primary and each other member fetches from somebody.

        Before that a freeze may hold up majority writes for half a minute.

        Raises:
            LocalServerError: it does not come to that within a minute.
        """
        for member in await self.secondaries():
            await _first("a source for a secondary", partial(_fetches, member))

    # faults

    @asynccontextmanager
    async def killed(self, member: Member) -> AsyncIterator[Member]:
        """End a member at once, as a crash does; start it again at the end."""
        member.kill()
        try:
            yield member
        finally:
            await member.restart()

    @asynccontextmanager
    async def frozen(self, member: Member) -> AsyncIterator[Member]:
        """Freeze a member: it keeps its connections and answers nothing until the end."""
        member.pause()
        try:
            yield member
        finally:
            member.resume()

    @contextmanager
    def parted(self, pairs: Iterable[tuple[Member, Member]]) -> Iterator[None]:
        """Let nothing pass between members until the end; clients reach them still."""
        numbers = [(one.number, other.number) for one, other in pairs]
        both = [*numbers, *((other, one) for one, other in numbers)]
        for one, other in both:
            self._peers[one].hold(other)
        try:
            yield
        finally:
            for one, other in both:
                self._peers[one].release(other)

    @contextmanager
    def isolated(self, member: Member) -> Iterator[None]:
        """Part a member from all the others; clients reach it still."""
        with self.parted((member, other) for other in self.members if other is not member):
            yield

    async def step_down(self, seconds: int = 5) -> Member:
        """Let the primary give up its office for some seconds, and return it; others win the next election."""
        primary = await self.primary()
        await primary.step_down(seconds)
        return primary


async def _first(what: str, look: Callable[[], Awaitable[T | None]]) -> T:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        found = await look()
        if found:
            return found
        await asyncio.sleep(POLL_SECONDS)
    raise LocalServerError("MongoDB", message=f"The replica set did not have {what} within {READY_SECONDS:.0f} s.")


async def _who(members: list[Member], condition: Callable[[Member], Awaitable[bool]]) -> Member | None:
    answers = await asyncio.gather(*(condition(member) for member in members))
    return next((member for member, answer in zip(members, answers, strict=True) if answer), None)


async def _fetches(member: Member) -> bool:
    """Tell whether a member fetches from another, or has become the primary meanwhile."""
    return await asyncio.to_thread(has_sync_source, HOST, member.port) or await member.is_primary()
