"""Overload: what is too much is refused at once by a typed error, nothing waits for ever, and all is well after."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from convostore import (
    ConversationDocument,
    ConvoStore,
    DeadlineExceededError,
    MessageDocument,
    RepositoryError,
    TenantStore,
)
from convostore.gateways.operation import Operation
from convostore.gateways.waiting import CrowdedError, Places

pytestmark = [
    # PyMongo forgets to close a socket when it is cancelled while it connects; the garbage collector does it then.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
PATIENCE = 60.0  # seconds for what must end by a deadline of two; the machine may be busy


@pytest.fixture
async def crowded(store: ConvoStore) -> ConvoStore:
    """A store in which few calls may be under way, and few wait."""
    store.mongodb._places = Places(2, waiting=20)
    store.mongodb.deadline = 2.0
    for gateway in (store.redis.state, store.redis.cache):
        gateway._wire._places = Places(1, waiting=20)
    return store


async def _flood(calls: list[Any]) -> Counter[str]:
    """Make calls at once; return how they ended, those apart that were turned away."""

    async def end(call: Any) -> str:
        try:
            await call
        except DeadlineExceededError as error:
            return "refused" if "too many" in str(error) else "late"
        except RepositoryError as error:
            return type(error).__name__
        return "done"

    async with asyncio.timeout(PATIENCE):
        return Counter(await asyncio.gather(*map(end, calls)))


async def test_who_comes_into_a_crowd_is_turned_away_at_once() -> None:
    places = Places(1, waiting=2)
    order: list[int] = []

    async def call(number: int) -> None:
        async with places:
            order.append(number)
            await asyncio.sleep(0)

    ended = await asyncio.gather(*(call(number) for number in range(6)), return_exceptions=True)
    assert [isinstance(each, CrowdedError) for each in ended] == [False, False, False, True, True, True]
    assert order == [0, 1, 2]
    await call(9)


async def test_one_who_is_cancelled_while_he_waits_leaves_his_place_to_others() -> None:
    places = Places(1, waiting=1)
    async with places:
        waiting = asyncio.ensure_future(places.__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        waiting = asyncio.ensure_future(places.__aenter__())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    await places.__aexit__()


async def test_too_many_queries_are_refused_and_the_next_ones_succeed(crowded: ConvoStore) -> None:
    acme = crowded.tenant("acme")
    await acme.conversations.create(ConversationDocument.start("u", conversation_id="c"))
    sent: list[str] = []
    crowded.mongodb._observers = (lambda details: sent.append(str(details.error)),)
    ends = await _flood([acme.conversations.list({}) for _ in range(200)])  # lists travel alone
    assert ends["refused"] == 200 - 22
    assert ends["done"] == 22
    assert len(sent) == 200, "nobody who was turned away comes again by himself"
    assert await _flood([acme.conversations.list({}) for _ in range(20)]) == {"done": 20}


async def test_too_many_commands_to_redis_are_refused_and_the_next_ones_succeed(crowded: ConvoStore) -> None:
    gateway = crowded.redis.state
    read = Operation("read", "test", "Thing", repeatable=True)
    ends = await _flood([gateway.commands(read, [("GET", "a"), ("GET", "b")]) for _ in range(200)])
    assert ends["refused"] == 200 - 21
    assert ends["done"] == 21
    assert not gateway.breaker.is_open, "a crowd is no sign that the server is away"
    assert await _flood([gateway.commands(read, [("GET", "a")]) for _ in range(20)]) == {"done": 20}


async def _offered(acme: TenantStore, a_turn: int, turns: int) -> tuple[Counter[str], int]:
    """Offer calls at a rate, whatever becomes of them; return how they ended, and how many were open at most."""
    ends: Counter[str] = Counter()
    open_calls: set[asyncio.Task[Counter[str]]] = set()
    most = 0
    for turn in range(turns):
        calls = [_call(acme, turn * a_turn + number) for number in range(a_turn)]
        task = asyncio.create_task(_flood(calls))
        open_calls.add(task)
        most = max(most, sum(not each.done() for each in open_calls) * a_turn)
        await asyncio.sleep(0.02)
    for each in open_calls:
        ends += await each
    return ends, most


def _call(acme: TenantStore, number: int) -> Any:
    kinds = [
        lambda: acme.messages.append("c", MessageDocument.user("x")),
        lambda: acme.messages.history("c", 5),
        lambda: acme.conversations.list({}),
        lambda: acme.conversations.get_by_id("c"),
    ]
    return kinds[number % len(kinds)]()


async def test_after_an_overload_everything_succeeds_again(crowded: ConvoStore) -> None:
    """Offered in an open loop is far more than can be carried, then few at a time."""
    acme = crowded.tenant("acme")
    await acme.conversations.create(ConversationDocument.start("u", conversation_id="c"))
    ends, most = await _offered(acme, 200, 25)
    assert ends.total() == 5000
    assert ends.keys() <= {"done", "refused", "late"}, ends
    assert ends["refused"] > 0, "it was no overload"
    assert ends["done"] > 0
    assert most <= 5000
    assert crowded.mongodb._places._waiting == 0
    for turn in range(25):  # no more than may wait, however slow the machine is
        assert await _flood([_call(acme, turn + number) for number in range(8)]) == {"done": 8}
    messages = [message async for message in acme.messages.iterate("c")]
    assert [message.sequence for message in messages] == list(range(1, len(messages) + 1))
