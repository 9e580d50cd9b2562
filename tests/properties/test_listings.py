"""Properties of pages and filters on a real server."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pymongo.monitoring import CommandListener, CommandStartedEvent
from strategies import Bench, bench, garbage, plain_dicts, refusal

from convostore import (
    ChannelType,
    ConversationDocument,
    ConversationStatus,
    MessageDocument,
    Pagination,
)
from convostore.database.local_servers import ServerAddresses
from convostore.repositories.conversation_repository import ConversationRepository
from convostore.repositories.filters import ConversationFilter, MessageFilter

START = datetime(2026, 1, 1, tzinfo=UTC)
moments = st.integers(-2, 2).map(lambda hours: START + timedelta(hours=hours))


class Finds(CommandListener):
    """Keeps what is asked of the server."""

    def __init__(self) -> None:
        self.filters: list[Any] = []

    def started(self, event: CommandStartedEvent) -> None:
        """Keep the filter of a command."""
        if event.command_name == "find":
            self.filters.append(event.command["filter"])
        elif event.command_name == "aggregate" and "$match" in event.command["pipeline"][0]:
            self.filters.append(event.command["pipeline"][0]["$match"])

    def succeeded(self, event: Any) -> None:
        """Take no note of an answer."""

    def failed(self, event: Any) -> None:
        """Take no note of a failure."""


FINDS = Finds()


@pytest.fixture(scope="module")
def place(convostore_servers: ServerAddresses) -> Iterator[Bench]:
    """A store for all examples of this module."""
    with bench(convostore_servers, FINDS) as opened:
        yield opened


@st.composite
def conversations(draw: st.DrawFn) -> list[ConversationDocument]:
    titles = st.one_of(st.none(), st.sampled_from(["", "a", "A", "b", "é", "a\0", "\U0001f600"]))
    kinds = st.tuples(
        moments, titles, st.one_of(st.none(), moments), st.integers(0, 2), st.sampled_from(["u", "v"]), st.booleans()
    )
    return [
        ConversationDocument.start(
            user,
            ChannelType.WEB if web else ChannelType.SMS,
            conversation_id=f"c{number}",
            created_at=created,
            started_at=created,
            title=title,
            completed_at=completed,
            message_count=count,
            tags=[user],
        )
        for number, (created, title, completed, count, user, web) in enumerate(draw(st.lists(kinds, max_size=14)))
    ]


FILTERS: list[dict[str, Any]] = [
    {},
    {"user_id": "u"},
    {"channel": "web", "user_id": "v"},
    {"tags": "u"},
    {"assignee": None},
    {"start_date": START},
    {"end_date": START, "start_date": START - timedelta(hours=1)},
    {"status": ConversationStatus.ACTIVE},
]


def _matches(item: ConversationDocument, filters: dict[str, Any]) -> bool:
    return (
        filters.get("user_id", item.user_id) == item.user_id
        and filters.get("channel", item.channel) == item.channel
        and filters.get("tags", item.user_id) == item.user_id
        and filters.get("start_date", item.started_at) <= item.started_at <= filters.get("end_date", item.started_at)
    )


def _rank(item: ConversationDocument, field: str) -> tuple[Any, ...]:
    value = getattr(item, field)
    encoded = value.encode() if isinstance(value, str) else value
    return (value is not None, encoded if value is not None else 0, item.conversation_id)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
@given(
    conversations(),
    st.sampled_from(FILTERS),
    st.sampled_from(ConversationRepository.sortable_fields),
    st.sampled_from(["asc", "desc"]),
    st.integers(1, 6),
)
def test_pages_of_both_kinds_are_the_sorted_whole_without_overlap(
    place: Bench,
    stored: list[ConversationDocument],
    filters: dict[str, Any],
    field: str,
    order: Any,
    size: int,
) -> None:
    tenant = place.store.tenant(place.tenant_id())
    matching = [item for item in stored if _matches(item, filters)]
    matching.sort(key=lambda item: item.conversation_id)
    whole = sorted(matching, key=lambda item: _rank(item, field), reverse=order == "desc")

    async def listed() -> tuple[list[str], list[str]]:
        place_of = tenant.database.collection("conversations", "Conversation")
        for item in stored:  # with a past, which no conversation has that is created
            await place_of.insert((item.conversation_id,), item.to_dict())
        chosen = Pagination(page_size=size, sort_by=field, sort_order=order)
        by_cursor = [item.conversation_id async for item in tenant.conversations.iterate_all(filters, chosen)]
        by_number: list[str] = []
        for number in range(1, len(whole) // size + 2):
            page = await tenant.conversations.list(filters, Pagination(number, size, field, order))
            assert (page.total, page.has_next) == (len(whole), number * size < len(whole))
            by_number += [item.conversation_id for item in page.items]
        assert await tenant.conversations.count(filters) == len(whole)
        return by_cursor, by_number

    by_cursor, by_number = place.run(listed())
    assert by_cursor == by_number == [item.conversation_id for item in whole]


OPERATORS = {
    "$eq",
    "$gte",
    "$lte",
    "$gt",
    "$lt",
    "$ne",
    "$or",
    "$and",
    "$text",
    "$search",
    "$regex",
    "$options",
    "$exists",
}
FROM_THE_CALLER = {"$eq", "$gte", "$lte", "$search", "$regex"}


def _check_query(query: Any) -> None:
    """Make sure that operators stand where the library puts them, and only scalars where a caller's value goes."""
    if isinstance(query, list):
        for part in query:
            _check_query(part)
    elif isinstance(query, dict):
        for key, value in query.items():
            assert not key.startswith("$") or key in OPERATORS, key
            if key in FROM_THE_CALLER:
                assert value is None or type(value) in (str, datetime), (key, value)
            else:
                _check_query(value)


