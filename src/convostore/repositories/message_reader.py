"""Reading the message log: pages, windows and searches of what is to be seen of it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from convostore.gateways.tenant_collection import Stored
from convostore.gateways.tenant_database import TenantDatabase
from convostore.models.identity import check_identifier
from convostore.models.mongo.message_model import MessageDocument
from convostore.repositories.base_repository import PaginatedResult, Pagination
from convostore.repositories.exceptions import ValidationError
from convostore.repositories.filters import MessageFilter, SearchWords, containing
from convostore.repositories.keyset import Keyset, KeysetPage, next_page
from convostore.repositories.log_reader import LogReader
from convostore.repositories.newest_slots import KEPT
from convostore.repositories.slots import KIND
from convostore.repositories.window import Budget, without_cut_calls

MAX_PAGE = 1000
CHUNK = 200
_MESSAGES: Mapping[str, Any] = {KIND: None}
_NOT_DELETED: Mapping[str, Any] = {KIND: None, "deleted_at": None}


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """A run of messages in the order of their sequence.

    Attributes:
        items: the messages, the oldest first.
        has_earlier: whether there may be messages before them.
        has_later: whether there may be messages behind them.
    """

    items: list[MessageDocument]
    has_earlier: bool
    has_later: bool


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a conversation is asked for.

    Attributes:
        after: only messages with a greater sequence; read from there on.
        before: only messages with a smaller sequence; read back from there.
        limit: at most so many messages, 1 to 1,000.
        include_deleted: also show the places of deleted messages.
    """

    after: int | None = None
    before: int | None = None
    limit: int = 50
    include_deleted: bool = False

    def __post_init__(self) -> None:
        for name, least in (("after", 0), ("before", 1)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value < 10**10):
                raise ValidationError(f"{name}: must be a sequence number >= {least}", name)
        if type(self.limit) is not int or not 1 <= self.limit <= MAX_PAGE:
            raise ValidationError(f"limit: must be between 1 and {MAX_PAGE}", "limit")

    @property
    def forward(self) -> bool:
        """Whether to read towards the end."""
        return self.after is not None

    @property
    def is_newest(self) -> bool:
        """Whether it is the end of the conversation."""
        return self.after is None and self.before is None

    @property
    def condition(self) -> Mapping[str, Any]:
        """What the slots must be."""
        return _MESSAGES if self.include_deleted else _NOT_DELETED


