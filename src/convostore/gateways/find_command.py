"""The driver's find as one bare command: for an answer that fits into one batch, as nearly all do, a fifth cheaper."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError

from convostore.gateways.cancellation import finish

Sort = Sequence[tuple[str, int]]
Session = AsyncClientSession | None

_ONE_BATCH = 1_000_000  # the server's own first batch is 101; of a read cancelled during it the cursor is not known


class Find(NamedTuple):
    """What is asked for.

    Attributes:
        query: which documents.
        sort: in which order.
        skip: without the first so many.
        limit: at most so many; 0 for all.
        projection: only these fields of them; None for all.
    """

    query: Mapping[str, Any]
    sort: Sort = ()
    skip: int = 0
    limit: int = 0
    projection: Sequence[str] | None = None

    @property
    def batch_size(self) -> int:
        """One batch for all: as large as the limit, it would leave the cursor open, and cost a second trip."""
        return self.limit + 1 if self.limit else _ONE_BATCH

    def command(self, collection: str) -> dict[str, Any]:
        """Return the command, which the driver adds to."""
        command = {"find": collection, "filter": self.query, "batchSize": self.batch_size}
        if self.sort:
            command["sort"] = dict(self.sort)
        if self.skip:
            command["skip"] = self.skip
        if self.limit:
            command["limit"] = self.limit
        if self.projection:
            command["projection"] = dict.fromkeys(self.projection, 1)
        return command


class Finder:
    """Finds documents of a collection, under its options.

    The driver does not repeat a bare command; whoever calls this does.

    Args:
        collection: the driver's collection.
    """

    def __init__(self, collection: AsyncCollection[dict[str, Any]]) -> None:
        self._collection = collection
        self._database = collection.database
        concern = collection.read_concern.document
        self._concern = {"readConcern": concern} if concern else {}

    async def find(self, asked: Find, session: Session) -> list[dict[str, Any]]:
        """Return the documents.

        Args:
            asked: which.
            session: that of the current transaction, or None.
        """
        answer = await self._command(asked.command(self._collection.name), session)
        cursor = answer["cursor"]
        if cursor["id"]:
            # More than 16 MiB. Only the driver's cursor knows at which server to go on, so it begins anew.
            await finish(self._give_up(cursor["id"], session))
            return await self._by_cursor(asked, session)
        found: list[dict[str, Any]] = cursor["firstBatch"]
        return found

    async def _command(self, command: dict[str, Any], session: Session) -> dict[str, Any]:
        # A transaction brings both concern and preference along.
        if session is not None:
            return await self._database.command(command, session=session, codec_options=self._collection.codec_options)
        return await self._database.command(
            command | self._concern,
            read_preference=self._collection.read_preference,
            codec_options=self._collection.codec_options,
        )

    async def _give_up(self, cursor_id: int, session: Session) -> None:
        with suppress(PyMongoError):  # the server forgets it by itself, ten minutes later
            await self._database.command(
                {"killCursors": self._collection.name, "cursors": [cursor_id]}, session=session
            )

    async def _by_cursor(self, asked: Find, session: Session) -> list[dict[str, Any]]:
        cursor = self._collection.find(
            asked.query, asked.projection, skip=asked.skip, limit=asked.limit, session=session
        ).batch_size(asked.batch_size)
        try:
            return await (cursor.sort(asked.sort) if asked.sort else cursor).to_list()
        finally:
            if cursor.alive and cursor.cursor_id:  # a cancelled reader must not leave it open
                await finish(cursor.close())
