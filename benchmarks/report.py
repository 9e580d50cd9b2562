"""The report of a run: its findings as tables, printed and as one page."""

import statistics
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from itertools import groupby

from benchmarks import aims, contest
from benchmarks.findings import Findings, Opened
from benchmarks.importing import Cost, Imports
from benchmarks.measuring import Result
from benchmarks.newest_cells import CALLERS, NEWEST, ChatPhase
from benchmarks.overload import NEAR, Overload, Phase
from benchmarks.sheets import Sheet, figure, micro, milli, ratio

SECONDS = 6  # of a phase whose tails are shown
PEERS_DIFFER = (
    "Peers are there for orientation, each in the use that its makers recommend; they do not all promise the same: "
    "Beanie's messages have the order of their ObjectIds, langchain-mongodb's that in which they lie, SQLite is a "
    "file without a server, limits is asked twice, for the verdict and for what an answer's headers tell. The raw "
    "driver validates nothing."
)
INTRODUCTION = (
    "Written by `make bench`; `make bench ARGS='--quick --output DIRECTORY'` takes ten "
    "minutes, `ARGS=--help` tells how to measure less. All contestants of a line did the same work in the same run, "
    "turn by turn, so compare ratios; the times are those of this machine."
)


def page(findings: Findings, chart: str) -> str:
    """Return the report as a page of Markdown.

    Args:
        findings: of a run.
        chart: the name of the picture beside it.
    """
    facts = "\n".join(f"- {name}: {fact}" for name, fact in findings.facts.items())
    head = [
        "# Benchmarks",
        INTRODUCTION,
        facts,
        f"![Throughput, latency and growth beside the raw driver]({chart})",
    ]
    return "\n\n".join([*head, *(sheet.markdown() for sheet in sheets(findings))]) + "\n"


def sheets(findings: Findings) -> Iterator[Sheet]:
    """Return the tables of what was measured."""
    made = (
        _aims(findings),
        _closed(findings.closed),
        _opened(findings.opened),
        _overloads(findings.overloads),
        _growth("Growth with the length of a conversation", "messages before", findings.lengths),
        _growth("Growth with the number of tenants", "tenants", findings.tenants),
        _chat(findings.chat),
        _imports(findings.imports),
        _memory(findings),
        _keys(findings),
    )
    return (sheet for sheet in made if sheet.rows)


def _aims(findings: Findings) -> Sheet:
    note = (
        f"99th percentile of one caller at most {aims.TAIL} of the raw driver's: {aims.tail_verdict(findings.closed)}."
    )
    headings = ("work", "1 caller, time", "aim", "1 caller, p99", "64 callers, throughput", "aim")
    sheet = Sheet("convostore beside the raw driver", headings, note=note)
    ours = [one for one in findings.closed if one.contestant == contest.OURS]
    for case, results in groupby(ours, key=lambda one: one.case):
        by_callers = {one.callers: one for one in results}
        alone, many = by_callers.get(aims.ALONE), by_callers.get(aims.MANY)
        first = (ratio(alone.time), aims.verdict(alone), ratio(alone.tail)) if alone else ("", "", "")
        sheet.rows.append((case, *first, *((ratio(many.throughput), aims.verdict(many)) if many else ("", ""))))
    if findings.imports is not None:
        through = findings.imports.throughput
        sheet.rows.append((contest.IMPORT, "", "", "", ratio(through), aims.IMPORT_AIM.verdict(through.median)))
    return sheet


def _closed(results: Iterable[Result]) -> Sheet:
    headings = (
        "work", "callers", "contestant", "a second", "p50 µs", "p99 µs", "client CPU µs", "server CPU µs",
        "time, of raw", "throughput, of raw", "aim",
    )  # fmt: skip
    note = (
        "Closed loop: so many callers in one process, each of whom calls again when he has his answer. Medians of the "
        f"rounds; of ratios, in parentheses, the middle half. CPU for each operation, over all rounds. {PEERS_DIFFER}"
    )
    sheet = Sheet("All work, all contestants", headings, texts=3, note=note)
    for one in results:
        times = (
            micro(seconds) for seconds in (*map(one.median, ("p50", "p99")), *map(one.spent, ("client", "servers")))
        )
        who = f"{one.contestant} ({one.failed:,} calls failed)" if one.failed else one.contestant
        ratios = (ratio(one.time), ratio(one.throughput))
        row = (one.case, str(one.callers), who, figure(one.per_second), *times, *ratios, aims.verdict(one))
        sheet.rows.append(row)
    return sheet


def _opened(results: Iterable[Opened]) -> Sheet:
    headings = (
        "work", "a second", "contestant", "arrived", "served", "late", "failed", "given up", "queue", "p50 ms",
        "p99 ms", "max ms", "client CPU µs", "server CPU µs", "aim",
    )  # fmt: skip
    note = (
        "Open loop: calls arrive by themselves (Poisson), and latency counts from the moment when a call was due, on "
        "timers of 1 ms. Late: answered after 100 ms. Queue: due, but unanswered when arrivals ended. Given up: still "
        "unanswered seconds after that; their age then counts as latency."
    )
    sheet = Sheet("Open loop", headings, texts=3, note=note)
    for case, who, load, tally in results:
        counts = (tally.arrived, tally.served, tally.late, tally.failed, tally.given_up, tally.queue)
        times = (tally.percentile(0.5), tally.percentile(0.99), tally.worst)
        each = (micro(spent / tally.arrived) for spent in (tally.client, tally.servers))
        cells = (*(f"{count:,}" for count in counts), *map(milli, times), *each)
        sheet.rows.append((case, f"{load.rate:,.0f}", who, *cells, aims.open_verdict(case, load.rate, who, tally)))
    return sheet


