"""The command that keeps the cache in step with the database."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Annotated

import typer

from convostore.cli.drawing import standard_error
from convostore.cli.options import AsJson, DatabaseName, DataDirectory, MongoUri, RedisUrl, Where, open_store
from convostore.cli.reporting import print_json, run, tell
from convostore.sync.synchronizer import Synchronizer, SyncStatus

Once = Annotated[bool, typer.Option("--once", help="Do what has happened up to now, and end.")]
Name = Annotated[str, typer.Option("--name", help="Under which it is kept how far it has come; one for each cache.")]


def sync_command(
    *,
    once: Once = False,
    name: Name = "cache",
    as_json: AsJson = False,
    mongodb_uri: MongoUri = None,
    redis_url: RedisUrl = None,
    database: DatabaseName = None,
    data: DataDirectory = None,
) -> None:
    """Follow all changes in MongoDB, make the cache forget what they outdate, and empty the outbox, until Ctrl-C.

    It goes on from where it was, and several may run at once. Your own programs' writes invalidate by themselves; this
    is for what others write, and for what a crash has left out.

    Example: convostore sync --once
    """
    status = run(_sync(Where(mongodb_uri, database, data, redis_url), name, once=once))
    if as_json:
        print_json({**asdict(status), "place": status.place and status.place.isoformat()})
    else:
        typer.echo(_line(status))


async def _sync(where: Where, name: str, *, once: bool) -> SyncStatus:
    latest = SyncStatus()
    with _status_line() as show:

        def progress(status: SyncStatus) -> None:
            nonlocal latest
            latest = status
            show(status)

        async with open_store(where) as store:
            synchronizer = store.synchronizer(name, progress)
            if once:
                return await synchronizer.run_once()
            tell("Following all changes until Ctrl-C.")
            await _until_interrupted(synchronizer)
    return latest


async def _until_interrupted(synchronizer: Synchronizer) -> None:
    task = asyncio.ensure_future(synchronizer.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    with suppress(asyncio.CancelledError):
        await task


@contextmanager
def _status_line() -> Iterator[Callable[[SyncStatus], None]]:
    console = standard_error()
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("following") as drawn:
        yield lambda status: drawn.update(_line(status))


def _line(status: SyncStatus) -> str:
    place = f"up to {status.place:%Y-%m-%d %H:%M:%S} UTC" if status.place else "nothing kept yet"
    text = f"{status.events} events, {status.invalidations} invalidated, {status.forgotten} values forgotten, {place}"
    return f"{text}; everything was forgotten {status.losses} times" if status.losses else text
