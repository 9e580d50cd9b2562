"""Running a command: expected errors become one line and an exit code."""

import asyncio
import json
import os
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import typer

from convostore.cli.drawing import safe
from convostore.repositories.exceptions import RepositoryError

T = TypeVar("T")
FAILED = 1
INTERRUPTED = 130


def run(work: Coroutine[Any, Any, T]) -> T:
    """Carry out the work of a command.

    Raises:
        typer.Exit: it failed in a way that was to be expected, which has been told.
    """
    with reported():
        return asyncio.run(work)


@contextmanager
def reported() -> Iterator[None]:
    """Tell expected errors as one line on standard error, and end the command with an exit code."""
    try:
        yield
    except RepositoryError as error:
        fail(str(error))
    except BrokenPipeError:
        # Whoever read our output has had enough. What is left in the buffer must not fail again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except OSError as error:
        subject = f"{error.filename}: " if error.filename else ""
        fail(f"{subject}{error.strerror or type(error).__name__}")
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


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
