"""What the tests look at behind the library's back: everything stored, and every command sent."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pymongo.monitoring import CommandListener, CommandStartedEvent

from convostore import ConvoStore, MongoSettings
from convostore.gateways.mongo_gateway import MongoGateway


async def dump(store: ConvoStore, **query: Any) -> dict[str, list[dict[str, Any]]]:
    """Return everything that is stored, once pending activity is written."""
    await store.mongodb.activity.flush()
    database = store.mongodb.database
    return {name: await database[name].find(query).sort("_id").to_list() for name in ("conversations", "messages")}


class Commands(CommandListener):
    """Keeps every command that is sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def started(self, event: CommandStartedEvent) -> None:
        """Keep a command."""
        self.sent.append((event.command_name, dict(event.command)))

    def succeeded(self, event: Any) -> None:
        """Take no note of an answer."""

    def failed(self, event: Any) -> None:
        """Take no note of a failure."""

    def names(self) -> list[str]:
        """Return the commands sent so far, and forget them."""
        names = [name for name, _ in self.sent]
        self.sent.clear()
        return names


@asynccontextmanager
async def listening(settings: MongoSettings) -> AsyncIterator[tuple[ConvoStore, Commands]]:
    """Open another store on the same database, all of whose commands are kept."""
    assert settings.mongodb_uri is not None
    commands = Commands()
    options = {**settings.client_options(), "event_listeners": [commands]}
    store = ConvoStore(MongoGateway.connect(settings.mongodb_uri.get_secret_value(), settings.database_name, options))
    try:
        yield store, commands
    finally:
        await store.aclose()
