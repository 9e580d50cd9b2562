"""Start several processes, let them go at the same moment, and collect what they print."""

import json
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convostore import MongoSettings

WORKER = Path(__file__).with_name("concurrent_worker.py")
SECONDS = 280  # less than the limit of pytest; on two shared cores the longest took 70 to 115


@dataclass(frozen=True)
class Answer:
    """What a process printed.

    Attributes:
        result: of its part.
        sent: how often each operation went to the server.
    """

    result: Any
    sent: dict[str, int]


def run_together(settings: MongoSettings, *parts: tuple[str, dict[str, Any]]) -> list[Answer]:
    """Run parts of the worker in a process each, all of them starting once all are connected."""
    assert settings.mongodb_uri is not None
    command = [sys.executable, str(WORKER), settings.mongodb_uri.get_secret_value(), settings.database_name]
    with ExitStack() as stack:
        workers = [_start(stack, [*command, part, json.dumps(arguments)]) for part, arguments in parts]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        outputs = [worker.communicate(timeout=SECONDS)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * len(workers)
    return [Answer(**json.loads(output)) for output in outputs]


def _start(stack: ExitStack, command: list[str]) -> subprocess.Popen[str]:
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    stack.enter_context(worker)
    stack.callback(worker.kill)
    return worker
