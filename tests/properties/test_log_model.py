"""A conversation's log against a list in memory: whatever is done, both tell the same."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Bench, bench

from convostore import ConversationDocument, MessageDocument, Pagination, TenantStore
from convostore.database.local_servers import ServerAddresses

CONVERSATION = "c"


@pytest.fixture(scope="module")
def place(convostore_servers: ServerAddresses) -> Iterator[Bench]:
    """A store for all examples of this module."""
    with bench(convostore_servers) as opened:
        yield opened


sequences = st.integers(1, 40)
operations = st.one_of(
    st.tuples(st.just("append"), st.sampled_from([None, "k1", "k2"])),
    st.tuples(st.just("append_many"), st.integers(1, 6)),
    st.tuples(st.just("edit"), sequences),
    st.tuples(st.just("delete"), sequences),
    st.tuples(
        st.just("history"), st.tuples(st.one_of(st.none(), sequences), st.one_of(st.none(), sequences), sequences)
    ),
    st.tuples(st.just("page"), st.tuples(st.integers(1, 5), st.integers(1, 9), st.sampled_from(["asc", "desc"]))),
    st.tuples(st.just("window"), st.integers(1, 40)),
    st.tuples(st.just("count"), st.none()),
    st.tuples(st.just("forget"), st.none()),
)


class Model:
    """A conversation as a list of texts, None where one was deleted."""

    def __init__(self, tenant: TenantStore) -> None:
        self.tenant = tenant
        self.texts: list[str | None] = []
        self.keys: dict[str, int] = {}
        self.number = 0

    def _new(self) -> str:
        self.number += 1
        return f"text {self.number}"

    def visible(self) -> list[tuple[int, str]]:
        """Return what is to be seen."""
        return [(sequence, text) for sequence, text in enumerate(self.texts, start=1) if text is not None]

    async def append(self, key: str | None) -> None:
        """Append a message, perhaps under a key that was used before."""
        text = f"text of {key}" if key else self._new()
        stored = await self.tenant.messages.append(CONVERSATION, MessageDocument.user(text), idempotency_key=key)
        if key in self.keys:
            assert (stored.sequence, stored.replayed) == (self.keys[key], True)
            return
        self.texts.append(text)
        assert (stored.sequence, stored.replayed) == (len(self.texts), False)
        if key:
            self.keys[key] = stored.sequence

    async def append_many(self, count: int) -> None:
        """Append several messages as one."""
        texts = [self._new() for _ in range(count)]
        stored = await self.tenant.messages.append_many(CONVERSATION, [MessageDocument.user(text) for text in texts])
        first = len(self.texts) + 1
        self.texts += texts
        assert [message.sequence for message in stored] == list(range(first, first + count))

    async def edit(self, sequence: int) -> None:
        """Change a message that may be there."""
        if dict(self.visible()).get(sequence) is None:
            assert await self.tenant.messages.get(CONVERSATION, sequence) is None
            return
        text = self._new()
        await self.tenant.messages.edit(CONVERSATION, sequence, content=text)
        self.texts[sequence - 1] = text

    async def delete(self, sequence: int) -> None:
        """Delete a message that may be there."""
        there = sequence in dict(self.visible())
        assert await self.tenant.messages.delete(MessageDocument.identify(CONVERSATION, sequence)) == there
        if there:
            self.texts[sequence - 1] = None

    async def history(self, span: tuple[int | None, int | None, int]) -> None:
        """Read a run of messages."""
        after, before, limit = span
        found = [
            (sequence, text)
            for sequence, text in self.visible()
            if (after is None or sequence > after) and (before is None or sequence < before)
        ]
        page = await self.tenant.messages.history(CONVERSATION, limit, before, after)
        expected = found[:limit] if after is not None else found[-limit:]
        assert _told(page.items) == expected
        assert (page.has_later if after is not None else page.has_earlier) == (len(found) > limit)

    async def page(self, asked: tuple[int, int, Any]) -> None:
        """Read a page by number."""
        number, size, order = asked
        page = await self.tenant.messages.list(
            {"conversation_id": CONVERSATION}, Pagination(number, size, sort_order=order)
        )
        slots = list(enumerate(self.texts, start=1))[:: 1 if order == "asc" else -1]
        expected = [slot for slot in slots[(number - 1) * size : number * size] if slot[1] is not None]
        assert _told(page.items) == expected
        assert (page.total, page.has_next) == (len(self.texts), number * size < len(self.texts))

    async def window(self, size: int) -> None:
        """Read the newest messages."""
        found = await self.tenant.messages.window(CONVERSATION, max_messages=size)
        assert _told(found) == self.visible()[-size:]

    async def count(self, _: None) -> None:
        """Count, and compare what the conversation tells of its activity."""
        assert await self.tenant.messages.count({"conversation_id": CONVERSATION}) == len(self.texts)
        conversation = await self.tenant.conversations.get_by_id(CONVERSATION)
        assert conversation is not None
        assert conversation.message_count == len(self.texts)
        if conversation.last_message is None:
            assert not self.texts
        else:
            assert conversation.last_message.sequence == len(self.texts)
            assert conversation.last_message.preview == (self.texts[-1] or "")

    async def forget(self, _: None) -> None:
        """Go on as a process would that has never appended here."""
        database = self.tenant.database
        database.lanes.forget(database.identity(CONVERSATION))


def _told(messages: list[MessageDocument]) -> list[tuple[int, str]]:
    return [(message.sequence, message.content) for message in messages]


@settings(max_examples=150)
@given(st.lists(operations, max_size=30))
def test_a_log_and_a_list_tell_the_same_whatever_is_done(place: Bench, plan: list[tuple[str, Any]]) -> None:
    async def carried_out() -> None:
        model = Model(place.store.tenant(place.tenant_id()))
        await model.tenant.conversations.create(ConversationDocument.start("u", conversation_id=CONVERSATION))
        for name, argument in [*plan, ("count", None), ("history", (0, None, 40)), ("window", 40)]:
            await getattr(model, name)(argument)

    place.run(carried_out())
