"""The demonstration: conversations for three tenants on servers of its own, and what convostore does with them."""

import time
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from convostore.cli.demo_scenes import SCENES, Stage
from convostore.cli.drawing import standard_error, standard_output, table
from convostore.cli.reporting import fail, run
from convostore.cli.transfer import import_with_bar
from convostore.database.local_servers import LocalServers
from convostore.database.settings import MongoSettings, RedisSettings
from convostore.operations.importing import OnError
from convostore.operations.line_source import LineSource
from convostore.store import ConvoStore

TENANTS = ("aurora-hotels", "brook-books", "cedar-bank")
_EXAMPLES = Path("examples", "dialogues.jsonl")

DataFile = Annotated[
    str | None, typer.Option("--data", metavar="FILE", help="Import this file instead of the examples.")
]


def demo_command(data: DataFile = None) -> None:
    """Show what convostore does, on servers that are thrown away at the end.

    Example: convostore demo --data dialogues.jsonl.gz
    """
    run(_demo(data if data is not None else str(example_file())))


def example_file() -> Path:
    """Return the example dialogues: beside the package in a checkout, inside it where it was installed."""
    checkout = Path(__file__).parents[3] / _EXAMPLES
    return checkout if checkout.is_file() else Path(str(resources.files("convostore.cli"))) / _EXAMPLES


async def _demo(file: str) -> None:
    started = time.monotonic()
    LineSource(file).__enter__().__exit__(None, None, None)  # a file that is not there is told at once
    console = standard_output()
    standard_error().print("Starting a MongoDB and a Redis of its own; they are thrown away at the end.", style="dim")
    async with await LocalServers.acquire() as servers:
        settings = MongoSettings.from_environment({}, mongodb_uri=servers.addresses.mongodb_uri, database_name="demo")
        redis = RedisSettings.from_environment({}, redis_deadline=5.0, cache_deadline=5.0)
        async with ConvoStore.open(settings, redis.with_local_server(servers.addresses.redis_url)) as store:
            await _import_for_all(store, file)
            stage = await Stage.set(console, store, TENANTS)
            for scene in SCENES:
                await scene(stage)
    console.print(f"\nThat took {time.monotonic() - started:.1f} seconds, servers included.", style="dim")


async def _import_for_all(store: ConvoStore, file: str) -> None:
    drawn = table(
        "1  Import: one file for three tenants, who never see each other", "tenant", "conversations", "messages"
    )
    for name in TENANTS:
        with LineSource(file) as source:
            result = await import_with_bar(store.tenant(name), source, OnError.SKIP)
        if not result.imported:
            fail(f"{file}: no conversation could be imported; `convostore import` says why")
        drawn.add_row(name, str(result.imported), str(result.messages))
    standard_output().print(drawn)
