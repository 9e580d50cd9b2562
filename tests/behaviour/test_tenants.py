"""Nothing of one tenant is visible to or changed by another, by whatever name, id, key or cursor."""

import inspect
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from observed import dump

from convostore import (
    ConversationDocument,
    ConversationRepository,
    ConvoStore,
    MessageDocument,
    MessageRepository,
    Pagination,
    RepositoryError,
    TenantStore,
)

THEIRS = "theirs"
UNKNOWN = "unknwn"  # as long as the other, so that errors can be compared

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)

# How each method is called with the id of a conversation, and a message's external id, key and id.
Arguments = Callable[[str], tuple[tuple[Any, ...], dict[str, Any]]]


def _text() -> MessageDocument:
    return MessageDocument.user("text")


def _same(entity: Any) -> Any:
    return entity


CONVERSATIONS: dict[str, Arguments] = {
    "create": lambda name: ((ConversationDocument.start("u", conversation_id=name, created_at=MOMENT),), {}),
    "create_conversation": lambda name: (
        (ConversationDocument.start("u", conversation_id=name, created_at=MOMENT),),
        {},
    ),
    "get_by_id": lambda name: ((name,), {}),
    "get_by_conversation_id": lambda name: ((name,), {}),
    "exists": lambda name: ((name,), {}),
    "update": lambda name: ((ConversationDocument.start("u", conversation_id=name, title="hijacked"),), {}),
    "update_with": lambda name: ((name, _same), {}),
    "delete": lambda name: ((name,), {"version": 1}),
    "update_conversation_status": lambda name: ((name, "archived"), {}),
    "get_active_conversations": lambda name: (("acme", f"user of {name}"), {}),
    "get_conversations_by_tenant": lambda name: (("acme", {"conversation_id": name}), {}),
    "list": lambda name: (({"conversation_id": name},), {}),
    "page": lambda name: (({"user_id": f"user of {name}"},), {}),
    "count": lambda name: (({"conversation_id": name},), {}),
    "iterate_all": lambda name: (({"search": f"title of {name}"},), {}),
}
MESSAGES: dict[str, Arguments] = {
    "append": lambda name: ((name, _text()), {"idempotency_key": f"key of {name}"}),
    "append_many": lambda name: ((name, [_text(), _text()]), {}),
    "create": lambda name: ((_text().evolve(conversation_id=name),), {}),
    "history": lambda name: ((name,), {"include_deleted": True}),
    "iterate": lambda name: ((name,), {}),
    "window": lambda name: ((name,), {"max_messages": 9}),
    "search": lambda name: ((f"said in {name}",), {}),
    "get": lambda name: ((name, 1), {}),
    "get_by_external_id": lambda name: ((f"external id of {name}",), {}),
    "get_by_id": lambda name: ((MessageDocument.identify(name, 1),), {}),
    "exists": lambda name: ((MessageDocument.identify(name, 1),), {}),
    "count": lambda name: (({"conversation_id": name},), {}),
    "update": lambda name: ((_text().evolve(conversation_id=name, sequence=1),), {}),
    "update_with": lambda name: ((MessageDocument.identify(name, 1), _same), {}),
    "edit": lambda name: ((name, 1), {"content": "hijacked"}),
    "update_delivery_status": lambda name: ((name, 1, "read"), {}),
    "delete": lambda name: ((MessageDocument.identify(name, 1),), {}),
    "list": lambda name: (({"conversation_id": name},), {}),
    "page": lambda name: (({"conversation_id": name, "role": "user"},), {}),
    "iterate_all": lambda name: (({"conversation_id": name, "search": "said"},), {}),
}
REPOSITORIES = {"conversations": (ConversationRepository, CONVERSATIONS), "messages": (MessageRepository, MESSAGES)}
METHODS = [(attribute, name) for attribute, (_, methods) in REPOSITORIES.items() for name in methods]


async def _fill(tenant: TenantStore, *names: str) -> None:
    for name in names:
        await tenant.conversations.create(
            ConversationDocument.start(f"user of {name}", conversation_id=name, title=f"title of {name}")
        )
        first = MessageDocument.user(f"said in {name}", external_id=f"external id of {name}")
        await tenant.messages.append(name, first, idempotency_key=f"key of {name}")
        await tenant.messages.append_many(name, [_text(), _text()])


async def _answer(tenant: TenantStore, attribute: str, method: str, name: str) -> str:
    """Return everything a caller can learn from a call."""
    positional, named = REPOSITORIES[attribute][1][method](name)
    try:
        answer = getattr(getattr(tenant, attribute), method)(*positional, **named)
        answer = [item async for item in answer] if inspect.isasyncgen(answer) else await answer
    except RepositoryError as error:
        answer = (type(error).__name__, str(error), {key: str(value) for key, value in vars(error).items()})
    return repr(answer).replace(name, "NAME")