class MessageReader:
    """Reads the logs of one tenant's conversations.

    Args:
        database: the tenant's handle.
    """

    def __init__(self, database: TenantDatabase) -> None:
        self._tenant_id = database.tenant_id
        self._database = database
        self._slots = database.collection("messages", MessageDocument.entity_type)
        self._log = LogReader(database)

    async def history(self, conversation_id: str, span: Span, *, fresh: bool = False) -> HistoryPage:
        """Return the messages of a span, the newest through the cache if there is one, unless they are to be fresh."""
        conversation_id = check_identifier(conversation_id, "conversation_id")
        page = None if fresh or not span.is_newest else await self._cached(conversation_id, span)
        return await self._page(conversation_id, span) if page is None else page

    async def _page(self, conversation_id: str, span: Span) -> HistoryPage:
        found, more = await self._run(conversation_id, span)
        messages = MessageDocument.from_dicts(found)
        if span.forward:
            return HistoryPage(messages, has_earlier=bool(span.after), has_later=more)
        messages.reverse()
        return HistoryPage(messages, has_earlier=more, has_later=span.before is not None)

    async def _cached(self, conversation_id: str, span: Span, *, short: bool = False) -> HistoryPage | None:
        """Return the newest messages through the cache, or None if the log is to be asked.

        Args:
            conversation_id: which conversation.
            span: how many of them.
            short: rather than none, fewer than the log would tell.
        """
        cache = self._database.newest
        if cache is None or (span.limit > KEPT and not short):
            return None
        load = partial(self._log.newest_slots, conversation_id)
        slots = await cache.get(self._tenant_id, conversation_id, load)
        run = slots and slots.page(span.limit, cache.unpack, include_deleted=span.include_deleted, short=short)
        return HistoryPage(run.messages, has_earlier=run.more, has_later=False) if run else None

    async def _run(self, conversation_id: str, span: Span) -> tuple[list[Stored], bool]:
        """Return what is to be seen, in the direction of reading, and whether there may be more."""
        after, before = span.after, span.before
        while True:
            found = await self._log.read(
                conversation_id,
                after,
                before,
                limit=span.limit + 1,
                descending=not span.forward,
                condition=span.condition,
            )
            more = len(found) > span.limit
            visible = await self._log.visible(found[: span.limit])
            if visible or not more:
                return visible, more
            # Nothing but remains of batches cut short: go on behind them.
            last = int(found[span.limit - 1]["sequence"])
            after, before = (last, before) if span.forward else (after, last)

    async def iterate(self, conversation_id: str, after: int = 0) -> AsyncIterator[MessageDocument]:
        """Iterate over the messages behind a sequence, in order, to the present end."""
        if after is None:
            raise ValidationError("after: must be a sequence number >= 0", "after")
        more = True
        while more:
            page = await self.history(conversation_id, Span(after=after, limit=CHUNK))
            for message in page.items:
                yield message
            more = page.has_later
            after = page.items[-1].sequence if page.items else after

    async def page(self, conversation_id: str, pagination: Pagination) -> PaginatedResult[MessageDocument]:
        """Return a page of a whole conversation: a range of sequences, at the same cost anywhere."""
        total = await self._log.highest(conversation_id)
        size, offset = pagination.page_size, pagination.offset
        descending = pagination.sort_order == "desc"
        after = max(0, total - offset - size) if descending else offset
        before = total - offset + 1 if descending else offset + size + 1
        found: list[Stored] = []
        if offset < total:
            found = await self._log.read(conversation_id, after, before, condition=_NOT_DELETED, descending=descending)
        return await self._result(found, total, pagination)

    async def _result(
        self, found: list[Stored], total: int, pagination: Pagination
    ) -> PaginatedResult[MessageDocument]:
        messages = MessageDocument.from_dicts(await self._log.visible(found))
        return PaginatedResult(
            items=messages,
            total=total,
            page=pagination.page,
            page_size=pagination.page_size,
            has_next=pagination.offset + pagination.page_size < total,
            has_previous=pagination.page > 1,
        )

    def query(self, parsed: MessageFilter) -> dict[str, Any]:
        """Return the query for the messages of a conversation that match."""
        return {**self._slots.within((parsed.conversation_id,)), **_NOT_DELETED, **parsed.query()}

    async def window(self, conversation_id: str, budget: Budget, *, fresh: bool = False) -> list[MessageDocument]:
        """Return the newest messages that fit a budget, the oldest first."""
        span = Span(limit=min(budget.max_messages or CHUNK, CHUNK))
        conversation_id = check_identifier(conversation_id, "conversation_id")
        page = None if fresh else await self._cached(conversation_id, span, short=True)
        page = page or await self._page(conversation_id, span)
        newest_first = page.items[::-1]
        while page.has_earlier and budget.fitting(newest_first) == len(newest_first) != budget.max_messages:
            page = await self._page(conversation_id, replace(span, before=newest_first[-1].sequence))
            newest_first.extend(reversed(page.items))
        return without_cut_calls(newest_first[: budget.fitting(newest_first)])

    async def search(
        self, text: str, conversation_id: str | None, limit: int, cursor: str | None
    ) -> KeysetPage[MessageDocument]:
        """Return the messages that contain every word of a text, the newest of each conversation first."""
        prefix = () if conversation_id is None else (check_identifier(conversation_id, "conversation_id"),)
        words = SearchWords(text=text).text
        keyset = Keyset("_id", -1, "\n".join((self._tenant_id, "messages", *prefix, words)))
        query = {"$and": [{**self._slots.within(prefix), **_NOT_DELETED, **containing(words)}]}
        if cursor is not None:
            query["$and"].append(keyset.condition_after(cursor))
        found = await self._slots.find(query, keyset.sort, limit=Span(limit=limit).limit + 1)
        page, following = next_page(keyset, found, limit)
        visible = await self._log.visible(page)
        return KeysetPage(MessageDocument.from_dicts(visible), following)
