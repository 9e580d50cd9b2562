"""What calls of several processes have begun, ended and seen, each noted as it ends, and which reads were too old.

Moments are nanoseconds of CLOCK_MONOTONIC, which all processes of a machine have in common. A read is too old if it saw
less than what was acknowledged before it began.
"""

import struct
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

_RECORD = struct.Struct("<7q")


class Kind(IntEnum):
    """What a call was."""

    READ = 0
    """It saw ``version`` and ``count``."""
    WRITTEN = 1
    """It has written ``version``."""
    APPENDED = 2
    """It has made the count at least ``count``, and its own process is to see it."""
    ACTIVE = 3
    """Everybody is to see this count."""
    ELSEWHERE = 4
    """Another program has written ``version``, and told nobody."""


class Call(NamedTuple):
    """One call; without a version or a count these are 0."""

    kind: int
    process: int
    entity: int
    start: int
    end: int
    version: int
    count: int


class CallLog:
    """Writes down the calls of a process.

    Args:
        file: of this process alone; what a process of the same number that was killed has left there stays.
        process: its number.
        lasting: whether a call is in the file once it is noted, also if the process is killed then.
    """

    def __init__(self, file: Path, process: int, *, lasting: bool = False) -> None:
        self._process = process
        self._file = file.open("ab", buffering=0 if lasting else 1 << 16)

    def note(self, kind: Kind, entity: int, start: int, version: int = 0, count: int = 0) -> None:
        """Note a call that has just ended."""
        self._file.write(_RECORD.pack(kind, self._process, entity, start, time.monotonic_ns(), version, count))

    def close(self) -> None:
        """Write what is not in the file yet."""
        self._file.close()


def noted(files: Iterable[Path]) -> Iterator[Call]:
    """Return what was noted."""
    for file in files:
        yield from map(Call._make, _RECORD.iter_unpack(file.read_bytes()))


class Acknowledged:
    """The highest number that was acknowledged before a moment."""

    def __init__(self, calls: Iterable[Call], number: Callable[[Call], int]) -> None:
        ordered = sorted(calls, key=attrgetter("end"))
        self._ends = [call.end for call in ordered]
        self._highest = list(accumulate(map(number, ordered), max))

    def before(self, moment: float) -> int:
        """Return it, or 0 for none."""
        place = bisect_left(self._ends, moment)
        return self._highest[place - 1] if place else 0

    def age(self, number: int, moment: int) -> int:
        """Return for how long a higher one had been acknowledged at a moment, in nanoseconds; 0 if none had."""
        place = bisect_right(self._highest, number)
        return max(0, moment - self._ends[place]) if place < len(self._ends) else 0


@dataclass
class Verdict:
    """What the log says.

    Attributes:
        reads: how many there were.
        old: how many saw a version older than one that had been acknowledged when they began.
        behind: the same for counts.
        oldest: for how long, in seconds, the worst of them had been outdated.
        elsewhere: for how many seconds what another program had written was not seen, of each read that did not see it.
    """

    reads: int = 0
    old: int = 0
    behind: int = 0
    oldest: float = 0.0
    elsewhere: list[float] = field(default_factory=list)

    def elsewhere_at(self, part: float) -> float:
        """Return a quantile of the seconds for which another program's write was not seen; 0 if all saw it at once."""
        return sorted(self.elsewhere)[int(part * (len(self.elsewhere) - 1))] if self.elsewhere else 0.0


def judged(calls: Iterable[Call], lag: float = 0.0) -> Verdict:
    """Return which reads were too old.

    Args:
        calls: of all processes.
        lag: seconds that a read may be behind the writes of other processes.
    """
    verdict, kinds = Verdict(), defaultdict(list)
    for call in calls:
        kinds[call.kind].append(call)
    versions, counts, elsewhere = attrgetter("version"), attrgetter("count"), kinds[Kind.ELSEWHERE]
    written = _by(kinds[Kind.WRITTEN], versions, attrgetter("entity"))
    own_written = _by(kinds[Kind.WRITTEN], versions, attrgetter("entity", "process"))
    active = _by(kinds[Kind.ACTIVE], counts, attrgetter("entity"))
    own_active = _by(kinds[Kind.APPENDED], counts, attrgetter("entity", "process"))
    others = _by(elsewhere, versions, attrgetter("entity"))
    for read in kinds[Kind.READ]:
        own, late = (read.entity, read.process), read.start - lag * 1e9
        version = max(written[read.entity].before(late), own_written[own].before(read.start))
        count = max(active[read.entity].before(late), own_active[own].before(read.start))
        verdict.reads += 1
        verdict.old += read.version < version
        verdict.behind += read.count < count
        if read.version < version:
            verdict.oldest = max(verdict.oldest, written[read.entity].age(read.version, read.start) / 1e9)
        if unseen := others[read.entity].age(read.version, read.start):
            verdict.elsewhere.append(unseen / 1e9)
    return verdict


def _by(
    calls: Iterable[Call], number: Callable[[Call], int], place: Callable[[Call], object]
) -> dict[object, Acknowledged]:
    places: dict[object, list[Call]] = defaultdict(list)
    for call in calls:
        places[place(call)].append(call)
    found = {each: Acknowledged(some, number) for each, some in places.items()}
    return defaultdict(lambda: Acknowledged((), number), found)
