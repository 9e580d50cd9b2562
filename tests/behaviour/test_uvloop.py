"""The store does the same on another event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from convostore import ConversationDocument, ConvoStore, MessageDocument, MongoSettings, RedisSettings

uvloop = pytest.importorskip("uvloop")


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def test_a_store_works_on_uvloop(convostore_settings: MongoSettings, convostore_redis_settings: RedisSettings) -> None:
    async def work() -> None:
        async with ConvoStore.open(convostore_settings, convostore_redis_settings) as store:
            assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
            acme = store.tenant("acme")
            await acme.conversations.create(ConversationDocument.start("u", conversation_id="c"))
            calls = [acme.messages.append("c", MessageDocument.user(f"{n}")) for n in range(50)]
            stored = await asyncio.gather(*calls)
            assert [message.sequence for message in stored] == list(range(1, 51))
            async with store.transaction():
                await acme.messages.append("c", MessageDocument.user("unit"))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await acme.messages.append("c", MessageDocument.user("cancelled"))
            found = await acme.conversations.get_by_id("c")
            assert found is not None
            assert found.message_count >= 51
            session = await store.sessions.start_session("acme", "u")
            several = [store.sessions.get_session("acme", session.session_id) for _ in range(50)]
            assert all(await asyncio.gather(*several))
            await store.mongodb.administration.drop_database()

    _run(work())
