"""P7: what names something of another tenant is answered as what names nothing, by every public method."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest
from hostile_support import learned, stored_for
from surface import (
    EXEMPT,
    EXEMPT_METHODS,
    SURFACE,
    Names,
    UnknownParameterError,
    foreign_calls,
    methods_of,
    missing,
    object_of,
    plain_call,
    planted,
    takers_of_tenants,
    with_change,
)

from convostore import CacheRepository, ConversationRepository, ConvoStore
from convostore.gateways import tenant_collection
from convostore.models.redis import session_identity
from convostore.repositories import cache_repository, rate_limit_keys


class Walk:
    """Goes through the methods of an object in the name of one tenant, with the names of another.

    Args:
        store: where to.
        stops: whether to stop at the first method that is not as it should be.

    Attributes:
        calls: how many calls were compared.
        leaks: those that were not answered as they should have been.
        planted: where the other tenant had something.
    """

    def __init__(self, store: ConvoStore, *, stops: bool = False) -> None:
        self._store = store
        self._stops = stops
        self._run = uuid.uuid4().hex[:8]
        self._count = 0
        self.calls = 0
        self.leaks: list[str] = []
        self.planted: Iterable[str] = ()

    def name(self, kind: str) -> str:
        """Return a tenant's name that nobody has."""
        self._count += 1
        return f"{kind}-{self._run}-{self._count:04d}"

    async def along(self, owner: str) -> None:
        """Go through all methods of an object."""
        theirs = await planted(self._store, self.name("rival"))
        nothing = missing(self._store, self.name("nobody"))
        if owner == "tenant":
            theirs = await with_change(self._store, theirs)
            nothing = replace(nothing, change_cursor=f"{theirs.change_cursor[:-8]}61{theirs.change_cursor[-6:]}")
        before = await stored_for(self._store, theirs.tenant_id)
        self.planted = before.keys()
        for method in methods_of(owner):
            await self._compare(owner, method, theirs, nothing)
            if self.leaks and self._stops:
                break
            if await stored_for(self._store, theirs.tenant_id) != before:
                self.leaks.append(f"{owner}.{method} has changed what is another tenant's")
                break

    async def _compare(self, owner: str, method: str, theirs: Names, nothing: Names) -> None:
        own = [await planted(self._store, self.name("owner")) for _ in range(2)]
        pairs = [foreign_calls(owner, method, ours, other) for ours, other in zip(own, (theirs, nothing), strict=True)]
        for call, expected in zip(*pairs, strict=True):
            told = []
            for each, ours, other in ((call, own[0], theirs), (expected, own[1], nothing)):
                target = object_of(self._store, owner, ours.tenant_id)
                told.append(await learned(each, target, ours.tenant_id, other.tenant_id))
                if owner in ("users", "outbox"):
                    await self._store.dispatcher.run_once()
            self.calls += 1
            if told[0] != told[1]:
                self.leaks.append(f"{call}: {told[0]} instead of {told[1]}")


@pytest.mark.parametrize("owner", SURFACE)
async def test_the_names_of_another_tenant_name_nothing(
    store: ConvoStore, owner: str, capsys: pytest.CaptureFixture[str]
) -> None:
    walk = Walk(store)
    await walk.along(owner)
    assert walk.leaks == []
    assert len(walk.planted) >= 10, "something of every kind was there"
    with capsys.disabled():
        print(f"\n{owner}: {len(methods_of(owner))} methods, {walk.calls} calls")


def test_nothing_that_takes_a_tenant_is_left_out() -> None:
    walked = {cls.__name__ for cls in SURFACE.values()}
    assert takers_of_tenants() == EXEMPT.keys() | walked
    for owner, method in EXEMPT_METHODS:
        assert hasattr(SURFACE[owner], method)


async def test_the_walk_covers_what_is_added_later(store: ConvoStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reveal(self: ConversationRepository, conversation_id: str) -> object:
        return await self._database.gateway.database["conversations"].find_one({"conversation_id": conversation_id})

    async def surprise(self: CacheRepository, tenant_id: str, unheard_of: str) -> None: ...

    monkeypatch.setattr(ConversationRepository, "reveal", reveal, raising=False)
    walk = Walk(store)
    await walk.along("conversations")
    assert any("conversations.reveal" in leak for leak in walk.leaks)
    monkeypatch.setattr(CacheRepository, "surprise", surprise, raising=False)
    with pytest.raises(UnknownParameterError, match="unheard_of"):
        plain_call("cache", "surprise", missing(store, "acme"))


def _find_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    find = tenant_collection.Find
    monkeypatch.setattr(
        tenant_collection,
        "Find",
        lambda query, *rest, **more: find(
            {name: value for name, value in query.items() if name != "tenant_id"}, *rest, **more
        ),
    )


def _cells_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    cell_key = cache_repository.cell_key
    monkeypatch.setattr(cache_repository, "cell_key", lambda _, *rest: cell_key("all", *rest))


def _sessions_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_identity, "redis_key", lambda kind, tag: f"cs:{kind}:{{{':'.join(tag[1:])}}}")


def _limits_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    identity_key = rate_limit_keys.identity_key
    monkeypatch.setattr(rate_limit_keys, "identity_key", lambda _, identifier: identity_key("all", identifier))


@pytest.mark.parametrize(
    ("owner", "forget"),
    [
        ("conversations", _find_for_all),
        ("messages", _find_for_all),
        ("cache", _cells_for_all),
        ("sessions", _sessions_for_all),
        ("rate_limits", _limits_for_all),
    ],
)
async def test_the_walk_sees_that_a_tenant_is_forgotten(
    store: ConvoStore, monkeypatch: pytest.MonkeyPatch, owner: str, forget: Callable[[pytest.MonkeyPatch], None]
) -> None:
    forget(monkeypatch)
    walk = Walk(store, stops=True)
    await walk.along(owner)
    assert walk.leaks != []