@pytest.mark.parametrize("attribute", REPOSITORIES)
def test_the_walk_leaves_no_public_method_out(attribute: str) -> None:
    repository, methods = REPOSITORIES[attribute]
    public = {
        name
        for name, member in inspect.getmembers(repository)
        if not name.startswith("_") and inspect.isfunction(member)
    }
    assert public == methods.keys()


@pytest.mark.parametrize(("attribute", "method"), METHODS, ids=[f"{one}.{two}" for one, two in METHODS])
async def test_what_belongs_to_another_tenant_is_as_if_it_were_not_there(
    store: ConvoStore, acme: TenantStore, rival: TenantStore, attribute: str, method: str
) -> None:
    await _fill(rival, THEIRS)
    before = await dump(store, _id={"$regex": "^rival:"})
    answers = [await _answer(acme, attribute, method, name) for name in (UNKNOWN, THEIRS)]
    assert answers[0] == answers[1]
    assert await dump(store, _id={"$regex": "^rival:"}) == before
    theirs = await _answer(rival, "messages", "history", THEIRS)
    assert "said in NAME" in theirs


async def test_the_walk_would_notice_a_leak(acme: TenantStore) -> None:
    silent = set()
    for number, (attribute, method) in enumerate(METHODS):
        theirs, unknown = f"{THEIRS}-{number}", f"{UNKNOWN}-{number}"
        await _fill(acme, theirs)
        if await _answer(acme, attribute, method, unknown) == await _answer(acme, attribute, method, theirs):
            silent.add(method)
    assert silent == set()


NAMES = [
    "a",
    "b",
    "c",
    "a:b",
    "b:c",
    "a%3Ab",
    "a%3ab",
    "%",
    "%25",
    "a;",
    "a:",
    ":b",
    "{a}",
    "a{",
    "a}b",
    "A",
    "a ",
    "aa",
]


async def test_names_with_separators_in_them_never_meet(store: ConvoStore) -> None:
    everything = [(tenant, name) for tenant in NAMES for name in NAMES]
    for tenant, name in everything:
        handle = store.tenant(tenant)
        created = ConversationDocument.start("u", conversation_id=name, title=f"{tenant}|{name}")
        await handle.conversations.create(created)
        await handle.messages.append(name, MessageDocument.user(f"{tenant}|{name}"))
    for tenant, name in everything:
        handle = store.tenant(tenant)
        found = await handle.conversations.get_by_id(name)
        assert found is not None
        assert (found.tenant_id, found.conversation_id, found.title) == (tenant, name, f"{tenant}|{name}")
        [message] = (await handle.messages.history(name)).items
        assert (message.content, message.sequence) == (f"{tenant}|{name}", 1)
        assert await handle.messages.get_by_id(message.id) == message
    for tenant in NAMES:
        listed = await store.tenant(tenant).conversations.list({}, Pagination(page_size=100))
        assert sorted(found.conversation_id for found in listed.items) == sorted(NAMES)
        searched = await store.tenant(tenant).messages.search("|", limit=100)
        assert {found.content for found in searched.items} == {f"{tenant}|{name}" for name in NAMES}


async def test_deleting_in_one_tenant_leaves_all_that_are_named_alike_alone(store: ConvoStore) -> None:
    for tenant in NAMES:
        await _fill(store.tenant(tenant), "a", "a:b")
    await store.tenant("a").conversations.delete("a")
    for tenant in NAMES:
        for name in ("a", "a:b"):
            gone = (tenant, name) == ("a", "a")
            assert await store.tenant(tenant).conversations.exists(name) is not gone
            assert len((await store.tenant(tenant).messages.history(name)).items) == (0 if gone else 3)


async def test_a_document_that_lies_under_another_s_name_is_not_shown(store: ConvoStore, acme: TenantStore) -> None:
    """Even if another program has stored it under an identity that begins like ours."""
    await _fill(acme, "mine")
    foreign = {**ConversationDocument.start("u", conversation_id="x").to_dict(), "_id": "acme:x", "tenant_id": "rival"}
    await store.mongodb.database["conversations"].insert_one(foreign)
    before = await dump(store)
    assert await acme.conversations.get_by_id("x") is None
    assert not await acme.conversations.exists("x")
    assert not await acme.conversations.delete("x")
    assert not await acme.conversations.update_conversation_status("x", "archived")  # type: ignore[arg-type]
    assert [found.conversation_id for found in (await acme.conversations.list()).items] == ["mine"]
    assert await dump(store) == before
