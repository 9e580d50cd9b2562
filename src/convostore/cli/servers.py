"""The command that keeps local servers running."""

import asyncio
import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import typer

from convostore.cli.options import AsJson, DataDirectory
from convostore.cli.reporting import print_json, run, tell
from convostore.database.local_servers import (
    LocalServers,
    ServerAddresses,
    default_data_directory,
    running_servers,
)
from convostore.database.settings import PREFIX
from convostore.repositories.exceptions import LocalServerError

WATCH_SECONDS = 1.0


def up_command(as_json: AsJson = False, data: DataDirectory = None) -> None:
    """Start local servers for trying out, print their addresses, and keep them until Ctrl-C.

    Commands that use the same directory meanwhile share them.

    Example: convostore up --data ./data
    """
    run(_up(as_json=as_json, directory=data or default_data_directory()))


async def _up(*, as_json: bool, directory: Path) -> None:
    async with await LocalServers.acquire(directory) as servers:
        _print_addresses(servers.addresses, as_json=as_json)
        await _interrupted_or_gone(servers)


def _print_addresses(addresses: ServerAddresses, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(addresses))
        return
    for name, address in asdict(addresses).items():
        typer.echo(f"export {PREFIX}{name.upper()}='{address}'")
    tell("The servers run until Ctrl-C.")


async def _interrupted_or_gone(servers: LocalServers) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    while not stop.is_set():
        if running_servers(servers.directory) != servers.addresses:
            raise LocalServerError("local servers", message="the local servers have stopped by themselves")
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), WATCH_SECONDS)
