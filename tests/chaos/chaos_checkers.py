"""What the history of a chaos run must look like, checked once the run is over.

A record is what ``chaos_plan.History`` has written: the call, its start and end, its error or None. A call whose
outcome is unknown may have had its effect at any time from its start on, or never.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "concurrency"))

from log_checker import late_arrivals, violations

Record = Mapping[str, Any]
History = Sequence[Record]
APPENDS = ("append", "append_keyed", "append_many")
HIDDEN = "\0hidden"  # what stands where a batch was cut short, or nothing is any more


@dataclass(frozen=True)
class Truth:
    """What is in the databases once all is whole and quiet.

    Attributes:
        logs: for each log its slots in order, each with sequence and text; ``HIDDEN`` and more if not shown.
        registers: for each register its version and its number.
        notes: for each sequence of the notebook its version and its content.
        living: the sessions of those that were ever started which still answer.
        counter: how far it has been raised.
    """

    logs: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    registers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    notes: Mapping[int, tuple[int, str]] = field(default_factory=dict)
    living: frozenset[str] = frozenset()
    counter: int = 0


def of(history: History, *ops: str) -> list[Record]:
    """Return the records of some kinds of calls."""
    return [record for record in history if record["op"] in ops]


def acknowledged(records: Iterable[Record]) -> list[Record]:
    """Return the records of calls that answered."""
    return [record for record in records if record["error"] is None]


def unknown(records: Iterable[Record]) -> list[Record]:
    """Return the records of calls that may have had their effect or not."""
    return [record for record in records if record["error"] is not None and record["outcome"] == "unknown"]


def check_logs(history: History, truth: Truth) -> list[str]:
    """Each log is dense; what was acknowledged stands in its place once, what was not applied nowhere."""
    appends = [part for record in of(history, *APPENDS, "unit") for part in _by_log(record)]
    found = []
    for log, slots in truth.logs.items():
        mine = [record for record in appends if record["log"] == log]
        calls = defaultdict(list)
        for record in sorted(acknowledged(mine), key=lambda record: record["start"]):
            # Several tasks are told of the same keyed message, each in its turn.
            task = record["texts"][0] if record["op"] == "append_keyed" else record["task"]
            calls[task].append(list(zip(record["sequences"], record["texts"], strict=True)))
        perhaps = {text for record in unknown(mine) for text in record["texts"]}
        perhaps |= {text for _, text in slots if text.startswith(HIDDEN)}
        found += [f"{log}: {each}" for each in violations(slots, calls, perhaps)]
        found += _not_applied(log, mine, {text for _, text in slots})
    return found


def _by_log(record: Record) -> list[Record]:
    """Return a unit of work as the appends that it consists of."""
    if record["op"] != "unit":
        return [record]
    sequences = record.get("sequences", [None, None])
    parts = zip(record["logs"], record["texts"], sequences, strict=True)
    return [{**record, "log": log, "texts": [text], "sequences": [sequence]} for log, text, sequence in parts]


def _not_applied(log: str, records: Sequence[Record], texts: set[str]) -> list[str]:
    sure = [record for record in records if record["error"] is not None and record["outcome"] == "not applied"]
    return [
        f"{log}: {text} is there, which was said not to be"
        for record in sure
        if record["op"] != "append_keyed"  # somebody else has stored it
        for text in record["texts"]
        if text in texts
    ]


def check_units(history: History, truth: Truth) -> list[str]:
    """A unit of work is there wholly or not at all."""
    there = {text for slots in truth.logs.values() for _, text in slots}
    return [
        f"half a unit of work is there: {record['texts']}"
        for record in of(history, "unit")
        if len(there.intersection(record["texts"])) == 1
    ]


def check_keys(history: History) -> list[str]:
    """All who used a key were told the same place, and at most one of them that he was the first."""
    found = []
    places, firsts = defaultdict(set), Counter()
    for record in acknowledged(of(history, "append_keyed")):
        key = record["texts"][0]
        places[key].update(record["sequences"])
        firsts[key] += not record["replayed"]
    found += [f"{key} stands at {sorted(where)}" for key, where in places.items() if len(where) > 1]
    return found + [f"{key} was stored first {times} times" for key, times in firsts.items() if times > 1]


def check_tails(history: History, truth: Truth) -> list[str]:
    """Who follows a log sees each message once, in order, and none comes late."""
    seen = defaultdict(list)
    for record in sorted(acknowledged(of(history, "tail")), key=lambda record: record["start"]):
        seen[record["log"], record["task"]] += [tuple(entry) for entry in record["seen"]]
    found = []
    for (log, task), entries in seen.items():
        last = entries[-1][0] if entries else 0
        shown = [
            (sequence, text) for sequence, text in truth.logs[log] if not text.startswith(HIDDEN) and sequence <= last
        ]
        found += [f"{log}, reader {task}: {each}" for each in _late(entries, shown)]
    return found


def _late(entries, shown):
    place = {sequence: number for number, (sequence, _) in enumerate(shown, 1)}  # as if nothing were hidden
    numbered = [(place.get(sequence, -sequence), text) for sequence, text in entries]
    return late_arrivals(numbered, [(place[sequence], text) for sequence, text in shown])


def check_registers(history: History, truth: Truth) -> list[str]:
    """No change is lost: the number rises with the version, each version has one writer, and none is undone."""
    found = []
    for register, (version, number) in truth.registers.items():
        mine = [record for record in history if record.get("register") == register]
        writes = [record for record in mine if record["op"] in ("raise", "update")]
        told = [(record["version"], record["number"]) for record in acknowledged(mine)] + [(version, number)]
        found += [f"{register} at version {v} is {n}: a change was lost" for v, n in sorted(set(told)) if n != v - 1]
        found += _one_writer(register, acknowledged(writes), "version")
        found += _stale_accepted(register, acknowledged(writes))
        least, most = len(acknowledged(writes)), len(acknowledged(writes)) + len(unknown(writes))
        if not least <= number <= most:
            found.append(f"{register} is {number}, after {least} acknowledged and {most - least} unclear changes")
        found += _undone(register, acknowledged(writes), version)
    return found


def check_notes(history: History, truth: Truth) -> list[str]:
    """No edit is lost: each version of a message has one content, which whoever reads it sees."""
    found = []
    for sequence, final in truth.notes.items():
        mine = [record for record in history if record.get("sequence") == sequence and record["op"] in ("edit", "look")]
        edits = [record for record in mine if record["op"] == "edit"]
        name = f"note {sequence}"
        contents = defaultdict(set)
        for record in acknowledged(mine):
            contents[record["version"]].add(record["content"])
        contents[final[0]].add(final[1])
        found += [f"{name} at version {v} is {sorted(c)}" for v, c in sorted(contents.items()) if len(c) > 1]
        found += _one_writer(name, acknowledged(edits), "version") + _stale_accepted(name, acknowledged(edits))
        found += _undone(name, acknowledged(edits), final[0])
    return found


def check_reads(history: History, truth: Truth) -> list[str]:
    """No read is older than a write that had returned before it began.

    While the primary changes, this is not so: a new primary that does not know yet what the former one has
    acknowledged, and a former one that does not know yet that it is none, answer reads of majority concern with less.
    """
    found = []
    for register in truth.registers:
        mine = [record for record in history if record.get("register") == register]
        found += _gone_back(register, mine, ("raise", "update"), ("read",))
    for sequence in truth.notes:
        mine = [record for record in history if record.get("sequence") == sequence and record["op"] in ("edit", "look")]
        found += _gone_back(f"note {sequence}", mine, ("edit",), ("look",))
    return found


def _one_writer(name: str, writes: Iterable[Record], key: str) -> list[str]:
    writers = Counter(record[key] for record in writes)
    return [f"{name}: version {version} was acknowledged {n} times" for version, n in writers.items() if n > 1]


def _stale_accepted(name: str, writes: Iterable[Record]) -> list[str]:
    return [
        f"{name}: a change of version {record['expected']} made version {record['version']}"
        for record in writes
        if "expected" in record and record["version"] != record["expected"] + 1
    ]


def _undone(name: str, writes: Iterable[Record], final: int) -> list[str]:
    newest = max((record["version"] for record in writes), default=0)
    return [f"{name} is at {final} in the end, after {newest}"] if final < newest else []


def _gone_back(name: str, records: Sequence[Record], writes, reads) -> list[str]:
    """Return the reads that are older than a write which had returned before they began."""
    found, newest = [], 0
    done = sorted(acknowledged(r for r in records if r["op"] in writes), key=lambda record: record["end"])
    place = 0
    for record in sorted(acknowledged(r for r in records if r["op"] in reads), key=lambda record: record["start"]):
        while place < len(done) and done[place]["end"] < record["start"]:
            newest = max(newest, done[place]["version"])
            place += 1
        if record["version"] < newest:
            found.append(f"{name}: version {record['version']} was read after {newest} had been acknowledged")
    return found


def check_sessions(history: History, truth: Truth) -> list[str]:
    """What was ended or has expired never answers again; what lives and was acknowledged does."""
    ended = {record["session"]: record["end"] for record in acknowledged(of(history, "session_end"))}
    maybe = {record["session"]: record["start"] for record in of(history, "session_end")}
    begun = {record["session"]: record for record in acknowledged(of(history, "session_start"))}
    expiry = {name: record["end"] + record["life"] for name, record in begun.items()}
    found = []
    for record in acknowledged(of(history, "session_get")):
        name = record["session"]
        over = min(ended.get(name, float("inf")), expiry.get(name, float("inf")))
        if record["found"] and record["start"] > over:
            found.append(f"session {name[-6:]} answered {record['start'] - over:.3f} s after its end")
        soonest = min(maybe.get(name, float("inf")), begun[name]["start"] + begun[name]["life"])
        if not record["found"] and record["end"] < soonest:
            found.append(f"session {name[-6:]} was lost")
    found += [f"session {name[-6:]} lives again in the end" for name in ended if name in truth.living]
    lost = [name for name, record in begun.items() if record["life"] > 600 and name not in {*maybe, *truth.living}]
    return found + [f"session {name[-6:]} was lost in the end" for name in lost]


def check_limits(history: History, limit: int, window: float) -> list[str]:
    """No more than the limit is certainly admitted within any window."""
    admitted = defaultdict(list)
    for record in acknowledged(of(history, "limit")):
        if record["allowed"] and not record["degraded"]:
            admitted[record["user"]].append((record["start"], record["end"]))
    found = []
    for user, spans in admitted.items():
        spans.sort()
        for number, (start, _) in enumerate(spans):
            within = sum(end <= start + window for _, end in spans[number : number + 20 * limit])
            if within > limit:
                found.append(f"{user}: {within} admitted within {window} s, of {limit}")
    return found


def check_counter(history: History, truth: Truth) -> list[str]:
    """What was counted was counted once, what is unclear at most once."""
    counts = of(history, "count")
    sure = sum(record["allowed"] and not record["degraded"] for record in acknowledged(counts))
    perhaps = sum(record["degraded"] for record in acknowledged(counts)) + len(unknown(counts))
    if sure <= truth.counter <= sure + perhaps:
        return []
    return [f"the counter is {truth.counter}, after {sure} sure and {perhaps} unclear calls"]


def check_tenants(history: History) -> list[str]:
    """Nothing of one tenant is found by another."""
    return [f"another tenant found a {r['what']}" for r in acknowledged(of(history, "foreign")) if r["found"]]


def check_ends(history: History, deadlines: Mapping[str, float]) -> list[str]:
    """Every call ended by its deadline, given in seconds by its kind, with an error of the library's if any.

    Not counted is what the process was kept from running meanwhile.
    """
    found = [f"{r['op']} ended in {r['error']}" for r in history if r.get("escaped")]
    for record in history:
        seconds = record["end"] - record["start"] - record.get("lag", 0.0)
        if record["error"] == "Hung" or seconds > deadlines[record["op"]]:
            found.append(f"{record['op']} took {seconds:.1f} s ({record['error']})")
    return found
