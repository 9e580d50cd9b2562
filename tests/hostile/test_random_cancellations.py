"""P12: calls of all repositories cancelled at random points leave nothing behind, and nobody gets another's answer."""

import asyncio
import os
import random
import uuid
from contextlib import suppress
from typing import Any

import pytest
from hostile_support import answer
from surface import PLAIN, Call, Names, all_methods, object_of, plain_call, planted

from convostore import ConversationDocument, ConvoStore, MessageDocument, RepositoryError

SCALE = float(os.environ.get("CONVOSTORE_TEST_SCALE", "1"))
CANCELLATIONS = round(1000 * SCALE**2)  # a hundred thousand at 10
SEED = int(os.environ.get("CONVOSTORE_TEST_SEED", "1"))
AT_ONCE = 20
METHODS = [each for each in all_methods() if each[0] != "tenant" and each[1] != "revocations"]
pytestmark = [
    # PyMongo forgets to close a socket when it is cancelled while it connects; the garbage collector does it then.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.timeout(120 * max(1, SCALE**2)),
]


class Bystanders:
    """Others who read at the same time what they know."""

    def __init__(self, store: ConvoStore) -> None:
        self.store, self.tenant_id = store, f"other-{uuid.uuid4().hex[:8]}"
        self.known: list[tuple[str, str]] = []

    async def start(self) -> None:
        """Store what they will read."""
        for number in range(5):
            name = f"c{number}"
            await self.store.tenant(self.tenant_id).conversations.create(
                ConversationDocument.start("u", conversation_id=name)
            )
            await self.store.tenant(self.tenant_id).messages.append(name, MessageDocument.user(name))
            await self.store.cache.set(self.tenant_id, PLAIN, name, name)
            session = await self.store.sessions.start_session(self.tenant_id, name)
            self.known.append((name, session.session_id))

    async def look(self) -> None:
        """Read everything at once; each must get what he asked for."""
        await asyncio.gather(*(self._look(*each) for each in self.known))

    async def _look(self, name: str, session_id: str) -> None:
        tenant = self.store.tenant(self.tenant_id)
        found = await tenant.conversations.get_by_id(name)
        assert found is not None
        assert found.conversation_id == name
        assert [message.content for message in (await tenant.messages.history(name)).items] == [name]
        session = await self.store.sessions.get_session(self.tenant_id, session_id)
        assert session is not None
        assert session.user_id == name
        cached = await self.store.cache.get(self.tenant_id, PLAIN, name)
        assert cached is None or cached.value == name


async def _unit(store: ConvoStore, names: Names) -> None:
    async with store.transaction():
        await store.tenant(names.tenant_id).messages.append(names.conversation, MessageDocument.user("in a unit"))
        await store.tenant(names.tenant_id).conversations.update_conversation_status(names.conversation, "archived")  # type: ignore[arg-type]


async def _cancelled(work: Any, turns: int) -> bool:
    """Cancel work after so many turns of the loop; say whether that came in time."""
    task = asyncio.ensure_future(work)
    for _ in range(turns):
        await asyncio.sleep(0)
    in_time = task.cancel()
    with suppress(asyncio.CancelledError, RepositoryError):
        await task
    return in_time


def _works(store: ConvoStore, names: Names, draw: random.Random) -> list[Any]:
    works: list[Any] = []
    for owner, method in draw.sample(METHODS, AT_ONCE - 1):
        call: Call = plain_call(owner, method, names)
        works.append(answer(call, object_of(store, owner, names.tenant_id)))
    return [*works, _unit(store, names)]


async def _round(store: ConvoStore, names: Names, bystanders: Bystanders, draw: random.Random) -> int:
    looking = asyncio.ensure_future(bystanders.look())
    cut = await asyncio.gather(*(_cancelled(work, int(40 * draw.random() ** 2)) for work in _works(store, names, draw)))
    await looking
    return sum(cut)


async def test_random_cancellations_leave_nothing_behind(store: ConvoStore, capsys: pytest.CaptureFixture[str]) -> None:
    draw, cancelled, calls = random.Random(SEED), 0, 0
    bystanders = Bystanders(store)
    await bystanders.start()
    admin = store.mongodb.database.client.admin
    tasks = _own_tasks()
    while cancelled < CANCELLATIONS:
        names = await planted(store, f"cut-{uuid.uuid4().hex[:8]}")
        for _ in range(10):
            cancelled += await _round(store, names, bystanders, draw)
            calls += AT_ONCE
        await store.mongodb.activity.flush()
        assert (await admin.command("serverStatus"))["transactions"]["currentOpen"] == 0
    await bystanders.look()
    async with asyncio.timeout(10):
        while len(_own_tasks() - tasks) > 0:  # noqa: ASYNC110 - tasks that end by themselves
            await asyncio.sleep(0.01)
    for gateway in (store.redis.state, store.redis.cache):
        assert gateway._wire._places._free._value == 32, "a connection is still lent"
    assert store.mongodb._places._free._value == 50
    with capsys.disabled():
        print(f"\nseed {SEED}: {cancelled} of {calls} calls cancelled")


def _own_tasks() -> set[Any]:
    """Return the tasks of the loop but for those of the driver, which come and go with its connections."""
    return {task for task in asyncio.all_tasks() if "pymongo" not in repr(task) and not task.done()}
