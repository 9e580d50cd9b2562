"""Everything that one run has found."""

from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.importing import Imports
from benchmarks.measuring import Result
from benchmarks.memory import Weight
from benchmarks.newest_cells import ChatPhase
from benchmarks.open_loop import Load, Tally
from benchmarks.overload import Overload
from convostore.operations.redis_stats import KeyStats


class Opened(NamedTuple):
    """What became of the calls of a contestant under a load.

    Attributes:
        case, contestant: what was measured.
        load: what arrived in each turn.
        tally: what became of it, all turns together.
    """

    case: str
    contestant: str
    load: Load
    tally: Tally


@dataclass(slots=True)
class Findings:
    """What one run has found; what was left out is empty.

    Attributes:
        facts: about the machine, by their names.
        closed: the closed loops.
        opened: the open loops.
        overloads: twice as much as can be served, and what follows.
        lengths: the same work at the end of longer and longer conversations.
        tenants: the same work where more and more tenants share the database.
        weights: memory of processes.
        imports: the import.
        keys: room that keys in Redis take.
        chat: the chat load.
    """

    facts: dict[str, str] = field(default_factory=dict)
    closed: list[Result] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)
    overloads: list[Overload] = field(default_factory=list)
    lengths: list[Result] = field(default_factory=list)
    tenants: list[Result] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    imports: Imports | None = None
    keys: list[KeyStats] = field(default_factory=list)
    chat: list[ChatPhase] = field(default_factory=list)
