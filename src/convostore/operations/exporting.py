"""Export: all conversations of a tenant, or of one of his users, in the chat format, in the order of their identity.

Memory holds a few conversations at a time. What is changed meanwhile may or may not be in it; each conversation is
as it was at some moment of the export, and one that is deleted meanwhile is left out.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.identity import check_identifier, escape
from convostore.models.mongo.conversation_model import ConversationDocument
from convostore.operations.chat_format import write_line
from convostore.operations.chat_message import Stored
from convostore.operations.output import Output
from convostore.repositories.log_reader import LogReader
from convostore.repositories.slots import BLANK, SEAL, Slot
from convostore.repositories.user_sessions import UserSessions

AHEAD = 8
_PAGE = 200
_RANGE = 1000


@dataclass(slots=True)
class ExportResult:
    """What an export has written.

    Attributes:
        conversations: how many.
        messages: how many, places without a message included.
        bytes: before compression.
    """

    conversations: int = 0
    messages: int = 0
    bytes: int = 0


Progress = Callable[[ExportResult], None]


class Exporter:
    """Exports the conversations of one tenant.

    Args:
        database: the tenant's handle.
        progress: called after each conversation with the result so far.
        user_id: only those of this user.

    Raises:
        ValidationError: it cannot be a user.
    """

    def __init__(
        self, database: TenantDatabase, progress: Progress | None = None, *, user_id: str | None = None
    ) -> None:
        self._tenant_id = database.tenant_id
        self._wanted = None if user_id is None else _of_user(database.tenant_id, user_id)
        self._conversations = database.collection("conversations", ConversationDocument.entity_type)
        self._log = LogReader(database)
        self._progress = progress

    async def run(self, output: Output) -> ExportResult:
        """Write all conversations, a line each.

        Raises:
            OSError: the output cannot be written.
            RepositoryError: the database failed, or holds what convostore has not written.
        """
        result = ExportResult()
        ahead: deque[asyncio.Task[tuple[bytes, int] | None]] = deque()
        try:
            async for stored in self._all():
                ahead.append(asyncio.create_task(self._line(stored)))
                if len(ahead) == AHEAD:
                    self._write(await ahead.popleft(), output, result)
            while ahead:
                self._write(await ahead.popleft(), output, result)
        finally:
            for task in ahead:
                task.cancel()
            await asyncio.gather(*ahead, return_exceptions=True)
        return result

    def _write(self, line: tuple[bytes, int] | None, output: Output, result: ExportResult) -> None:
        if line is None:
            return
        text, messages = line
        output.write(text + b"\n")
        result.conversations += 1
        result.messages += messages
        result.bytes += len(text) + 1
        if self._progress:
            self._progress(result)

    async def _all(self) -> AsyncIterator[Stored]:
        after: str | None = None
        while found := await self._conversations.find_range((), after, limit=_PAGE, condition=self._wanted):
            for stored in found:
                if stored.get("tenant_id") == self._tenant_id:  # not a tombstone, nor a place held by an import
                    yield stored
            after = found[-1]["_id"].removeprefix(escape(self._tenant_id) + ":")

    async def _line(self, stored: Stored) -> tuple[bytes, int] | None:
        slots = await self._slots(stored["conversation_id"])
        return None if slots is None else (write_line(stored, slots), len(slots))

    async def _slots(self, conversation_id: str) -> list[Stored | None] | None:
        """Return the messages with None for the places of those not to be seen; None if all was deleted meanwhile."""
        slots: list[Stored | None] = []
        found: list[Stored] = []
        while not slots or len(found) == _RANGE:
            found = await self._log.read(conversation_id, len(slots) if slots else None, limit=_RANGE)
            if any(Slot(stored).kind in (SEAL, BLANK) for stored in found):
                return None
            if not found:
                break
            slots += await self._visible(found)
        while slots and slots[-1] is None:
            slots.pop()
        return slots

    async def _visible(self, found: list[Stored]) -> list[Stored | None]:
        visible = {stored["sequence"] for stored in await self._log.visible(found) if not Slot(stored).kind}
        return [stored if stored["sequence"] in visible else None for stored in found]


def _of_user(tenant_id: str, user_id: str) -> Stored:
    # With the tenant's name the index of users serves it.
    return {"tenant_id": tenant_id, "user_id": {"$eq": check_identifier(user_id, "user_id")}}


async def export_sessions(sessions: UserSessions, tenant_id: str, user_id: str, output: Output) -> int:
    """Write what is kept of the sessions of a user that live, a line of JSON each, without their ids; return how many.

    Raises:
        OSError: the output cannot be written.
        RepositoryError: Redis failed.
        ValidationError: no session key is known, or one of the names cannot be right.
    """
    found = await sessions.get_user_sessions(tenant_id, user_id)
    for session in found:
        output.write(session.model_dump_json(exclude={"session_id", "extended_seconds"}).encode() + b"\n")
    return len(found)
