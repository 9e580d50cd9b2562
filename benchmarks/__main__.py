"""Measure convostore beside the raw drivers and its peers: ``python -m benchmarks``.

Prints the report; a run of everything also writes it to ``docs``.
"""

import argparse
import asyncio
import time
from pathlib import Path

from rich.console import Console

from benchmarks.findings import Findings
from benchmarks.report import page, sheets
from benchmarks.suite import CALLERS, FULL, QUICK, Choice, run

DOCS = Path(__file__).parent.parent / "docs"
PAGE, CHART = "benchmarks.md", "benchmarks.svg"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer, shorter rounds: ten minutes with peers")
    parser.add_argument("--only", default="", metavar="WORD", help="only the work whose name contains it")
    parser.add_argument("--store", choices=("mongodb", "redis"), default="", help="only the work on this one")
    parser.add_argument("--callers", type=_numbers, default=CALLERS, metavar="N,N", help="by default 1,16,64,256")
    parser.add_argument("--no-peers", action="store_true", help="convostore and the raw drivers alone")
    parser.add_argument("--data", type=Path, metavar="FILE", help="import this file instead of what is made up")
    parser.add_argument("--output", type=Path, metavar="DIRECTORY", help="write the report there, whatever was run")
    return parser.parse_args()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split(","))


def _write(findings: Findings, directory: Path) -> None:
    from benchmarks.chart import draw  # noqa: PLC0415 - who only wants to read figures needs no library for drawing

    directory.mkdir(parents=True, exist_ok=True)
    (directory / CHART).write_text(draw(findings), encoding="utf-8")
    (directory / PAGE).write_text(page(findings, CHART), encoding="utf-8")


def main() -> None:
    """Run what was asked for, print it, write it."""
    given = _parse()
    choice = Choice(
        size=QUICK if given.quick else FULL,
        only=given.only,
        store=given.store,
        callers=given.callers,
        peers=not given.no_peers,
        data=given.data,
    )
    progress = Console(stderr=True)
    started = time.monotonic()
    findings = asyncio.run(run(choice, lambda text: progress.print(f"{time.monotonic() - started:5.0f} s  {text}")))
    findings.facts["run"] = f"{'quick' if given.quick else 'full'}, {(time.monotonic() - started) / 60:.0f} minutes"
    console = Console(width=None if progress.is_terminal else 180)
    for sheet in sheets(findings):
        console.print(sheet.for_terminal())
    # What is on record is a whole and thorough run.
    output = given.output or (DOCS if choice.is_everything and not given.quick else None)
    if output is not None:
        _write(findings, output)
        console.print(f"written: {output / PAGE}, {output / CHART}")


if __name__ == "__main__":
    main()
