"""Commands that bring conversations in and out."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn

from convostore.cli.drawing import progress_bar
from convostore.cli.options import (
    AsJson,
    DatabaseName,
    DataDirectory,
    MongoUri,
    RedisUrl,
    Tenant,
    Where,
    open_store,
    open_tenant,
)
from convostore.cli.reporting import FAILED, print_json, run, tell
from convostore.models.identity import check_identifier
from convostore.operations.exporting import Exporter, ExportResult, export_sessions
from convostore.operations.importing import Importer, ImportResult, OnError
from convostore.operations.importing import Progress as ImportProgress
from convostore.operations.line_source import LineSource
from convostore.operations.output import STANDARD_OUTPUT, open_output
from convostore.repositories.exceptions import ValidationError
from convostore.tenant_store import TenantStore

_MEBIBYTE = 1024 * 1024

Source = Annotated[str, typer.Argument(metavar="FILE", help="JSON Lines, plain or gzipped; - is standard input.")]
Treatment = Annotated[OnError, typer.Option("--on-error", help="What to do about a line that cannot be imported.")]
LineLimit = Annotated[int, typer.Option("--max-line", min=1, max=1024, help="Longest line in MiB.")]
User = Annotated[str | None, typer.Option("--user", "-u", help="Only the conversations of this user.")]
Sessions = Annotated[
    str | None,
    typer.Option(
        "--sessions", metavar="FILE", help="With --user: also what is kept of his sessions, without their ids."
    ),
]
Target = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="Where to; .gz compresses, - prints.")]


def import_command(
    file: Source,
    *,
    tenant: Tenant,
    on_error: Treatment = OnError.STOP,
    max_line: LineLimit = 64,
    as_json: AsJson = False,
    mongodb_uri: MongoUri = None,
    database: DatabaseName = None,
    data: DataDirectory = None,
) -> None:
    """Import conversations, one a line, each exactly once.

    A line: {"conversation_id"?, "metadata"?, "messages": [{"role", "content"}]}. Running it again changes nothing;
    after a crash it goes on from where it was.

    Example: convostore import dialogues.jsonl.gz --tenant acme
    """
    result = run(_import(file, Where(mongodb_uri, database, data), tenant, on_error, max_line * _MEBIBYTE))
    if as_json:
        print_json(asdict(result))
    else:
        _tell_import(result)
    if result.failed:
        raise typer.Exit(FAILED)


async def _import(file: str, where: Where, tenant: str, on_error: OnError, max_line_bytes: int) -> ImportResult:
    check_identifier(tenant, "tenant")
    with LineSource(file, max_line_bytes) as source:
        async with open_tenant(where, tenant) as opened:
            return await import_with_bar(opened, source, on_error)


async def import_with_bar(tenant: TenantStore, source: LineSource, on_error: OnError) -> ImportResult:
    """Import with a progress bar on standard error."""
    gc.freeze()  # the program itself is no garbage: to look through it again and again would take a seventh of the time
    with _import_bar(source) as progress:
        return await Importer(tenant.database, on_error, progress).run(source)


@contextmanager
def _import_bar(source: LineSource) -> Iterator[ImportProgress]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), DownloadColumn())
    with progress_bar(*columns) as bar:
        task = bar.add_task("importing", total=source.size)

        def progress(result: ImportResult, source: LineSource) -> None:
            text = f"{result.imported + result.unchanged} conversations"
            bar.update(task, completed=source.position, description=text)

        yield progress


def _tell_import(result: ImportResult) -> None:
    for problem in result.problems:
        tell(f"line {problem.line}: {problem.reason}")
    if result.failed > len(result.problems):
        tell(f"and {result.failed - len(result.problems)} more")
    if result.stopped:
        tell(
            "Stopped; the conversations before that line, and perhaps some behind it, are imported. "
            "Mend the line and run the same command again, or add "
            "--on-error skip to pass over such lines."
        )
    typer.echo(
        f"{result.imported} conversations imported with {result.messages} messages, {result.unchanged} unchanged, "
        f"{result.failed} lines refused"
    )


def export_command(
    *,
    tenant: Tenant,
    user: User = None,
    output: Target = STANDARD_OUTPUT,
    sessions: Sessions = None,
    as_json: AsJson = False,
    mongodb_uri: MongoUri = None,
    redis_url: RedisUrl = None,
    database: DatabaseName = None,
    data: DataDirectory = None,
) -> None:
    """Export all conversations of a tenant, or of one of his users, in the form that import reads.

    A file is there only once it is whole. Printed to standard output, the summary goes to standard error.

    Example: convostore export --tenant acme --output acme.jsonl.gz
    """
    where = Where(mongodb_uri, database, data, redis_url)
    result, written = run(_export(where, _Wanted(tenant, user, output, sessions)))
    if as_json and output != STANDARD_OUTPUT:
        print_json({**asdict(result), **({} if written is None else {"sessions": written})})
    else:
        tell(f"{result.conversations} conversations exported with {result.messages} messages, {result.bytes} bytes")
        if written is not None:
            tell(f"{written} sessions exported")


class _Wanted(NamedTuple):
    """What is to be exported, and where to."""

    tenant: str
    user: str | None
    output: str
    sessions: str | None

    def check(self) -> None:
        """Make sure of it before servers are started for nothing."""
        check_identifier(self.tenant, "tenant")
        if self.user is not None:
            check_identifier(self.user, "user")
        elif self.sessions is not None:
            raise ValidationError("sessions: are exported of one user: add --user", "sessions")
        for target in (self.output, *filter(None, [self.sessions])):
            _check_target(target)


async def _export(where: Where, wanted: _Wanted) -> tuple[ExportResult, int | None]:
    wanted.check()
    async with open_store(where) as store:
        result = await _export_conversations(store.tenant(wanted.tenant), wanted)
        if wanted.user is None or wanted.sessions is None:
            return result, None
        with open_output(wanted.sessions) as stream:
            return result, await export_sessions(store.sessions, wanted.tenant, wanted.user, stream)


async def _export_conversations(opened: TenantStore, wanted: _Wanted) -> ExportResult:
    columns = (TextColumn("exporting"), BarColumn(), MofNCompleteColumn())
    with progress_bar(*columns) as bar, open_output(wanted.output) as stream:
        of_user = {} if wanted.user is None else {"user_id": wanted.user}
        task = bar.add_task("exporting", total=None if bar.disable else await opened.conversations.count(of_user))

        def progress(result: ExportResult) -> None:
            bar.update(task, completed=result.conversations)

        return await Exporter(opened.database, progress, user_id=wanted.user).run(stream)


def _check_target(output: str) -> None:
    target = Path(output)
    if output != STANDARD_OUTPUT and target.is_dir():
        raise IsADirectoryError(21, "Is a directory", output)
    if output != STANDARD_OUTPUT and not target.absolute().parent.is_dir():
        raise FileNotFoundError(2, "No such directory", str(target.parent))
