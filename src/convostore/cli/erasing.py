"""The command that erases: a user, a tenant, or what is older than an age."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated, Any, NamedTuple

import typer

from convostore.cli.consent import Consent
from convostore.cli.drawing import cell, counting_bar, safe, standard_output, table
from convostore.cli.options import AsJson, DatabaseName, DataDirectory, MongoUri, RedisUrl, Tenant, Where, open_gateways
from convostore.cli.reporting import FAILED, print_json, run, tell
from convostore.models.identity import check_identifier
from convostore.operations.ages import parse_age
from convostore.operations.erasing import Erasure, ErasureCounts, ErasureReport
from convostore.operations.retention import Retention

_WRONG_USAGE = 2


class Kind(StrEnum):
    """What is kept no longer than an age."""

    CONVERSATIONS = "conversations"
    MESSAGES = "messages"
    SESSIONS = "sessions"


User = Annotated[str | None, typer.Option("--user", "-u", help="Only this user, and everything of his.")]
Names = Annotated[
    list[str] | None,
    typer.Option("--identifier", help="With --user: a further name of his in rate limits and quotas; may be repeated."),
]
OlderThan = Annotated[
    str | None,
    typer.Option("--older-than", metavar="AGE", help="Only what is older: 36h, 90d, 8w, 2y."),
]
Kinds = Annotated[
    list[Kind] | None,
    typer.Option(
        "--only",
        help="With --older-than: conversations in which nothing has happened for so long (the default), contents of "
        "messages, sessions that nobody has used; may be repeated.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count what would go.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


class _Wish(NamedTuple):
    """What somebody wants to be erased."""

    tenant: str
    user: str | None
    identifiers: tuple[str, ...]
    consent: Consent

    @property
    def whose(self) -> str:
        return f"user {self.user} of tenant {self.tenant}" if self.user is not None else f"tenant {self.tenant}"


def erase_command(
    *,
    tenant: Tenant,
    user: User = None,
    identifier: Names = None,
    older_than: OlderThan = None,
    only: Kinds = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
    mongodb_uri: MongoUri = None,
    redis_url: RedisUrl = None,
    database: DatabaseName = None,
    data: DataDirectory = None,
) -> None:
    """Erase a tenant, one of his users, or what is older than an age, from MongoDB and Redis, for good.

    It shows what it has found, asks, and tells what is left. Killed in the middle it is simply run again. Ends with
    exit code 1 if something was left, or nobody has said yes.

    Example: convostore erase --tenant acme --user u-1 --dry-run
    """
    where = Where(mongodb_uri, database, data, redis_url)
    wish = _Wish(tenant, user, tuple(identifier or ()), Consent(dry_run, yes, may_ask=not as_json))
    if older_than is None and not only:
        _erase(where, wish, as_json=as_json)
    elif older_than is None or user is not None or identifier:
        tell("error: --only goes with --older-than, and neither with --user")
        raise typer.Exit(_WRONG_USAGE)
    else:
        _retain(where, wish, older_than, list(dict.fromkeys(only or [Kind.CONVERSATIONS])), as_json=as_json)


# a user or a tenant


def _erase(where: Where, wish: _Wish, *, as_json: bool) -> None:
    found, report = run(_look_and_erase(where, wish))
    if as_json:
        print_json({"before": asdict(found), "after": asdict(report.after) if report else None})
    elif report is not None:
        _tell_end(report)
    if not found.total or wish.consent.dry_run:
        return
    if report is None or not report.is_complete:
        raise typer.Exit(FAILED)


async def _look_and_erase(where: Where, wish: _Wish) -> tuple[ErasureCounts, ErasureReport | None]:
    check_identifier(wish.tenant, "tenant")
    if wish.user is not None:
        check_identifier(wish.user, "user")
    async with open_gateways(where) as (mongodb, redis):
        if redis is None:
            tell("Redis is not used: no address. What it may hold stays there.")
        options: dict[str, Any] = {"identifiers": wish.identifiers}
        with counting_bar("counting", None):
            found = await Erasure(mongodb, redis, wish.tenant, wish.user, **options).look()
        if wish.consent.may_ask:
            _draw(wish.whose, asdict(found))
        if not wish.consent.is_given("erase", f"Erase all of this for good, and with it {wish.whose}?"):
            return found, None
        with counting_bar("erasing", found.conversations + found.imports) as advance:
            erasure = Erasure(mongodb, redis, wish.tenant, wish.user, progress=advance, **options)
            return found, await erasure.run()


def _tell_end(report: ErasureReport) -> None:
    left = {name: count for name, count in asdict(report.after).items() if count}
    if left:
        _draw("left, for somebody goes on writing: stop him, and run this again", left)
    else:
        typer.echo(f"{report.before.total} erased, nothing left")


# what is older


def _retain(where: Where, wish: _Wish, older_than: str, kinds: Sequence[Kind], *, as_json: bool) -> None:
    found, gone = run(_look_and_retain(where, wish, older_than, kinds))
    if as_json:
        print_json({"older": found, "gone": gone})
    elif gone is not None:
        typer.echo(", ".join(f"{count} {kind}" for kind, count in gone.items()) + " gone")
    if gone is None and not wish.consent.dry_run and any(found.values()):
        raise typer.Exit(FAILED)


async def _look_and_retain(
    where: Where, wish: _Wish, older_than: str, kinds: Sequence[Kind]
) -> tuple[dict[str, int], dict[str, int] | None]:
    check_identifier(wish.tenant, "tenant")
    age = parse_age(older_than)
    async with open_gateways(where) as (mongodb, redis):
        retention = Retention(mongodb, redis, wish.tenant, age)
        with counting_bar("counting", None):
            found = {str(kind): await _counting(retention)[kind]() for kind in kinds}
        if wish.consent.may_ask:
            _draw(f"of tenant {wish.tenant}, older than {older_than}", found)
        if not any(found.values()) or not wish.consent.is_given("erase", "Remove this for good?"):
            return found, None
        with counting_bar("removing", sum(found.values())) as advance:
            retention = Retention(mongodb, redis, wish.tenant, age, advance)
            return found, {str(kind): await _removing(retention)[kind]() for kind in kinds}


_Step = Callable[[], Awaitable[int]]


def _counting(retention: Retention) -> dict[Kind, _Step]:
    return {
        Kind.CONVERSATIONS: retention.count_conversations,
        Kind.MESSAGES: retention.count_messages,
        Kind.SESSIONS: retention.count_sessions,
    }


def _removing(retention: Retention) -> dict[Kind, _Step]:
    return {
        Kind.CONVERSATIONS: retention.delete_conversations,
        Kind.MESSAGES: retention.blank_messages,
        Kind.SESSIONS: retention.end_sessions,
    }


# telling


def _draw(title: str, counts: dict[str, Any]) -> None:
    typer.echo(safe(title))
    drawn = table("", "what", "found")
    for name, count in counts.items():
        drawn.add_row(cell(name), cell(count))
    standard_output().print(drawn)
