"""The scenes of the demonstration, one for each thing that it shows."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from rich.console import Console

from convostore.cli.drawing import cell, chat, conversation_head, table
from convostore.cli.reading import print_found
from convostore.models.mongo.conversation_model import ConversationDocument
from convostore.models.mongo.message_model import MessageDocument
from convostore.models.types import ChannelType, ConversationStatus
from convostore.repositories.base_repository import Pagination
from convostore.repositories.cache_space import CacheSpace
from convostore.repositories.exceptions import ConcurrencyError, EntityNotFoundError, RepositoryError
from convostore.store import ConvoStore
from convostore.tenant_store import TenantStore

_SHOWN = 8
_SHORTEST_WORD = 5


@dataclass(frozen=True, slots=True)
class Stage:
    """What the scenes play with.

    Attributes:
        console: where they are seen.
        store: with the conversations of all tenants.
        own: the tenant whose conversations are shown.
        other: another tenant.
        conversation: one of the first tenant.
        draft: a new one of his, to be changed.
    """

    console: Console
    store: ConvoStore
    own: TenantStore
    other: TenantStore
    conversation: ConversationDocument
    draft: ConversationDocument

    @classmethod
    async def set(cls, console: Console, store: ConvoStore, tenants: Sequence[str]) -> Self:
        """Return a stage with a conversation to show, the longest of the first few."""
        own = store.tenant(tenants[0])
        found = (await own.conversations.page(pagination=Pagination(page_size=50))).items
        conversation = max(found, key=lambda found: min(found.message_count, _SHOWN))
        draft = ConversationDocument.start(user_id="u-demo", channel=ChannelType.WEB, title="A new conversation")
        created = await own.conversations.create(draft)
        return cls(console, store, own, store.tenant(tenants[1]), conversation, created)

    def announce(self, title: str, explanation: str) -> None:
        """Say what comes next."""
        self.console.print(f"\n{title}", style="bold")
        self.console.print(explanation, style="dim")

    def tell(self, text: str) -> None:
        """Say what happened."""
        self.console.print(cell(f"   {text}"))


async def show_conversation(stage: Stage) -> None:
    """Draw the beginning of a conversation."""
    stage.announce("2  A conversation", "Its messages are one run on disk, numbered without gaps.")
    page = await stage.own.messages.history(stage.conversation.conversation_id, limit=_SHOWN, after=0)
    stage.console.print(conversation_head(stage.conversation))
    stage.console.print(chat(page.items, stage.console.width))


async def search_messages(stage: Stage) -> None:
    """Look for a word that is there."""
    history = await stage.own.messages.history(stage.conversation.conversation_id, limit=200)
    word = _telling_word([message.content for message in history.items])
    stage.announce(f'3  A search for "{word}"', "Only in the messages of this tenant; the text is never a pattern.")
    print_found((await stage.own.messages.search(word, limit=5)).items, [word])


def _telling_word(texts: Sequence[str]) -> str:
    words = Counter(word.lower() for text in texts for word in text.split() if word.isalpha())
    long = [word for word in words if len(word) >= _SHORTEST_WORD]
    return max(long or words or ["a"], key=lambda word: (words[word], len(word)))


async def turn_pages(stage: Stage) -> None:
    """Show two pages, the second by the cursor of the first."""
    stage.announce(
        "4  Two pages", "The second continues behind the first by a cursor, at the same cost however far in."
    )
    drawn = table("conversations by their number of messages", "page", "conversation", "title", "messages")
    cursor: str | None = None
    for number in (1, 2):
        order = Pagination(page_size=3, sort_by="message_count")
        page = await stage.own.conversations.page(pagination=order, cursor=cursor)
        for found in page.items:
            drawn.add_row(*map(cell, (number, found.conversation_id, found.title or "", found.message_count)))
        cursor = page.next_cursor
        if cursor is None:
            break
    stage.console.print(drawn)


async def append_twice(stage: Stage) -> None:
    """Deliver one message two times."""
    stage.announce("5  A webhook delivered twice", "The same idempotency key stores one message.")
    for attempt in ("first", "second"):
        message = MessageDocument.user("Hello, is anybody there?")
        sent = await stage.own.messages.append(stage.draft.conversation_id, message, idempotency_key="wamid.1")
        what = "was there already" if sent.replayed else "stored"
        stage.tell(f"{attempt} delivery: {what}, sequence {sent.sequence}, id {sent.message_id}")


async def edit_at_once(stage: Stage) -> None:
    """Let two editors change the same conversation."""
    stage.announce("6  Two editors at once", "The second works on what is no longer there, and is told so.")
    ours = theirs = stage.draft
    changed = await stage.own.conversations.update(ours.evolve(title="Changed by the first"))
    stage.tell(f"first editor: stored as version {changed.version}")
    try:
        await stage.own.conversations.update(theirs.evolve(title="Changed by the second"))
    except ConcurrencyError as error:
        stage.tell(f"second editor: {type(error).__name__}: {error}")
    tagged = await stage.own.conversations.update_with(
        stage.draft.conversation_id, lambda current: current.evolve(tags=("second",))
    )
    stage.tell(
        f"second editor with update_with: version {tagged.version}, nothing lost: {tagged.title!r}, {tagged.tags}"
    )


async def roll_back(stage: Stage) -> None:
    """Leave a unit of work by an exception."""
    stage.announce("7  A unit of work that fails", "Both of its writes are undone.")
    identity = stage.draft.conversation_id
    try:
        async with stage.store.transaction():
            await stage.own.messages.append(identity, MessageDocument.assistant("This is never said."))
            await stage.own.conversations.update_conversation_status(identity, ConversationStatus.COMPLETED)
            raise LookupError("the payment failed")  # noqa: TRY301 - the failure that is shown
    except LookupError as error:
        stage.tell(f"inside: {error}")
    found = await stage.own.conversations.get_by_id(identity)
    count = await stage.own.messages.count({"conversation_id": identity})
    stage.tell(f"after it: status {found.status if found else None}, {count} message")


async def look_across(stage: Stage) -> None:
    """Ask for what belongs to another tenant."""
    stage.announce("8  Another tenant", "What is not his does not exist for him, by any route.")
    found = await stage.other.conversations.get_by_id(stage.draft.conversation_id)
    stage.tell(f"{stage.other.tenant_id} asks for a conversation of {stage.own.tenant_id}: {found}")
    try:
        await stage.other.conversations.get_conversations_by_tenant(stage.own.tenant_id)
    except RepositoryError as error:
        stage.tell(f"and for all of them: {type(error).__name__}: {error}")


async def revoke_session(stage: Stage) -> None:
    """Log a user out while a slow request of his is still on its way."""
    stage.announce("9  A logout during a slow request", "A session that has ended stays ended, whatever comes late.")
    sessions, tenant = stage.store.sessions, stage.own.tenant_id
    slow = await sessions.start_session(tenant, "u-demo", data={"cart": []})
    stage.tell(f"a request holds session {slow.fingerprint[:12]} at version {slow.version}")
    ended = await sessions.revoke_user_sessions(tenant, "u-demo")
    stage.tell(f"the user logs out everywhere: {ended} session ended")
    try:
        await sessions.update_session(slow.evolve(data={"cart": ["a late book"]}))
    except EntityNotFoundError as error:
        stage.tell(f"the slow request stores its cart: {type(error).__name__}")
    stage.tell(f"the session afterwards: {await sessions.get_session(tenant, slow.session_id)}")


async def reach_limit(stage: Stage) -> None:
    """Ask more often than a policy allows."""
    stage.announce("10  A rate limit", "Three a minute, in any trailing minute, from any number of processes.")
    for attempt in range(1, 5):
        result = await stage.store.rate_limits.check_rate_limit(stage.own.tenant_id, "api-key-7", 3, 60)
        stage.tell(f"call {attempt}: {'admitted' if result.allowed else 'denied'}, {result.remaining} left")
    for name, value in result.headers().items():
        stage.tell(f"   {name}: {value}")


async def read_through_cache(stage: Stage) -> None:
    """Read the same thing several times, and once after it was changed."""
    stage.announce("11  A cache", "Never older than the last write that returned; one load for all who ask at once.")
    cache, tenant = stage.store.cache, stage.own.tenant_id
    space: CacheSpace[dict[str, Any]] = CacheSpace(
        "profile", ttl=60, version_of=lambda profile: int(profile["version"])
    )
    profile = {"version": 1, "name": "Ada"}
    loads = 0

    async def load() -> dict[str, Any] | None:
        nonlocal loads
        loads += 1
        return dict(profile)

    async def read() -> dict[str, Any] | None:
        return await cache.get_or_load(tenant, space, "u-demo", load)

    await asyncio.gather(*(read() for _ in range(100)))
    stage.tell(f"100 readers at once: {loads} load from the database, {cache.statistics.hits} hits")
    profile.update(version=2, name="Ada L.")
    await cache.invalidate(tenant, space, "u-demo", 2)
    stage.tell(f"after a write of version 2: {await read()}, then from the cache: {await read()}; {loads} loads")


SCENES: tuple[Callable[[Stage], Awaitable[None]], ...] = (
    show_conversation,
    search_messages,
    turn_pages,
    append_twice,
    edit_at_once,
    roll_back,
    look_across,
    revoke_session,
    reach_limit,
    read_through_cache,
)
