"""Drawing conversations on a terminal; what others have written is shown, never obeyed."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.align import Align
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
from rich.table import Table
from rich.text import Text

from convostore.models.mongo.conversation_model import ConversationDocument
from convostore.models.mongo.message_model import MessageDocument
from convostore.models.types import MessageRole

_COLOURS = {MessageRole.USER: "cyan", MessageRole.ASSISTANT: "green", MessageRole.TOOL: "magenta"}
_SHARE_OF_WIDTH = 0.75
_CONTROL_PICTURES = 0x2400
# Control characters, changes of direction, line separators, lone surrogates.
_OBEYED = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
_OBEYED_IN_LINES = re.compile(_OBEYED.pattern.replace("\\x00-\\x1f", "\\x00-\\x09\\x0b-\\x1f"))


def safe(text: str, *, lines: bool = False) -> str:
    """Return a text in which nothing is left that a terminal would obey.

    Args:
        text: what somebody else has written.
        lines: keep line breaks.
    """
    return (_OBEYED_IN_LINES if lines else _OBEYED).sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < ord(" "):
        return chr(_CONTROL_PICTURES + code)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004 - one byte


def cell(text: object, style: str = "") -> Text:
    """Return a text for a table, on one line."""
    return Text(safe(str(text)), style=style)


def table(title: str, *columns: str) -> Table:
    """Return an empty table."""
    drawn = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    return drawn


def conversation_head(conversation: ConversationDocument) -> RenderableType:
    """Return who, where and what of a conversation."""
    head = Text(safe(conversation.title or conversation.conversation_id), style="bold")
    facts = [
        conversation.conversation_id,
        f"user {conversation.user_id}",
        str(conversation.channel),
        str(conversation.status),
        f"{conversation.message_count} messages",
        f"version {conversation.version}",
    ]
    return Group(head, Text(safe(" · ".join(facts)), style="dim"))


def chat(messages: Sequence[MessageDocument], width: int) -> Group:
    """Return messages as a chat: people on the left, the assistant on the right."""
    return Group(*(_bubble(message, width) for message in messages))


def _bubble(message: MessageDocument, width: int) -> RenderableType:
    colour = _COLOURS.get(message.role, "yellow")
    side = "right" if message.role is MessageRole.ASSISTANT else "left"
    panel = Panel(
        _said(message),
        title=Text(f"{message.sequence} {message.role}", style=colour),
        title_align="left",
        border_style=colour,
        width=min(max(30, int(width * _SHARE_OF_WIDTH)), width),
    )
    return Align(panel, side)  # type: ignore[arg-type]


def _said(message: MessageDocument) -> Text:
    text = Text(safe(message.content, lines=True))
    for name in message.payload or {}:
        if name != "content":
            text.append(("\n" if text else "") + f"+ {safe(name)}", style="dim")
    return text


def standard_output() -> Console:
    """Return the console for results."""
    return Console(highlight=False, markup=False, emoji=False)


def standard_error() -> Console:
    """Return the console for what goes on meanwhile."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Return a progress bar on standard error, unseen unless that is a terminal."""
    console = standard_error()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def counting_bar(text: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar that counts, for the time of a ``with``; what it gives is told of how many more are done."""
    with progress_bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as bar:
        task = bar.add_task(text, total=total)
        yield lambda done: bar.advance(task, done)
