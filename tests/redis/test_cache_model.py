"""One cell against a model in memory, step by step, with every step of every process in any order.

The truth is a number that each write raises. A write returns when it has told the cache; loads hold what was true when
they began. After each step: the cell is what the model says, and a value in it is not older than a write that has
returned.
"""

import asyncio
import math
import random
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_scale import scaled

from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.repositories.cache_cell import Cell
from convostore.repositories.cache_cells import Address, CacheCells, Content, Held, Lease, Stored
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.cache_space import CacheSpace
from convostore.repositories.cache_tags import tag_key

OPERATION = Operation("test", "test", "Test", writes=True)
LEASE_END_AT = 27
SPACE: CacheSpace[bytes] = CacheSpace("model")

slots = st.integers(0, 1)
_through_or_not = st.sampled_from(["invalidate", "through"])
_acquire = st.tuples(st.just("acquire"), st.tuples(slots, st.booleans()))
_fill = st.tuples(st.just("fill"), st.tuples(slots, st.sampled_from([False, False, True])))
steps = st.one_of(
    st.tuples(st.just("write"), st.just(0)),
    st.tuples(st.just("finish"), st.tuples(st.integers(0, 5), st.sampled_from(["invalidate", "through", "delete"]))),
    st.tuples(st.just("change"), _through_or_not),
    st.tuples(st.just("repeat"), st.tuples(st.integers(0, 5), _through_or_not)),
    _acquire,
    _acquire,
    _fill,
    _fill,
    st.tuples(st.sampled_from(["release", "renew"]), slots),
    st.tuples(st.sampled_from(["lapse", "evict"]), st.just(0)),
)


@dataclass
class Loader:
    """A process that has a lease, or had one."""

    lease: Lease
    held: int


@dataclass
class ModelCell:
    """What the cell should be."""

    kind: str
    version: int
    held: int = 0
    token: bytes | None = None
    live: bool = False


@dataclass
class Model:
    """The cell on the server, the cell in memory, and the truth."""

    cells: CacheCells
    address: Address[bytes]
    truth: int = 0
    returned: int = 0
    cell: ModelCell | None = None
    pending: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    loaders: dict[int, Loader] = field(default_factory=dict)

    async def step(self, name: str, argument: Any) -> None:
        await getattr(self, name)(argument)
        stored = await self.cells.read(self.address)
        found = Cell.parse(stored.cell)
        if self.cell is None or self.cell.kind == "T":
            assert found is None
            return
        assert found is not None
        assert (found.is_negative, found.version) == (self.cell.kind == "N", self.cell.version)
        assert self.cell.held >= self.returned, "older than a write that has returned"
        if not found.is_negative:
            assert found.data == str(self.cell.held).encode(), "the value is the one of its version"

    async def write(self, _: int) -> None:
        self.truth += 1
        self.pending.append(self.truth)

    async def change(self, how: str) -> None:
        await self.write(0)
        await self.finish((len(self.pending) - 1, how))

    async def finish(self, argument: tuple[int, str]) -> None:
        if self.pending:
            version = self.pending.pop(argument[0] % len(self.pending))
            await getattr(self, f"_{argument[1]}")(version)
            self.finished.append(version)
            self.returned = max(self.returned, version)

    async def repeat(self, argument: tuple[int, str]) -> None:
        if self.finished:
            await getattr(self, f"_{argument[1]}")(self.finished[argument[0] % len(self.finished)])

    async def _delete(self, _: int) -> None:
        assert bool(await self.cells.delete(self.address.key)) == (self.cell is not None)
        self.cell = None

    async def _invalidate(self, version: int) -> None:
        older = self.cell is not None and self.cell.version < version
        expected = older and self.cell is not None and self.cell.kind != "T"
        assert await self.cells.invalidate({self.address.key: version}) == [expected]
        if older or self.cell is None:
            kept = self.cell or ModelCell("T", 0)
            self.cell = ModelCell("T", version, token=kept.token, live=kept.live)

    async def _through(self, version: int) -> None:
        over = self.cell is not None and self.cell.kind == "V" and self.cell.version < version
        content = Content(version, 60_000, str(version).encode())
        assert await self.cells.write_through(self.address, content) == over
        if over:
            self.cell = ModelCell("V", version, version)
        elif self.cell is None or self.cell.version < version:
            kept = self.cell or ModelCell("T", 0)
            self.cell = ModelCell("T", version, token=kept.token, live=kept.live)

    async def acquire(self, argument: tuple[int, bool]) -> None:
        slot, refreshes = argument
        found = Cell.parse((await self.cells.read(self.address)).cell) if refreshes else None
        answer = await self.cells.acquire(self.address, found.stamp if found else b"")
        if self.cell is not None and self.cell.kind != "T" and not refreshes:
            assert isinstance(answer, Stored)
        elif self.cell is not None and self.cell.live:
            assert isinstance(answer, Held)
            assert 0 < answer.seconds <= 1
        else:
            assert isinstance(answer, Lease)
            self.cell = self.cell or ModelCell("T", 0)
            assert answer.floor == self.cell.version
            self.cell.token, self.cell.live = answer.token, True
            self.loaders[slot] = Loader(answer, self.truth)

    async def fill(self, argument: tuple[int, bool]) -> None:
        slot, negative = argument
        loader = self.loaders.get(slot)
        if loader is None:
            return
        version = loader.lease.floor if negative else loader.held
        content = Content(version, 60_000, None if negative else str(loader.held).encode())
        own = self.cell is not None and self.cell.token == loader.lease.token
        expected = own and self.cell is not None and version >= self.cell.version
        assert await self.cells.fill(self.address, loader.lease, content, 0.01) == expected
        if expected:
            self.cell = ModelCell("N" if negative else "V", version, loader.held)
        elif own and self.cell is not None:
            self.cell.token, self.cell.live = None, False

    async def release(self, slot: int) -> None:
        loader = self.loaders.get(slot)
        if loader is None:
            return
        await self.cells.release(self.address, loader.lease)
        if self.cell is not None and self.cell.token == loader.lease.token:
            self.cell.token, self.cell.live = None, False
            if self.cell.kind == "T" and self.cell.version == 0:
                self.cell = None

    async def renew(self, slot: int) -> None:
        loader = self.loaders.get(slot)
        if loader is not None:
            await self.cells.renew(self.address, loader.lease)
            if self.cell is not None and self.cell.token == loader.lease.token:
                self.cell.live = True

    async def lapse(self, _: int) -> None:
        if self.cell is not None and self.cell.live:
            past = struct.pack(">Q", 1)
            await self.cells.redis.command(OPERATION, "SETRANGE", self.address.key, LEASE_END_AT, past)
            self.cell.live = False

    async def evict(self, _: int) -> None:
        await self.cells.redis.command(OPERATION, "DEL", self.address.key)
        self.cell = None


