"""The table at the end of a chaos run."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from chaos_run import Outcome

from convostore.testing.nemesis import Entry

KINDS = ("answered", "refused", "away", "not applied", "unknown", "cancelled")
CONFLICTS = ("TransactionConflictError",)
CANCELLED = ("Cancelled", "Hung")
ON_REDIS = ("session_start", "session_end", "session_get", "limit", "count")


def report(outcome: Outcome) -> str:
    """Return the table as text."""
    parts = [_operations(outcome), _faults(outcome), _violations(outcome)]
    return "\n\n".join("\n".join(part) for part in parts)


def _operations(outcome: Outcome) -> list[str]:
    rows = defaultdict(list)
    for record in outcome.history:
        rows[record["op"]].append(record)
    lines = [
        f"{'operation':<16}{'calls':>9}{'answered':>10}{'refused':>9}{'not appl.':>10}{'unknown':>9}{'slowest':>9}"
    ]
    for op, records in sorted(rows.items()):
        kinds = Counter(_kind(record) for record in records)
        slowest = max(record["end"] - record["start"] for record in records)
        counts = "".join(f"{kinds[kind]:>12}" for kind in KINDS)
        lines.append(f"{op:<14}{len(records):>8}{counts}{slowest:>8.2f} s")
    return [*lines, f"{'all':<14}{len(outcome.history):>8}"]


def _kind(record):
    """Tell apart what a fault does to a call from what other callers do to it."""
    if record["error"] is None:
        return "away" if record.get("degraded") else "answered"
    if record["error"] in CANCELLED:
        return "cancelled"
    return record["outcome"] if record["retryable"] and record["error"] not in CONFLICTS else "refused"


def _failed(record):
    return _kind(record) in ("away", "not applied", "unknown")


def _faults(outcome: Outcome) -> list[str]:
    """Tell for each kind of fault how long callers saw errors: from its begin to the last one, and behind its end."""
    rows = defaultdict(list)
    for entry, following in zip(outcome.journal, [*outcome.journal[1:], None], strict=True):
        rows[entry.kind].append((entry, _errors(outcome, entry, following)))
    lines = [f"{'fault':<40}{'times':>6}{'errors':>8}{'longest':>10}{'median':>9}{'after its end':>15}"]
    for kind, found in sorted(rows.items()):
        spans = sorted(max([0.0, *(end - entry.begin for end in errors)]) for entry, errors in found)
        after = max(max([0.0, *(end - entry.end for end in errors)]) for entry, errors in found)
        errors = sum(len(each) for _, each in found)
        seconds = f"{spans[-1]:>8.1f} s{spans[len(spans) // 2]:>7.1f} s{after:>13.1f} s"
        lines.append(f"{kind:<40}{len(found):>6}{errors:>8}{seconds}")
    return [*lines, f"{'all':<40}{len(outcome.journal):>6}"]


def _errors(outcome: Outcome, entry: Entry, following: Entry | None) -> Sequence[float]:
    """Return when calls of the store that it befell failed, of those that began before the next fault."""
    until = following.begin if following else float("inf")
    on_redis = entry.kind.startswith("redis")
    return [
        record["end"]
        for record in outcome.history
        if (record["op"] in ON_REDIS) == on_redis
        and _failed(record)
        and record["end"] >= entry.begin
        and record["start"] < until
        and record["start"] >= entry.begin - 5.0
    ]


def _violations(outcome: Outcome) -> list[str]:
    lines = [f"{'violations of':<50}{'':>6}"]
    lines += [f"{name:<50}{len(found):>6}" for name, found in outcome.violations.items()]
    return lines + outcome.all_violations[:20]


def keep(outcome: Outcome, folder: Path) -> None:
    """Keep history and journal as JSON lines, for whoever has to find out what happened."""
    for name, rows in {"history": outcome.history, "journal": [asdict(entry) for entry in outcome.journal]}.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
