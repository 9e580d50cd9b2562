"""Processes that use local servers, so that they can be watched and killed."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from pymongo import MongoClient

import redis
from convostore.database.local_servers import ServerAddresses

USER = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from convostore.database.local_servers import LocalServers

servers = LocalServers.acquire_sync(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
print(json.dumps({"directory": str(servers.directory), **asdict(servers.addresses)}), flush=True)
sys.stdin.read()
servers.release_sync()
"""


class UserProcess:
    """A process that uses local servers until it is told to leave or killed."""

    def __init__(self, directory: Path | None) -> None:
        arguments = [str(directory)] if directory else []
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ready(self) -> "UserProcess":
        """Wait until it has its servers."""
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.directory = Path(told.pop("directory"))
        self.addresses = ServerAddresses(**told)
        return self

    def leave(self) -> None:
        """Let it give its servers back and end."""
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def kill(self) -> None:
        """Kill it and close our side of its pipes."""
        self.process.kill()
        self.process.communicate()


def processes_of(directory: Path, program: str = "") -> list[psutil.Process]:
    """The keeper and the servers of a directory, zombies included."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        serves = any(word == str(directory) or word.startswith(f"{directory}/") for word in words)
        if serves and "-c" not in words and any(program in word for word in words):
            found.append(process)
    return found


def wait_until_nothing_runs(directory: Path, seconds: float = 10.0) -> list[psutil.Process]:
    """Wait until no process serves the directory; return those that do after all."""
    wait_until(lambda: not processes_of(directory), seconds)
    return processes_of(directory)


def wait_until(happened: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until something has happened, or for so long."""
    deadline = time.monotonic() + seconds
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)


def write(addresses: ServerAddresses, value: int) -> None:
    """Store a value in both servers."""
    with connect(addresses) as client:
        client.test.values.insert_one({"_id": value})
    with redis.Redis.from_url(addresses.redis_url) as cache:
        cache.sadd("values", value)


def read(addresses: ServerAddresses) -> tuple[list[int], list[int]]:
    """Read the values that both servers have."""
    with connect(addresses) as client:
        stored = [document["_id"] for document in client.test.values.find().sort("_id")]
    with redis.Redis.from_url(addresses.redis_url) as cache:
        members = cache.smembers("values")
    assert isinstance(members, set)
    return stored, sorted(map(int, members))


def connect(addresses: ServerAddresses, milliseconds: int = 5000) -> MongoClient[dict[str, Any]]:
    """Open a client that gives up soon."""
    return MongoClient(addresses.mongodb_uri, serverSelectionTimeoutMS=milliseconds)
