"""Reads are bare find commands: under the concern and preference of the collection, whole, and in one trip."""

from typing import Any

import pytest
from observed import listening
from pydantic import SecretStr

from convostore import ConversationDocument, ConvoStore, MessageDocument, MongoSettings, Pagination, TenantStore
from convostore.gateways.find_command import Find, Finder

LARGE = "x" * 3_000_000
COUNT = 8  # together more than the 16 MiB that one answer holds


async def _conversation(acme: TenantStore, count: int = 3, content: str = "text") -> str:
    created = await acme.conversations.create(ConversationDocument.start("u"))
    for _ in range(count):
        await acme.messages.append(created.conversation_id, MessageDocument.user(content))
    return created.conversation_id


async def _read_all(tenant: TenantStore, cid: str) -> None:
    await tenant.conversations.get_by_id(cid)
    await tenant.conversations.exists(cid)
    await tenant.conversations.page(None, Pagination(page_size=5))
    await tenant.messages.history(cid)


async def test_a_read_sees_what_the_majority_has_and_a_transaction_brings_its_own_concern(
    acme: TenantStore, convostore_settings: MongoSettings
) -> None:
    cid = await _conversation(acme)
    async with listening(convostore_settings) as (store, commands):
        await _read_all(store.tenant("acme"), cid)
        outside = [command for name, command in commands.sent if name == "find"]
        commands.sent.clear()
        async with store.transaction():
            await _read_all(store.tenant("acme"), cid)
        inside = [command for name, command in commands.sent if name == "find"]
    assert len(outside) == len(inside) == 4
    assert all(command["readConcern"] == {"level": "majority"} for command in outside)
    assert ["readConcern" in command for command in inside] == [True, False, False, False], "only its first may"
    assert all(command["autocommit"] is False for command in inside)
    assert len({command["txnNumber"] for command in inside}) == 1


async def test_a_read_goes_where_the_address_prefers(acme: TenantStore, convostore_settings: MongoSettings) -> None:
    cid = await _conversation(acme)
    uri = convostore_settings.mongodb_uri
    assert uri is not None
    sign = "&" if "?" in uri.get_secret_value() else "/?"
    preferring = f"{uri.get_secret_value().rstrip('/')}{sign}readPreference=secondaryPreferred"
    async with listening(convostore_settings.evolve(mongodb_uri=SecretStr(preferring))) as (store, commands):
        await _read_all(store.tenant("acme"), cid)
        sent = [command for name, command in commands.sent if name == "find"]
    assert [command["$readPreference"]["mode"] for command in sent] == ["secondaryPreferred"] * 4


@pytest.mark.parametrize("limit", [COUNT, 50])
@pytest.mark.parametrize("in_unit", [False, True])
async def test_what_does_not_fit_into_one_answer_is_read_whole_and_leaves_no_cursor(
    store: ConvoStore, acme: TenantStore, limit: int, in_unit: bool
) -> None:
    cid = await _conversation(acme, COUNT, LARGE)
    before = await _open_cursors(store)
    if in_unit:
        async with store.transaction():
            page = await acme.messages.history(cid, limit)
    else:
        page = await acme.messages.history(cid, limit)
    assert [message.sequence for message in page.items] == list(range(1, COUNT + 1))
    assert all(message.content == LARGE for message in page.items)
    assert await _open_cursors(store) == before


async def test_a_find_is_the_drivers_own(store: ConvoStore) -> None:
    collection = store.mongodb.database["anything"]
    await collection.insert_many([{"_id": n, "half": n // 2, "rest": n % 2} for n in range(10)])
    finder = Finder(collection)
    for asked, expected in (
        (Find({}), list(range(10))),
        (Find({"rest": 1}), [1, 3, 5, 7, 9]),
        (Find({}, [("rest", -1), ("_id", 1)], skip=1, limit=5), [3, 5, 7, 9, 0]),
        (Find({"_id": 11}, limit=1), []),
    ):
        found = await finder.find(asked, None)
        assert [each["_id"] for each in found] == expected
        assert await finder._by_cursor(asked, None) == found
    assert await finder.find(Find({"_id": 3}, projection=["half"]), None) == [{"_id": 3, "half": 1}]


async def test_a_read_of_a_full_page_is_one_trip(acme: TenantStore, convostore_settings: MongoSettings) -> None:
    cid = await _conversation(acme, 4)
    for _ in range(4):
        await _conversation(acme, 0)
    async with listening(convostore_settings) as (store, commands):
        tenant = store.tenant("acme")
        await tenant.conversations.exists("warm")
        commands.sent.clear()
        for limit in (1, 3, 4, 5):
            await tenant.messages.history(cid, limit)
            await tenant.conversations.page(None, Pagination(page_size=limit))
        await tenant.conversations.get_by_id(cid)
        assert commands.names() == ["find"] * 9


async def _open_cursors(store: ConvoStore) -> Any:
    status = await store.mongodb.database.client.admin.command("serverStatus")
    return status["metrics"]["cursor"]["open"]["total"]
