"""The import beside the driver's bare ``insert_many`` of the same messages, turn by turn."""

import gc
import json
import random
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.figures import Spread
from convostore import ConvoStore, MongoSettings
from convostore.operations.importing import Importer
from convostore.operations.line_source import LineSource
from convostore.operations.schema import MESSAGES

CONVERSATIONS = 8_000
BATCH = 1_000
WORDS = ("reservation", "two", "people", "eleven", "in", "the", "morning", "thanks", "a", "lot", "please", "would")
Documents = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a message has taken, in microseconds: of the wall, of the processor in this program, and in the server."""

    wall: float
    client: float
    server: float


@dataclass(frozen=True, slots=True)
class Imports:
    """What messages have taken either way, turn by turn.

    Attributes:
        messages: in each turn.
        bare: by ``insert_many``.
        ours: by the import.
    """

    messages: int
    bare: list[Cost]
    ours: list[Cost]

    @property
    def throughput(self) -> Spread:
        """Messages a second, import to bare; above 1 is faster."""
        return Spread.of(bare.wall / ours.wall for bare, ours in zip(self.bare, self.ours, strict=True))


async def measure_import(settings: MongoSettings, rounds: int, data: Path | None = None) -> Imports:
    """Return what a message takes either way, each time in a new database.

    Args:
        settings: of the server.
        rounds: how often to measure both.
        data: the conversations, one a line; None: some are made up.
    """
    with _lines(data) as path:
        documents: Documents = []
        await _import(settings, path, documents)  # warms up too
        gc.freeze()  # else each import would be charged for the collector's walks through all these documents
        measured = Imports(len(documents), [], [])
        for turn in range(rounds):
            first = await _bare(settings, documents) if turn % 2 else None
            measured.ours.append(await _import(settings, path))
            measured.bare.append(first or await _bare(settings, documents))
    return measured


@contextmanager
def _lines(data: Path | None) -> Iterator[Path]:
    if data is not None:
        yield data
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "conversations.jsonl"
        path.write_text("".join(_line(number) for number in range(CONVERSATIONS)), encoding="utf-8")
        yield path


def _line(number: int) -> str:
    chance = random.Random(number)
    messages = [
        {"role": ("user", "assistant")[turn % 2], "content": " ".join(chance.choices(WORDS, k=chance.randint(3, 25)))}
        for turn in range(chance.randint(8, 28))
    ]
    return json.dumps({"conversation_id": f"talk-{number:06d}", "metadata": {"n": number}, "messages": messages}) + "\n"


async def _import(settings: MongoSettings, path: Path, documents: Documents | None = None) -> Cost:
    fresh = settings.evolve(database_name=f"bench_{uuid.uuid4().hex[:12]}")
    async with ConvoStore.open(fresh) as store:
        tenant = store.tenant("bench")
        await tenant.conversations.exists("-")
        with LineSource(path) as source:
            stored: list[int] = []

            async def work() -> None:
                stored.append((await Importer(tenant.database).run(source)).messages)

            cost = await _cost(store.mongodb.database, work, lambda: stored[0])
        if documents is not None:
            documents += await store.mongodb.database.messages.find().to_list()
        await store.mongodb.administration.drop_database()
    return cost


async def _bare(settings: MongoSettings, documents: Documents) -> Cost:
    uri = settings.mongodb_uri.get_secret_value()
    async with AsyncMongoClient[dict[str, Any]](uri, **settings.client_options()) as client:
        database = client[f"bench_{uuid.uuid4().hex[:12]}"]
        await _prepare(database)

        async def work() -> None:
            for start in range(0, len(documents), BATCH):
                await database.messages.insert_many(documents[start : start + BATCH])

        cost = await _cost(database, work, lambda: len(documents))
        await client.drop_database(database.name)
    return cost


async def _prepare(database: AsyncDatabase[dict[str, Any]]) -> None:
    """Make the collection as convostore makes it."""
    await database.command({"create": MESSAGES.name, **MESSAGES.options})
    indexes = [index.specification() for index in MESSAGES.indexes]
    await database.command({"createIndexes": MESSAGES.name, "indexes": indexes})


async def _cost(
    database: AsyncDatabase[dict[str, Any]], work: Callable[[], Awaitable[None]], messages: Callable[[], int]
) -> Cost:
    before = time.perf_counter(), time.process_time(), await _server_time(database)
    await work()
    after = time.perf_counter(), time.process_time(), await _server_time(database)
    return Cost(*((end - begin) / messages() * 1e6 for begin, end in zip(before, after, strict=True)))


async def _server_time(database: AsyncDatabase[dict[str, Any]]) -> float:
    usage = (await database.command("serverStatus"))["extra_info"]
    return float(usage["user_time_us"] + usage["system_time_us"]) / 1e6