@settings(max_examples=600)
@given(st.sampled_from([*ConversationFilter.model_fields, "metadata.a", "$where", "$or", "_id"]), garbage)
@example("status", {"$ne": None})
@example("search", "$where")
@example("user_id", "$ne")
@example("tags", "\ud800")
def test_a_filter_value_is_refused_or_reaches_the_server_as_a_scalar(place: Bench, name: str, value: Any) -> None:
    tenant = place.store.tenant("tenant")
    FINDS.filters.clear()
    error = refusal(lambda: place.run(tenant.conversations.list({name: value})))
    assert (error is None) == bool(FINDS.filters)
    assert error is None or error.field == name
    for query in FINDS.filters:
        assert query["tenant_id"] == "tenant"
        _check_query(query)


@settings(max_examples=400)
@given(st.sampled_from([*MessageFilter.model_fields, "content", "$or", "sequence"]), garbage)
@example("search", ".*")
def test_a_message_filter_value_is_refused_or_reaches_the_server_as_a_scalar(
    place: Bench, name: str, value: Any
) -> None:
    tenant = place.store.tenant("tenant")
    FINDS.filters.clear()
    error = refusal(lambda: place.run(tenant.messages.page({"conversation_id": "c", name: value})))
    assert (error is None) == bool(FINDS.filters)
    assert error is None or error.field == name
    for query in FINDS.filters:
        _check_query(query)


def test_the_check_of_queries_finds_an_operator_of_the_caller() -> None:
    for query in ({"status": {"$eq": {"$ne": None}}}, {"status": {"$in": ["a"]}}, {"$where": "1"}):
        with pytest.raises(AssertionError):
            _check_query(query)


@settings(max_examples=150)
@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=50), st.one_of(st.none(), plain_dicts), plain_dicts)
def test_documents_come_back_from_the_server_as_they_were(
    place: Bench, content: str, payload: dict[str, Any] | None, metadata: dict[str, Any]
) -> None:
    tenant = place.store.tenant("tenant")

    async def stored() -> None:
        conversation = await tenant.conversations.create(
            ConversationDocument.start("u", metadata=metadata, title=content[:500])
        )
        assert await tenant.conversations.get_by_id(conversation.conversation_id) == conversation
        message = await tenant.messages.append(
            conversation.conversation_id, MessageDocument.user(content, payload=payload)
        )
        assert await tenant.messages.get_by_id(message.id) == message
        edited = await tenant.messages.edit(conversation.conversation_id, 1, payload=metadata)
        assert await tenant.messages.get(conversation.conversation_id, 1) == edited
        assert edited.payload == metadata

    place.run(stored())
