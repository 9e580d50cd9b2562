"""Six processes whose clocks are wrong by up to five minutes: orders, limits and expiries are right all the same."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from convostore import ConversationDocument, ConvoStore, MongoSettings, RedisSettings

WORKER = Path(__file__).with_name("skewed_worker.py")
OFFSETS = [-300, -150, 0, 1, 150, 300]


class Workers:
    """The processes, each with its own clock."""

    def __init__(self, stack: ExitStack, words: list[str]) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._all = []
        for offset in OFFSETS:
            worker = stack.enter_context(subprocess.Popen([sys.executable, str(WORKER), str(offset), *words], **pipes))
            stack.callback(worker.kill)
            self._all.append(worker)
        assert self._read() == [True] * len(OFFSETS), "their clocks are wrong"

    def all(self, *step: Any) -> list[Any]:
        """Let all of them do something at the same time; return what each said."""
        for worker in self._all:
            worker.stdin.write(json.dumps(step) + "\n")
            worker.stdin.flush()
        return self._read()

    def _read(self) -> list[Any]:
        return [json.loads(worker.stdout.readline()) for worker in self._all]


@pytest.fixture
def tenant() -> str:
    return f"skewed-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def workers(
    store: ConvoStore, tenant: str, convostore_settings: MongoSettings, convostore_redis_settings: RedisSettings
) -> Iterator[Workers]:
    assert convostore_settings.mongodb_uri is not None
    assert convostore_redis_settings.redis_url is not None
    uri, redis = convostore_settings.mongodb_uri, convostore_redis_settings.redis_url
    words = [uri.get_secret_value(), convostore_settings.database_name, redis.get_secret_value(), tenant]
    with ExitStack() as stack:
        yield Workers(stack, words)


@pytest.mark.timeout(300)
async def test_wrong_clocks_change_no_order_no_limit_and_no_expiry(
    store: ConvoStore, tenant: str, workers: Workers
) -> None:
    await store.tenant(tenant).conversations.create(ConversationDocument.start("u", conversation_id="c"))

    appended = await asyncio.to_thread(workers.all, "append", 10)
    for sequences in appended:
        assert sequences == sorted(sequences), "a process's own messages are in the order in which it has sent them"
    assert sorted(sequence for sequences in appended for sequence in sequences) == list(range(1, 61))
    messages = [message async for message in store.tenant(tenant).messages.iterate("c")]
    assert [message.sequence for message in messages] == list(range(1, 61))
    assert (await store.tenant(tenant).messages.history("c", 5)).items == messages[-5:]

    admitted = await asyncio.to_thread(workers.all, "limit", 10)
    assert sum(admitted) == 40, "no more than the limit, and all of it"

    lasting = await asyncio.to_thread(workers.all, "begin", 600)
    assert await asyncio.to_thread(workers.all, "look", *lasting) == [[True] * 6] * 6
    short = await asyncio.to_thread(workers.all, "begin", 0.5)
    await asyncio.sleep(0.6)
    assert await asyncio.to_thread(workers.all, "look", *short) == [[False] * 6] * 6
    assert await asyncio.to_thread(workers.all, "look", *lasting) == [[True] * 6] * 6
