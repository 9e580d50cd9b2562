"""Running a command: expected errors become one line and an exit code."""

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import typer

from convostore.cli.drawing import safe
from convostore.repositories.exceptions import RepositoryError

T = TypeVar("T")
FAILED = 1
INTERRUPTED = 130
TERMINATED = 143


def run(work: Coroutine[Any, Any, T]) -> T:
    """Carry out the work of a command.

    Raises:
        typer.Exit: it failed in a way that was to be expected, which has been told.
    """
    with reported():
        return asyncio.run(_terminable(work))


async def _terminable(work: Coroutine[Any, Any, T]) -> T:
    """Let SIGTERM end the work as Ctrl-C does, so that what is half done is taken back."""
    task, terminated = asyncio.current_task(), []

    def end() -> None:
        terminated.append(True)
        if task is not None:
            task.cancel()

    with suppress(NotImplementedError, RuntimeError, ValueError):  # not on this system, or not in this thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end)
    try:
        return await work
    except asyncio.CancelledError:
        if not terminated:
            raise
        raise typer.Exit(TERMINATED) from None


@contextmanager
def reported() -> Iterator[None]:
    """Tell expected errors as one line on standard error, and end the command with an exit code."""
    try:
        yield
    except RepositoryError as error:
        fail(str(error))
    except BrokenPipeError:
        _give_up_output()  # whoever read it has had enough
        raise typer.Exit(FAILED) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _give_up_output()
        subject = f"{error.filename}: " if error.filename else ""
        fail(f"{subject}{error.strerror or type(error).__name__}")
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _give_up_output() -> None:
    """Let what is left in the buffer of standard output go nowhere, for it must not fail again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str) -> NoReturn:
    """Tell an error and end the command."""
    tell(f"error: {message}")
    raise typer.Exit(FAILED)


def tell(message: str) -> None:
    """Write a line to standard error."""
    typer.echo(safe(message), err=True)


def print_json(value: Any) -> None:
    """Write a value to standard output as JSON in plain ASCII, in which no control character survives."""
    typer.echo(json.dumps(value, indent=2))
