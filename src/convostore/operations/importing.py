"""Import: conversations of the chat format into the database, each exactly once.

A conversation is claimed first: a document without a tenant holds its place, so that nobody sees it or appends to it
while it is half there. Then its messages are stored, then the claim becomes the conversation. Whoever finds a claim of
the same content goes on with it, so an import that was killed is finished by the next run, and two at once do no harm:
every step may be repeated, and each place in the database can be taken only once.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from convostore.gateways.bulk_collection import fits_into_document
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.types import utc_now
from convostore.operations.chat_format import ChatLine, ReadConversation
from convostore.operations.claiming import Claiming, Entrant
from convostore.operations.common_line import CommonLine
from convostore.operations.line_source import Line, LineSource
from convostore.repositories.exceptions import ValidationError

CHUNK_MESSAGES = 3000
CHUNK_BYTES = 2 * 1024 * 1024
IN_FLIGHT = 2  # one on its way while the next is read; a third gains nothing
KEPT_PROBLEMS = 1000
_LINES_A_TURN = 8
_MAY_BE_TOO_LARGE = 1024 * 1024  # bytes of a line; what is below cannot grow to a document of 16 MB


class OnError(StrEnum):
    """What to do about a line that cannot be imported."""

    STOP = "stop"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was not imported.

    Attributes:
        line: its number, from 1.
        reason: why, without quoting it.
    """

    line: int
    reason: str


@dataclass(slots=True)
class ImportResult:
    """What an import has done.

    Attributes:
        imported: conversations that this run has finished.
        unchanged: conversations that were there with the same content.
        messages: messages that this run has stored.
        failed: lines that were not imported.
        problems: the first thousand of them.
        stopped: whether a problem ended the run early.
    """

    imported: int = 0
    unchanged: int = 0
    messages: int = 0
    failed: int = 0
    problems: list[Problem] = field(default_factory=list)
    stopped: bool = False


Progress = Callable[[ImportResult, LineSource], None]


@dataclass(slots=True)
class _Chunk:
    """Lines that are stored together."""

    entrants: dict[str, Entrant] = field(default_factory=dict)
    messages: int = 0
    size: int = 0

    def add(self, number: int, line: ChatLine | CommonLine, conversation: ReadConversation, size: int) -> None:
        self.entrants[conversation.conversation_id] = Entrant(number, line, conversation, size)
        self.messages += len(conversation.slots)
        self.size += size

    @property
    def is_full(self) -> bool:
        return self.messages + len(self.entrants) >= CHUNK_MESSAGES or self.size >= CHUNK_BYTES


class Importer:
    """Imports conversations for one tenant; use one for each run.

    Args:
        database: the tenant's handle.
        on_error: what to do about a line that cannot be imported. ``stop`` finishes what comes before the line, and
            perhaps some that come after it.
        progress: called after each portion with the result so far.
    """

    def __init__(
        self, database: TenantDatabase, on_error: OnError = OnError.STOP, progress: Progress | None = None
    ) -> None:
        self._claiming = Claiming(database)
        self._on_error = on_error
        self._progress = progress
        self._result = ImportResult()
        self._chunk = _Chunk()
        self._in_flight: deque[tuple[_Chunk, asyncio.Task[None]]] = deque()
        self._at = utc_now()

    async def run(self, source: LineSource) -> ImportResult:
        """Import all conversations of a source.

        Raises:
            OSError: the source cannot be read.
            RepositoryError: the database failed; what was imported stays, and the next run goes on from there.
        """
        await self._claiming.begin()
        try:
            while not self._result.stopped and (lines := await source.portion()):
                await self._take(lines)
                if self._progress:
                    self._progress(self._result, source)
            await self._send()
            await self._drain(0)
        finally:
            await self._give_up()
        if self._progress:
            self._progress(self._result, source)
        return self._result

    async def _take(self, lines: Iterable[Line]) -> None:
        for line in lines:
            if self._result.stopped:
                return
            try:
                await self._add(line)
            except ValidationError as error:
                self._report(Problem(line.number, str(error)))
            if not line.number % _LINES_A_TURN:
                await asyncio.sleep(0)  # what is in flight goes on meanwhile

    async def _add(self, line: Line) -> None:
        if line.problem is not None:
            raise ValidationError(line.problem, "line")
        chat_line = CommonLine.parse(line.text) or ChatLine.parse(line.text)
        conversation = chat_line.read(self._at)
        _check_size(conversation, len(line.text))
        identity = conversation.conversation_id
        if identity in self._chunk.entrants:
            await self._send()
        if any(identity in chunk.entrants for chunk, _ in self._in_flight):
            await self._drain(0)  # the second of two lines of one conversation must find the first
        self._chunk.add(line.number, chat_line, conversation, len(line.text))
        if self._chunk.is_full:
            await self._send()

    async def _send(self) -> None:
        if self._chunk.entrants:
            await self._drain(IN_FLIGHT - 1)
            chunk, self._chunk = self._chunk, _Chunk()
            self._in_flight.append((chunk, asyncio.create_task(self._store(chunk))))

    async def _drain(self, most: int) -> None:
        while len(self._in_flight) > most:
            task = self._in_flight[0][1]
            await asyncio.wait([task])  # awaited itself, it would take a cancellation of this task upon itself
            task.result()
            self._in_flight.popleft()

    async def _give_up(self) -> None:
        tasks = [task for _, task in self._in_flight]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _store(self, chunk: _Chunk) -> None:
        outcome = await self._claiming.store(chunk.entrants)
        self._result.imported += outcome.imported
        self._result.unchanged += outcome.unchanged
        self._result.messages += outcome.messages
        for number, reason in outcome.problems:
            self._report(Problem(number, reason))

    def _report(self, problem: Problem) -> None:
        self._result.failed += 1
        if len(self._result.problems) < KEPT_PROBLEMS:
            self._result.problems.append(problem)
            self._result.problems.sort(key=lambda kept: kept.line)
        self._result.stopped = self._on_error is OnError.STOP


def _check_size(conversation: ReadConversation, size: int) -> None:
    if size < _MAY_BE_TOO_LARGE:
        return
    if not fits_into_document(conversation.stored()):
        raise ValidationError("metadata: larger than the database allows", "metadata")
    for index, slot in enumerate(conversation.slots):
        if not fits_into_document(slot):
            raise ValidationError(f"messages[{index}]: larger than the database allows", "messages")
