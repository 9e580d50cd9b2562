"""What the figures were measured on."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from convostore import ConvoStore

QUIET = 0.5
LIBRARIES = ("convostore", "pymongo", "redis", "hiredis", "msgspec", "pydantic")
PEERS = (
    "beanie", "openai-agents", "langchain-mongodb", "limits", "cashews", "aiocache", "starsessions",
)  # fmt: skip


async def facts(store: ConvoStore, redis_version: str, load: float) -> dict[str, str]:
    """Return facts by their names.

    Args:
        store: an open one.
        redis_version: what the server of sessions says of itself.
        load: processes that wanted to run before the measurement began, on average of a minute.
    """
    mongodb = await store.mongodb.administration.command({"buildInfo": 1})
    cores, system = f"{os.cpu_count()} cores ({_processor()})", f"{platform.system()} {platform.release()}"
    memory = psutil.virtual_memory().total / 2**30
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{cores}, {memory:.0f} GiB, {system}",
        "load before": f"{load:.2f}{' (a busy machine: not for the record)' if load > QUIET else ''}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, event loop of asyncio",
        "servers": f"MongoDB {mongodb['version']}, replica set of one, write concern majority; {redis_version}; local",
        "libraries": _versions(LIBRARIES),
        "peers": _versions(PEERS),
    }


def _versions(names: tuple[str, ...]) -> str:
    return ", ".join(f"{name} {found}" for name in names if (found := _version(name)))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
