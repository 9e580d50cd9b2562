"""Runs of documents that concurrent callers read together: each gets what he would get alone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from pymongo import MongoClient

from convostore import ConversationDocument, ConvoStore, MessageDocument, MongoSettings, Pagination, TenantStore
from convostore.database.mongodb import open_mongodb
from convostore.gateways.operation import OperationDetails

TENANTS = ("acme", "rival")
READS = 40
Read = Callable[[], Awaitable[Any]]


@pytest.fixture
def sent() -> list[OperationDetails]:
    return []


@pytest.fixture
async def watched(
    store: ConvoStore, convostore_settings: MongoSettings, sent: list[OperationDetails]
) -> AsyncIterator[ConvoStore]:
    watched = ConvoStore(open_mongodb(convostore_settings.evolve(app_name="together"), observers=(sent.append,)))
    yield watched
    await watched.aclose()


@pytest.fixture
def fail(convostore_servers: Any) -> Iterator[Callable[..., None]]:
    """Let the next pipeline of this test's client fail."""
    with MongoClient[dict[str, Any]](convostore_servers.mongodb_uri) as client:

        def fail(**how: Any) -> None:
            data = {"failCommands": ["aggregate"], "appName": "together", **how}
            client.admin.command({"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data})

        yield fail
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


async def _talk(tenant: TenantStore, number: int) -> None:
    status = "active" if number % 3 else "completed"
    draft = ConversationDocument.start("u", conversation_id=f"c-{number}", title=f"{tenant.tenant_id} {number}")
    await tenant.conversations.create(draft.evolve(status=status))
    said = [MessageDocument.user(f"{tenant.tenant_id} {number} {n}") for n in range(number + 1)]
    await tenant.messages.append_many(f"c-{number}", said)
    if number > 2:
        await tenant.messages.delete(MessageDocument.identify(f"c-{number}", 2))


async def _prepare(store: ConvoStore) -> None:
    for tenant_id in TENANTS:
        for number in range(8):
            await _talk(store.tenant(tenant_id), number)
    await store.mongodb.activity.flush()


def _reads(store: ConvoStore) -> list[Read]:
    reads: list[Read] = []
    for number in range(READS):
        tenant = store.tenant(TENANTS[number % 2])
        talk, page = f"c-{number % 9}", Pagination(page_size=1 + number % 5)
        reads += [
            lambda t=tenant, c=talk, n=number: t.messages.history(c, limit=1 + n % 7),
            lambda t=tenant, c=talk, n=number: t.messages.history(c, limit=3, after=n % 5),
            lambda t=tenant, c=talk, n=number: t.messages.history(c, limit=3, before=1 + n % 9, include_deleted=True),
            lambda t=tenant, c=talk: t.messages.count({"conversation_id": c}),
            lambda t=tenant, p=page: t.conversations.page({"status": "active"}, p),
            lambda t=tenant, p=page: t.conversations.page({}, p),
        ]
    return reads


async def test_each_gets_what_he_would_get_alone(watched: ConvoStore, sent: list[OperationDetails]) -> None:
    await _prepare(watched)
    reads = _reads(watched)
    alone = [await read() for read in reads]
    sent.clear()
    assert await asyncio.gather(*(read() for read in reads)) == alone
    together = [details.calls for details in sent if details.operation == "aggregate"]
    assert sum(together) > 0.9 * len(reads)  # the first of each kind go alone
    assert len(together) < len(reads) / 10


async def test_a_unit_of_work_reads_by_itself(watched: ConvoStore) -> None:
    await _prepare(watched)
    acme = watched.tenant("acme")

    async def within() -> int:
        async with watched.transaction():
            await acme.messages.append("c-1", MessageDocument.user("not yet"))
            inside = len((await acme.messages.history("c-1")).items)
            raise LookupError(inside)

    async def outside() -> int:
        return len((await acme.messages.history("c-1")).items)

    inside, *others = await asyncio.gather(within(), *(outside() for _ in range(40)), return_exceptions=True)
    assert (type(inside), str(inside)) == (LookupError, "3")
    assert others == [2] * 40


@pytest.mark.parametrize("how", [{"errorCode": 2}, {"errorCode": 189}, {"closeConnection": True}])
async def test_a_pipeline_that_fails_costs_nobody_his_answer(
    watched: ConvoStore, fail: Callable[..., None], how: dict[str, Any]
) -> None:
    await _prepare(watched)
    reads = _reads(watched)
    alone = [await read() for read in reads]
    fail(**how)
    assert await asyncio.gather(*(read() for read in reads)) == alone


async def test_what_is_larger_than_one_answer_together_comes_whole(watched: ConvoStore) -> None:
    acme = watched.tenant("acme")
    for number in range(4):
        await acme.conversations.create(ConversationDocument.start("u", conversation_id=f"c-{number}"))
        for _ in range(3):
            await acme.messages.append(f"c-{number}", MessageDocument.user(str(number) * 2_500_000))
    pages = await asyncio.gather(*(acme.messages.history(f"c-{n % 4}") for n in range(12)))
    for number, page in enumerate(pages):
        assert [(len(m.content), m.content[0]) for m in page.items] == [(2_500_000, str(number % 4))] * 3
