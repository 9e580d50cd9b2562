"""The command that looks for what is wrong, and repairs what can be repaired if it is asked to."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from convostore.cli.consent import Consent
from convostore.cli.drawing import cell, counting_bar, standard_output, table
from convostore.cli.options import (
    AsJson,
    DatabaseName,
    DataDirectory,
    MongoUri,
    RedisUrl,
    Where,
    open_gateway,
    open_gateways,
)
from convostore.cli.reporting import FAILED, print_json, run, tell
from convostore.operations.doctor import SCANNED, Doctor, Finding, Level
from convostore.operations.redis_doctor import RedisDoctor
from convostore.operations.repair import Ailment, Repair, RepairReport
from convostore.operations.sync_doctor import SyncDoctor
from convostore.repositories.exceptions import RepositoryError, ValidationError

_MARKS = {Level.OK: ("ok", "green"), Level.WARNING: ("warning", "yellow"), Level.PROBLEM: ("problem", "red")}
_WRONG_USAGE = 2
_REMEDIES = {
    Ailment.ACTIVITY: "conversations tell something else of their messages than their logs: told anew",
    Ailment.ORPHANS: "logs have no conversation: sealed, and their messages removed for good",
    Ailment.UNSEALED: "deletions have not come to their end: finished",
    Ailment.CONTENTS: "deleted conversations have messages left: removed for good",
    Ailment.CLAIMS: "imports are not finished: what they have stored is removed for good",
}

Scan = Annotated[int, typer.Option("--scan", min=0, help="Look at so many conversations at most; 0 for all.")]
Repairs = Annotated[bool, typer.Option("--repair", help="Look at everything, show what to repair, ask, repair it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="With --repair: only show it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --repair: do not ask.")]
ClaimAge = Annotated[
    float | None,
    typer.Option(
        "--claims-older-than",
        metavar="HOURS",
        min=1,
        help="With --repair: also remove what imports that began so long ago have not finished. More than your longest "
        "import takes.",
    ),
]


def doctor_command(
    *,
    scan: Scan = SCANNED,
    repair: Repairs = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    claims_older_than: ClaimAge = None,
    as_json: AsJson = False,
    mongodb_uri: MongoUri = None,
    redis_url: RedisUrl = None,
    database: DatabaseName = None,
    data: DataDirectory = None,
) -> None:
    """Look for what is wrong with a database, and with its Redis; change nothing unless --repair asks for it.

    Ends with exit code 1 if there is a problem, or something is left to be repaired. Programs may go on meanwhile.

    Example: convostore doctor --repair --dry-run
    """
    where = Where(mongodb_uri, database, data, redis_url)
    if repair:
        age = None if claims_older_than is None else timedelta(hours=claims_older_than)
        _repair(where, age, Consent(dry_run, yes, may_ask=not as_json), as_json=as_json)
    elif dry_run or yes or claims_older_than is not None:
        tell("error: --dry-run, --yes and --claims-older-than go with --repair")
        raise typer.Exit(_WRONG_USAGE)
    else:
        _examine(where, scan, as_json=as_json)


def _examine(where: Where, scan: int, *, as_json: bool) -> None:
    findings = run(_doctor(where, scan))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        drawn = table("doctor", "check", "", "found")
        for finding in findings:
            drawn.add_row(cell(finding.check), cell(*_MARKS[finding.level]), cell(finding.text))
        standard_output().print(drawn)
    if any(finding.level is Level.PROBLEM for finding in findings):
        raise typer.Exit(FAILED)


async def _doctor(where: Where, scan: int) -> list[Finding]:
    try:
        async with open_gateways(where) as (mongodb, redis):
            findings = [finding async for finding in Doctor(mongodb.administration, scan).examine()]
            findings += [finding async for finding in SyncDoctor(mongodb).examine()]
            if redis is None:
                return [*findings, Finding("Redis", Level.OK, "not used: no address")]
            return findings + [finding async for finding in RedisDoctor(redis).examine()]
    except ValidationError as error:
        return [Finding("settings", Level.PROBLEM, str(error))]
    except RepositoryError as error:
        return [Finding("MongoDB", Level.PROBLEM, str(error))]


def _repair(where: Where, age: timedelta | None, consent: Consent, *, as_json: bool) -> None:
    planned, done = run(_plan_and_repair(where, age, consent))
    if as_json:
        print_json({"planned": _plain(planned), "repaired": None if done is None else _plain(done)})
    elif done is not None:
        typer.echo(f"{done.count} repaired")
    if planned.count and done is None:
        raise typer.Exit(FAILED)


async def _plan_and_repair(
    where: Where, age: timedelta | None, consent: Consent
) -> tuple[RepairReport, RepairReport | None]:
    async with open_gateway(where) as gateway:
        with counting_bar("looking", await Repair(gateway).size()) as advance:
            planned = await Repair(gateway, age, advance).plan()
        if consent.may_ask:
            _draw(planned)
        if not planned.count or not consent.is_given("repair", "Repair this?"):
            return planned, None
        with counting_bar("repairing", await Repair(gateway).size()) as advance:
            return planned, await Repair(gateway, age, advance).run()


def _draw(report: RepairReport) -> None:
    if not report.count:
        typer.echo(f"looked at {report.looked_at} conversations and logs: nothing to repair")
        return
    drawn = table("to be repaired", "what", "cases", "", "of them")
    for ailment, tally in report.cases.items():
        if tally.count:
            drawn.add_row(cell(ailment), cell(tally.count), cell(_REMEDIES[ailment]), cell(", ".join(tally.named)))
    standard_output().print(drawn)


def _plain(report: RepairReport) -> dict[str, Any]:
    return {"looked_at": report.looked_at, **{str(ailment): asdict(tally) for ailment, tally in report.cases.items()}}
