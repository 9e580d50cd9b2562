"""Tables, once for a terminal and once for a page of Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.table import Table

from benchmarks.figures import Spread


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table.

    Attributes:
        title: what it shows.
        headings: of the columns.
        texts: how many columns, from the left, are text; the others are figures.
        note: what a reader has to know of it.
        rows: the cells.
    """

    title: str
    headings: Sequence[str]
    texts: int = 1
    note: str = ""
    rows: list[Sequence[str]] = field(default_factory=list)

    def for_terminal(self) -> Table:
        """Return it as the terminal shows it."""
        table = Table(title=self.title, caption=self.note or None, box=box.SIMPLE_HEAD, title_justify="left")
        table.caption_justify = "left"
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if number < self.texts else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Return it as a section of a page."""
        marks = ("---" if number < self.texts else "---:" for number in range(len(self.headings)))
        lines = [self.headings, tuple(marks), *self.rows]
        table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
        return "\n\n".join(part for part in (f"## {self.title}", self.note, table) if part)


def figure(value: float) -> str:
    """Return a figure with three digits that count, or more before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def micro(seconds: float) -> str:
    """Return a time in microseconds."""
    return figure(seconds * 1e6)


def milli(seconds: float) -> str:
    """Return a time in milliseconds."""
    return figure(seconds * 1e3)


def ratio(spread: Spread) -> str:
    """Return a ratio with the middle half of its measurements."""
    return f"{figure(spread.median)} ({figure(spread.low)}-{figure(spread.high)})"
