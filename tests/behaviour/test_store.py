"""The store: prepares an empty database, refuses one that lacks an index, and closes what it opened."""

import asyncio
import traceback

import pytest
from pydantic import SecretStr

from convostore import (
    ConversationDocument,
    ConvoStore,
    MessageDocument,
    MongoSettings,
    RepositoryError,
    TenantStore,
    ValidationError,
)
from convostore.database.mongodb import open_mongodb


async def test_a_tenant_s_store_knows_whose_it_is(acme: TenantStore, rival: TenantStore) -> None:
    assert (acme.tenant_id, rival.tenant_id) == ("acme", "rival")
    assert acme.conversations.tenant_id == acme.messages.tenant_id == acme.database.tenant_id == "acme"


async def test_stores_that_open_an_empty_database_at_once_all_find_it_prepared(
    store: ConvoStore, convostore_settings: MongoSettings
) -> None:
    await store.mongodb.administration.drop_database()

    async def opened(name: str) -> int:
        async with ConvoStore.open(convostore_settings) as other:
            tenant = other.tenant(name)
            await tenant.conversations.create(ConversationDocument.start("u", conversation_id="c"))
            return (await tenant.messages.append("c", MessageDocument.user("x"))).sequence

    assert await asyncio.gather(*(opened(f"tenant-{number}") for number in range(4))) == [1] * 4


@pytest.mark.parametrize("index", ["by_idempotency_key", "by_user"])
async def test_a_database_in_use_that_lacks_an_index_is_refused_by_its_name_and_left_alone(
    store: ConvoStore, convostore_settings: MongoSettings, index: str
) -> None:
    collection = "messages" if index == "by_idempotency_key" else "conversations"
    conversation = await store.tenant("acme").conversations.create(ConversationDocument.start(user_id="u"))
    await store.tenant("acme").messages.append(conversation.conversation_id, MessageDocument.user("x"))
    await store.mongodb.database[collection].drop_index(index)
    before = await store.mongodb.administration.indexes(collection)
    with pytest.raises(RepositoryError, match=index):
        await _open(convostore_settings)
    assert await store.mongodb.administration.indexes(collection) == before


async def test_a_database_that_was_prepared_by_half_is_prepared_to_the_end(
    store: ConvoStore, convostore_settings: MongoSettings
) -> None:
    await store.mongodb.database["messages"].drop_index("by_idempotency_key")
    async with ConvoStore.open(convostore_settings) as again:
        assert "by_idempotency_key" in await again.mongodb.administration.indexes("messages")


@pytest.mark.parametrize("option", ["tls=maybe", "w=-1", "connectTimeoutMS=soon", "nonsense=1"])
async def test_an_address_with_an_option_that_is_not_valid_is_refused_without_quoting_it(option: str) -> None:
    settings = MongoSettings(mongodb_uri=SecretStr(f"mongodb://user:hidden@127.0.0.1:1/?{option}"))
    with pytest.raises(ValidationError, match="mongodb_uri: not a valid") as caught:
        await _open(settings)
    assert "hidden" not in "".join(traceback.format_exception(caught.value))


async def _open(settings: MongoSettings) -> None:
    async with ConvoStore.open(settings):
        pytest.fail("opened")


async def test_closing_writes_the_activity_that_is_pending(
    acme: TenantStore, convostore_settings: MongoSettings
) -> None:
    async with ConvoStore.open(convostore_settings) as other:
        await other.tenant("acme").conversations.create(ConversationDocument.start("u", conversation_id="c"))
        await other.tenant("acme").messages.append("c", MessageDocument.user("x"))
    found = await acme.conversations.get_by_id("c")
    assert found is not None
    assert found.message_count == 1


async def test_closing_leaves_no_task_behind(convostore_settings: MongoSettings, store: ConvoStore) -> None:
    before = asyncio.all_tasks()
    other = ConvoStore(open_mongodb(convostore_settings))
    await other.tenant("acme").conversations.create(ConversationDocument.start("u", conversation_id="c"))
    await other.tenant("acme").messages.append("c", MessageDocument.user("x"))
    await other.aclose()
    assert asyncio.all_tasks() == before