@pytest.fixture(scope="module")
def bench(redis_url: str) -> Iterator[tuple[asyncio.Runner, CacheCells]]:
    with asyncio.Runner() as runner:

        async def opened() -> CacheCells:
            return CacheCells(RedisGateway.connect(redis_url, deadline=20))

        cells = runner.run(opened())
        try:
            yield runner, cells
        finally:
            runner.run(cells.redis.aclose())


@settings(max_examples=scaled(200), deadline=None, print_blob=True)
@given(st.lists(steps, min_size=25, max_size=60))
def test_a_cell_and_its_model_tell_the_same_whatever_is_done(
    bench: tuple[asyncio.Runner, CacheCells], plan: list[tuple[str, Any]]
) -> None:
    runner, cells = bench

    async def carried_out() -> None:
        model = Model(cells, Address(f"cs:cache:{{model:{uuid.uuid4().hex}}}", (), SPACE))
        for name, argument in plan:
            await model.step(name, argument)
        await model.evict(0)

    runner.run(carried_out())


_nasty = st.sampled_from([":", "%", "%3A", "%~", "{", "}", "}:{", "a", "A", "0", "*", " ", "é", "\U0001f600", "x" * 60])
identifiers = st.lists(_nasty, min_size=1, max_size=4).map("".join)
identities = st.tuples(identifiers, identifiers, identifiers, identifiers)


@settings(max_examples=scaled(2000), deadline=None)
@given(identities, identities)
def test_no_two_identities_share_a_key(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    keys = [_key(*one), _key(*other)]
    assert (keys[0] == keys[1]) == (one == other)
    tags = [tag_key(one[0], one[1], one[2]), tag_key(other[0], other[1], other[2])]
    assert (tags[0] == tags[1]) == (one[:3] == other[:3])
    assert not set(tags) & set(keys)


def _key(tenant: str, space: str, key: str, epoch: str) -> str:
    cache = CacheRepository(RedisGateway.connect("redis://127.0.0.1:1"), epoch=epoch)
    return cache._address(tenant, CacheSpace(space), key, ()).key


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("left", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_readers_refresh_as_often_as_the_paper_says(left: float, beta: float) -> None:
    draws, cost, now = 40_000, 10_000, 1_700_000_000_000_000
    cell = Cell(False, 1, b"s" * 8, now + int(left * cost), cost, b"", b"")
    generator = random.Random(5)
    due = sum(cell.is_due(now, beta, generator.random()) for _ in range(draws)) / draws
    probability = math.exp(-left / beta)
    assert abs(due - probability) <= 5 * math.sqrt(probability * (1 - probability) / draws) + 1e-9


def test_what_cost_nothing_or_has_long_to_live_is_never_refreshed() -> None:
    nearly_one = 1 - 2**-53
    assert not Cell(False, 1, b"", 1001, 0, b"", b"").is_due(1000, 1.0, nearly_one)
    assert not Cell(False, 1, b"", 1000 + 38 * 10, 10, b"", b"").is_due(1000, 1.0, nearly_one)
    assert Cell(False, 1, b"", 1000 + 36 * 10, 10, b"", b"").is_due(1000, 1.0, nearly_one)
