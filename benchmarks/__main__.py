"""Run the benchmarks and print their tables: ``python -m benchmarks [--quick]``."""

import argparse
import asyncio
import uuid

from pymongo import AsyncMongoClient
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Case, Result, compare
from benchmarks.repositories import Workload
from convostore import ConvoStore, MongoSettings
from convostore.database.local_servers import LocalServers

LONG = 200_000


def _table(title: str, results: list[Result], names: tuple[str, str]) -> Table:
    table = Table(title=title)
    for heading in ("work", "callers", f"{names[0]} µs", f"{names[1]} µs", "ratio", "middle half"):
        table.add_column(heading, justify="left" if heading == "work" else "right")
    for result in results:
        spread = f"{result.low:.2f}-{result.high:.2f}"
        times = (f"{result.raw * 1e6:.0f}", f"{result.ours * 1e6:.0f}")
        table.add_row(result.name, str(result.callers), *times, f"{result.ratio:.2f}", spread)
    return table


async def _growth(workload: Workload, rounds: int) -> list[Result]:
    """Compare the end of a conversation of 100 messages with that of one of 200,000."""
    await workload.create_named("hundred")
    await workload.fill("hundred", 100)
    await workload.fill("long", LONG)
    cases = [
        Case("append", lambda: workload.append("hundred"), lambda: workload.append("long")),
        Case("newest 50", lambda: workload.newest("hundred"), lambda: workload.newest("long")),
    ]
    return [await compare(case, 1, rounds, 50) for case in cases]


async def _measure(settings: MongoSettings, quick: bool, only: str) -> list[Table]:
    rounds = 6 if quick else 24
    # The same options, and moments with their time zone, as convostore gives them.
    options = settings.client_options() | {"tz_aware": True}
    client: AsyncMongoClient[dict[str, object]] = AsyncMongoClient(settings.mongodb_uri.get_secret_value(), **options)
    async with ConvoStore.open(settings) as store, client:
        workload = Workload(store, client, settings.database_name)
        await workload.prepare()
        cases = [case for case in workload.cases() if only in case.name]
        alone = [await compare(case, 1, rounds, 100) for case in cases]
        many = [await compare(case, 64, max(4, rounds // 3), 20) for case in cases]
        growth = [] if only else await _growth(workload, rounds)
        await store.mongodb.activity.flush()
        await store.mongodb.administration.drop_database()
    return [
        _table("convostore beside the raw driver: time an operation", alone + many, ("raw", "convostore")),
        _table(f"the end of a conversation: {LONG:,} messages beside 100", growth, ("at 100", f"at {LONG:,}")),
    ]


async def _run(quick: bool, only: str) -> None:
    async with await LocalServers.acquire() as servers:
        name = f"bench_{uuid.uuid4().hex[:12]}"
        settings = MongoSettings(mongodb_uri=servers.addresses.mongodb_uri, database_name=name)
        for table in await _measure(settings, quick, only):
            if table.rows:
                Console(width=110).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", default="", metavar="WORD", help="only the work whose name contains it")
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.quick, arguments.only))
