"""What is measured: pieces of work, and who does each of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

Call = Callable[[], Awaitable[object]]

RAW = "raw driver"
NAIVE = "raw driver, moments without zone"
OURS = "convostore"
UNCACHED = "convostore without cache"

GET = "get by id"
EXISTS = "exists"
CREATE = "create conversation"
UPDATE = "guarded update"
APPEND_MANY = "append, many conversations"
APPEND_ONE = "append, one conversation"
NEWEST = "newest 50"
PAGE = "page of 20 with filter"
RATE = "rate check"
SESSION = "session read"
CACHE = "cache hit"
CELL = "newest 50, warm cell"
CELLS = "newest 50, warm cells in turn"
CHAT = "chat load"
IMPORT = "import"


@dataclass(frozen=True, slots=True)
class Contestant:
    """Somebody who does a piece of work.

    Attributes:
        name: who.
        call: does it once.
        settle: finishes what the calls have left for later; its time counts.
    """

    name: str
    call: Call
    settle: Call | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A piece of work.

    Attributes:
        name: what is done.
        contestants: who does it; the others are measured beside the first.
    """

    name: str
    contestants: tuple[Contestant, ...]

    def joined_by(self, name: str, calls: dict[str, Call]) -> "Case":
        """Return this case with one contestant more, if he does such work."""
        if self.name not in calls:
            return self
        return replace(self, contestants=(*self.contestants, Contestant(name, calls[self.name])))