def _overloads(found: Iterable[Overload]) -> Sheet:
    headings = (
        "work", "phase", "due a second", "served", "refused", "late", "failed", "not made", "p99 ms",
        "p99 ms of its first seconds", "memory MiB", "aim",
    )  # fmt: skip
    note = (
        "Calls arrive at half of what a closed loop is served, at twice that, and at half again. Refused: at once, for "
        "too many waited. Late: ended by the deadline. Not made: the process that calls was a second behind. The tail "
        f"is back when the 99th percentile of each further second is at most {NEAR:g} times that before the overload."
    )
    sheet = Sheet("Overload and after", headings, texts=2, note=note)
    sheet.rows.extend(_phase(one, phase) for one in found for phase in one.phases)
    return sheet


def _phase(found: Overload, phase: Phase) -> tuple[str, ...]:
    seconds = found.of(phase)
    served = sum(len(second.latencies) for second in seconds)
    others = (sum(getattr(second, name) for second in seconds) for name in ("refused", "late", "failed", "missed"))
    tails = " ".join(milli(tail) for tail in found.tails(phase)[:SECONDS])
    memory = max(second.resident for second in seconds) / 2**20
    aim = aims.overload_verdict(found) if phase is found.phases[-1] else ""
    counts = (f"{count:,}" for count in (served, *others))
    rate = figure(phase.factor * found.capacity)
    return (found.case, phase.name, rate, *counts, milli(found.tail(phase)), tails, f"{memory:.0f}", aim)


def _growth(title: str, amount: str, results: Iterable[Result]) -> Sheet:
    headings = ("work", "callers", amount, "p50 µs", "p99 µs", "time, of first", "throughput, of first")
    note = "convostore, each amount beside the first in the same rounds: a ratio of 1 is no growth."
    sheet = Sheet(title, headings, note=note)
    for one in results:
        times = (micro(one.median("p50")), micro(one.median("p99")), ratio(one.time), ratio(one.throughput))
        sheet.rows.append((one.case, str(one.callers), one.contestant.partition(" ")[0], *times))
    return sheet


def _chat(phases: Iterable[ChatPhase]) -> Sheet:
    headings = ("cells", "reads", "from the database", "share", "reads a second", "read p50 µs", "aim")
    note = (
        f"Newest messages through the cache: read the last {NEWEST}, append a question, append an answer; "
        f"conversations by Zipf, {CALLERS} callers, two stores as of two processes. Cells end by themselves after five "
        "minutes, which is longer than this takes."
    )
    sheet = Sheet("Chat load", headings, note=note)
    for one in phases:
        aim = aims.CHAT_SHARE.verdict(one.share) if one.is_warm else ""
        counts = (f"{one.reads:,}", f"{one.loads:,}", f"{one.share:.1%}", figure(one.reads / one.seconds))
        sheet.rows.append((one.name, *counts, micro(one.p50), aim))
    return sheet


def _imports(imports: Imports | None) -> Sheet:
    headings = ("contestant", "messages a second", "client CPU µs", "server CPU µs", "throughput, of raw", "aim")
    if imports is None:
        return Sheet("", headings)
    title = f"Import of {imports.messages:,} messages"
    sheet = Sheet(title, headings, note="Beside a bare `insert_many` of equal documents, 1,000 at a time.")
    aim = aims.IMPORT_AIM.verdict(imports.throughput.median)
    sheet.rows.append((contest.RAW, *_costs(imports.bare), "1", ""))
    sheet.rows.append((contest.OURS, *_costs(imports.ours), ratio(imports.throughput), aim))
    return sheet


def _costs(costs: list[Cost]) -> tuple[str, str, str]:
    wall, client, server = (statistics.median(times) for times in zip(*map(astuple, costs), strict=True))
    return figure(1e6 / wall), figure(client), figure(server)


def _memory(findings: Findings) -> Sheet:
    headings = ("contestant", "operations", "open and warm, MiB", "after them, MiB", "grown, MiB")
    note = "Resident memory of a process of its own for each: half appends, half reads of the newest 50, 64 callers."
    sheet = Sheet("Memory of the process", headings, note=note)
    for one in findings.weights:
        sizes = (one.before, one.after, one.after - one.before)
        sheet.rows.append((one.contestant, f"{one.operations:,}", *(f"{size / 2**20:.1f}" for size in sizes)))
    return sheet


def _keys(findings: Findings) -> Sheet:
    rows = [(kind.kind, f"{kind.keys:,}", f"{kind.bytes_per_key:.0f}") for kind in findings.keys]
    return Sheet("Room that a key takes in Redis", ("kind", "keys", "bytes each"), rows=rows)
