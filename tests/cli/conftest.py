"""The program as a person runs it, on a database of the test's own."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from convostore import ConvoStore, MongoSettings
from convostore.cli.main import app
from convostore.database.mongodb import open_mongodb

# As from a terminal: a shell without job control lets what it runs in the background ignore Ctrl-C.
PROGRAM = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);import convostore.cli.main as c; c.main()",
]


class Program:
    """Runs commands on one database."""

    def __init__(self, settings: MongoSettings) -> None:
        assert settings.mongodb_uri is not None
        self.settings = settings
        self._started: list[subprocess.Popen[bytes]] = []
        self._where = ["--mongodb-uri", settings.mongodb_uri.get_secret_value(), "--database", settings.database_name]
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CONVOSTORE_")},
            "CONVOSTORE_MONGODB_URI": settings.mongodb_uri.get_secret_value(),
            "CONVOSTORE_DATABASE_NAME": settings.database_name,
        }

    def __call__(self, *arguments: object) -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(app, [*map(str, arguments), *self._where])

    def json(self, *arguments: object) -> Any:
        """Run a command with --json and return what it prints."""
        return json.loads(self(*arguments, "--json").stdout)

    def start(self, *arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a command as a process of its own."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": self.environment} | options
        process = subprocess.Popen([*PROGRAM, *map(str, arguments)], **options)
        self._started.append(process)
        return process

    def end(self) -> None:
        """End what was started, and delete the database, in whatever state it is."""
        for process in self._started:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        asyncio.run(self._drop())

    async def _drop(self) -> None:
        gateway = open_mongodb(self.settings)
        await gateway.administration.drop_database()
        await gateway.aclose()

    def do(self, work: Any) -> Any:
        """Do something with the store."""

        async def opened() -> Any:
            async with ConvoStore.open(self.settings) as store:
                return await work(store)

        return asyncio.run(opened())


@pytest.fixture
def program(convostore_settings: MongoSettings) -> Iterator[Program]:
    program = Program(convostore_settings)
    yield program
    program.end()


def write_lines(path: Path, count: int, prefix: str = "talk") -> Path:
    """Write a file of conversations, each another one."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            messages = [
                {"role": ["user", "assistant"][turn % 2], "content": f"{number}/{turn} " + "word " * (turn % 7)}
                for turn in range(1 + number * 7 % 20)
            ]
            content = {"conversation_id": f"{prefix}-{number:06d}", "metadata": {}, "messages": messages}
            stream.write(json.dumps(content, separators=(",", ":")) + "\n")
    return path


@pytest.fixture
def lines() -> Any:
    """How a file of conversations is written."""
    return write_lines
