"""Every public method through which a tenant's data is reached, and what each of its parameters may be given.

Methods and parameters are found by introspection, so what is added later is walked too: a parameter that nobody has
heard of fails the tests until it is entered in ``arguments``.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import convostore
from convostore import (
    CacheRepository,
    CacheSpace,
    ConversationDocument,
    ConversationRepository,
    ConversationStatus,
    ConvoStore,
    DeliveryStatus,
    Effect,
    MessageDocument,
    MessageRepository,
    Outbox,
    Pagination,
    RateLimitPolicy,
    RateLimitRepository,
    RateLimitResult,
    Reservation,
    SessionData,
    SessionRepository,
    TenantStore,
    Users,
)

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
PLAIN: CacheSpace[Any] = CacheSpace("hostile", beta=0)
VERSIONED: CacheSpace[Any] = CacheSpace(
    "versioned", version_of=lambda value: value.get("version") if isinstance(value, dict) else None, beta=0
)

SURFACE: dict[str, type] = {
    "conversations": ConversationRepository,
    "messages": MessageRepository,
    "sessions": SessionRepository,
    "rate_limits": RateLimitRepository,
    "cache": CacheRepository,
    "users": Users,
    "outbox": Outbox,
    "tenant": TenantStore,
}
# These act for the tenant whose handle they were made from; the others for whom they are told, by ``tenant_id``.
BOUND = ("conversations", "messages", "tenant")
# What takes a tenant, or his handle, and is not walked.
EXEMPT = {
    "ConvoStore": "acts for whom it is told",
    "Changes": "made for the tenant of the change feed",
    "ChangeFeed": "behind ConvoStore.changes",
    "UserSessions": "the base of SessionRepository",
    "MongoRepository": "the base of the repositories on MongoDB",
    "OutboxEntry": "a value",
    "Claiming": "a part of Importer",
    "Exporter": "takes no name of anything",
    "Importer": "takes lines",
    "Stats": "works for all tenants",
    "TenantStats": "a value",
    "Subject": "a value",
    "Erasure": "its own tests look whom it takes along",
    "Retention": "its own tests look whom it takes along",
    "Deletions": "a part of Erasure and Retention",
    "Burying": "a part of Erasure and Repair",
}
EXEMPT_METHODS = {
    ("sessions", "cleanup_expired_sessions"): "works for all tenants",
    ("cache", "aclose"): "closes it",
    ("tenant", "current"): "takes nothing",
}


@dataclass(frozen=True)
class Names:
    """What names things of one tenant, whether or not they are there; each text that can be chosen holds his name."""

    tenant_id: str
    session_id: str
    change_cursor: str = ""
    conversation_cursor: str = "WyIwMDAwMDAwMDAwMDAiLCJkIiwwLCJ4Onki"
    message_cursor: str = "WyIwMDAwMDAwMDAwMDAiLCJ2IiwwLCJ4Onki"
    search_cursor: str = "WyIwMDAwMDAwMDAwMDAiLCJ2IiwwLCJ4Onki"

    def __getattr__(self, name: str) -> str:
        return f"{name} of {self.tenant_id}"

    @property
    def message_id(self) -> str:
        return MessageDocument.identify(self.conversation, 1)


def missing(store: ConvoStore, tenant_id: str) -> Names:
    """Return the names of things of a tenant that there are not."""
    return Names(tenant_id, store.sessions.new_session_id(tenant_id, f"user of {tenant_id}"))


async def planted(store: ConvoStore, tenant_id: str) -> Names:
    """Store something of every kind for a tenant, and return its names."""
    names, tenant = missing(store, tenant_id), store.tenant(tenant_id)
    for twin in ("", " twin"):
        await tenant.conversations.create(conversation_of(names, names.conversation + twin))
    await tenant.messages.append(names.conversation, message_of(names), idempotency_key=names.key)
    await tenant.messages.append_many(names.conversation, [MessageDocument.user(f"{names.word} {n}") for n in "ab"])
    session = await store.sessions.start_session(tenant_id, names.user, data={"name": names.word})
    for _ in range(3):
        await store.rate_limits.check_rate_limit(tenant_id, names.identifier, 5, 60)
    limits = [(names.identifier, "9/minute")]
    await store.rate_limits.reserve(tenant_id, limits, 2, reservation_id=names.reservation)
    await store.cache.set(tenant_id, PLAIN, names.cached, {"secret": names.word})
    await store.cache.set(tenant_id, PLAIN, names.tagged, {"secret": names.word}, [names.tag])
    await store.cache.get_or_load(tenant_id, VERSIONED, names.cached, loaded)
    one = Pagination(page_size=1)
    conversations = await tenant.conversations.page({}, one)
    messages = await tenant.messages.page({"conversation_id": names.conversation}, one)
    found = await tenant.messages.search(names.word, limit=1)
    cursors = [str(page.next_cursor) for page in (conversations, messages, found)]
    return Names(tenant_id, session.session_id, "", *cursors)


async def with_change(store: ConvoStore, names: Names) -> Names:
    """Return names with the cursor of a change of the tenant's."""
    tenant = store.tenant(names.tenant_id)
    async with tenant.changes() as changes:
        await tenant.conversations.update_conversation_status(names.conversation, ConversationStatus.ACTIVE)
        return replace(names, change_cursor=(await anext(changes)).cursor)


async def loaded() -> dict[str, Any]:
    """Load what is kept in the cache."""
    return {"version": 3}


def conversation_of(names: Names, conversation_id: str, **fields: Any) -> ConversationDocument:
    """Return a new conversation."""
    given = {"title": names.word, "tags": (names.tag,), "assignee": names.assignee, "created_at": MOMENT, **fields}
    given.setdefault("metadata", {"note": names.word})
    return ConversationDocument.start(names.user, conversation_id=conversation_id, **given)


def message_of(names: Names, **fields: Any) -> MessageDocument:
    """Return a new message."""
    given = {"external_id": names.external, "message_id": names.message, "created_at": MOMENT, **fields}
    given.setdefault("payload", {"note": [names.word]})
    return MessageDocument.user(names.word, **given)


_ENDING = ("delete", "erase", "invalidate", "release", "reset", "revoke", "rotate", "sign_out")


def methods_of(owner: str) -> dict[str, Any]:
    """Return the public methods of an object of the surface."""
    found = inspect.getmembers(SURFACE[owner], inspect.isfunction)
    return {name: method for name, method in found if name[0] != "_" and (owner, name) not in EXEMPT_METHODS}


def all_methods() -> list[tuple[str, str]]:
    """Return owner and name of all methods, last those after which others find nothing."""
    found = [(owner, method) for owner in SURFACE for method in methods_of(owner)]
    return sorted(found, key=lambda each: each[1].startswith(_ENDING))


def object_of(store: ConvoStore, owner: str, tenant_id: str) -> Any:
    """Return the object of the surface through which a tenant acts."""
    if owner == "outbox":
        return Outbox(store.mongodb)
    if owner in BOUND:
        tenant = store.tenant(tenant_id)
        return tenant if owner == "tenant" else getattr(tenant, owner)
    return getattr(store, owner)


def arguments(owner: str, method: str, own: Names, other: Names) -> dict[str, list[Any]]:
    """Return for each parameter of a method what a tenant may give, naming things of another one, or of himself.

    The first value of each is what a call takes if nothing else is of interest.
    """
    shared = {**_COMMON(own, other), **_BY_OWNER[owner](own, other)}
    return {**shared, **_BY_METHOD.get((owner, method), lambda *_: {})(own, other)}


def _COMMON(own: Names, other: Names) -> dict[str, list[Any]]:  # noqa: N802 - a table that depends on names
    return {
        "tenant_id": [own.tenant_id],
        "user_id": [other.user],
        "conversation_id": [other.conversation],
        "limit": [5],
        "version": [1],
        "expected_version": [1],
        "pagination": [Pagination(page_size=2)],
        "status": [ConversationStatus.ARCHIVED],
        "change": [_same],
        "after": [other.change_cursor or None],
    }


def _same(entity: Any) -> Any:
    return entity


def _of_conversations(own: Names, other: Names) -> dict[str, list[Any]]:
    stored = conversation_of(other, other.conversation)
    return {
        "tenant_id": [other.tenant_id],
        "conversation": [stored, stored.replaced(tenant_id=other.tenant_id)],
        "entity_id": [other.conversation],
        "filters": [
            {"user_id": other.user},
            {"conversation_id": other.conversation},
            {"tags": other.tag},
            {"assignee": other.assignee},
            {"search": f'"{other.word}"'},
            {"tenant_id": other.tenant_id},
        ],
        "cursor": [other.conversation_cursor],
        "completed_at": [MOMENT],
        "fresh": [True],
    }


def _of_messages(own: Names, other: Names) -> dict[str, list[Any]]:
    new = message_of(other)
    stored = new.replaced(conversation_id=other.conversation, sequence=1)
    inside = {"conversation_id": other.conversation}
    return {
        "message": [new, new.replaced(tenant_id=other.tenant_id), new.replaced(conversation_id=other.conversation)],
        "messages": [[new, new], [new, new.replaced(tenant_id=other.tenant_id)]],
        "entity": [stored, stored.replaced(tenant_id=other.tenant_id)],
        "entity_id": [other.message_id],
        "external_id": [other.external],
        "idempotency_key": [other.key],
        "text": [other.word],
        "filters": [
            {**inside, "role": "user"},
            inside,
            {**inside, "external_id": other.external},
            {**inside, "search": other.word},
            {**inside, "tenant_id": other.tenant_id},
        ],
        "cursor": [other.message_cursor],
        "status": [DeliveryStatus.READ],
        "changes": [{"content": "changed"}],
        "sequence": [1],
        "before": [3],
        "after": [0],
        "include_deleted": [True],
        "max_messages": [9],
        "max_tokens": [999],
        "count_tokens": [lambda _: 1],
        "fresh": [True],
    }


def _of_sessions(own: Names, other: Names) -> dict[str, list[Any]]:
    # Who has stolen an id puts it into a session of his own.
    stolen = SessionData(session_id=other.session_id, tenant_id=own.tenant_id, user_id=other.user)
    return {
        "session_id": [other.session_id],
        "session_data": [stolen, stolen.evolve(data={"hijacked": True})],
        "fingerprint": [SessionData(session_id=other.session_id, tenant_id="t", user_id="u").fingerprint],
        "except_id": [other.session_id],
        "hours": [2],
        "data": [{"name": "x"}],
        "fields": [{"name": "x"}],
        "remove": [["name"]],
        "idle_seconds": [60.0],
        "lifetime_seconds": [600.0],
    }


def _of_rate_limits(own: Names, other: Names) -> dict[str, list[Any]]:
    policy = RateLimitPolicy.parse("9/minute")
    result = RateLimitResult.of((True, 2, 0), {"policy": policy, "degraded": False, "_parts": ()})
    reserved = {"reservation_id": other.reservation, "limits": ((other.identifier, policy),), "units": 2}
    return {
        "identifier": [other.identifier],
        "window_seconds": [60],
        "cost": [1],
        "policy": ["9/minute"],
        "limits": [[(other.identifier, "9/minute")]],
        "estimate": [2],
        "lease_seconds": [30.0],
        "reservation_id": [other.reservation],
        "reservation": [Reservation(tenant_id=own.tenant_id, result=result, **reserved)],
        "units": [1],
    }


def _of_cache(own: Names, other: Names) -> dict[str, list[Any]]:
    return {
        "space": [PLAIN],
        "key": [other.cached, other.tagged],
        "keys": [[other.cached, other.tagged]],
        "tags": [[other.tag]],
        "load": [loaded],
        "value": [{"version": 4}],
        "version": [9],
        "versions": [{other.cached: 9}],
    }


_BY_OWNER: dict[str, Any] = {
    "conversations": _of_conversations,
    "messages": _of_messages,
    "sessions": _of_sessions,
    "rate_limits": _of_rate_limits,
    "cache": _of_cache,
    "users": lambda *_: {"close_conversations": [True]},
    "outbox": lambda _, other: {
        "effects": [list(Effect)],
        "conversation_ids": [[other.conversation]],
        "user_id": [other.user],
    },
    "tenant": lambda *_: {},
}


def _created(own: Names, other: Names) -> dict[str, list[Any]]:
    new = conversation_of(other, other.conversation if own is not other else other.another)
    return {"conversation": [new, new.replaced(tenant_id=other.tenant_id)]}


_BY_METHOD: dict[tuple[str, str], Any] = {
    ("conversations", "create"): _created,
    ("conversations", "create_conversation"): _created,
    ("messages", "create"): lambda _, other: {"entity": [message_of(other, conversation_id=other.conversation)]},
    ("messages", "search"): lambda _, other: {"cursor": [other.search_cursor]},
    ("rate_limits", "check_rate_limit"): lambda *_: {"policy": [None]},
    ("rate_limits", "get_rate_limit_info"): lambda *_: {"policy": [None]},
    ("rate_limits", "get_remaining_quota"): lambda *_: {"policy": [None]},
    ("rate_limits", "get_usage"): lambda _, other: {"limits": [[(other.identifier, "9 per calendar day")]]},
    ("cache", "write_through"): lambda *_: {"space": [VERSIONED]},
    ("cache", "invalidate"): lambda *_: {"space": [VERSIONED]},
    ("cache", "invalidate_many"): lambda *_: {"space": [VERSIONED]},
    ("cache", "invalidate_tag"): lambda _, other: {"tags": [(other.tag,)]},
}
# Parameters that a call needs although they have a default.
_NEEDED = {
    **dict.fromkeys([("messages", name) for name in ("count", "iterate_all", "list", "page")], ("filters",)),
    ("messages", "window"): ("max_messages",),
    ("messages", "edit"): ("changes",),
    ("rate_limits", "check_rate_limit"): ("limit", "window_seconds"),
    ("rate_limits", "get_rate_limit_info"): ("limit", "window_seconds"),
    ("rate_limits", "get_remaining_quota"): ("limit", "window_seconds"),
    ("outbox", "add"): ("user_id", "conversation_ids"),
    ("cache", "invalidate_tag"): ("tags",),
}


class UnknownParameterError(AssertionError):
    """A parameter has to be entered in the tables above."""


def parameters_of(owner: str, method: str) -> dict[str, inspect.Parameter]:
    """Return the parameters of a method without self."""
    parameters = inspect.signature(methods_of(owner)[method]).parameters
    return {name: parameter for name, parameter in parameters.items() if name != "self"}


def needed(owner: str, method: str) -> list[str]:
    """Return the parameters that a call cannot do without."""
    more = _NEEDED.get((owner, method), ())
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, parameter in parameters_of(owner, method).items()
        if name in more or (parameter.default is inspect.Parameter.empty and parameter.kind not in kinds)
    ]


@dataclass(frozen=True)
class Call:
    """A call of a method with named arguments."""

    owner: str
    method: str
    given: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.owner}.{self.method}({', '.join(self.given)})"

    def having(self, name: str, value: Any) -> "Call":
        return Call(self.owner, self.method, {**self.given, name: value})

    def on(self, target: Any) -> Any:
        """Make the call; what it returns may have to be awaited, or iterated over."""
        parameters = parameters_of(self.owner, self.method)
        named, positional = {}, []
        for name, value in self.given.items():
            if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
                positional = list(value)
            elif parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            else:
                named[name] = value
        if positional:
            first = [named.pop(name) for name in list(parameters) if name in named]
            return getattr(target, self.method)(*first, *positional)
        return getattr(target, self.method)(**named)


def plain_call(owner: str, method: str, names: Names) -> Call:
    """Return a call that is right: a tenant's own, of what is his."""
    given = arguments(owner, method, names, names)
    _check_known(owner, method, given)
    return Call(owner, method, {name: given[name][0] for name in needed(owner, method)})


def foreign_calls(owner: str, method: str, own: Names, other: Names) -> Iterator[Call]:
    """Yield calls in which one name after the other, and then all of them, are another tenant's."""
    plain = plain_call(owner, method, own)
    ours, theirs = arguments(owner, method, own, own), arguments(owner, method, own, other)
    for name in parameters_of(owner, method):
        yield from (plain.having(name, value) for value in theirs[name] if value not in ours[name])
    if plain.given:
        yield Call(owner, method, {name: theirs[name][0] for name in plain.given})


def _check_known(owner: str, method: str, given: dict[str, Any]) -> None:
    unknown = parameters_of(owner, method).keys() - given.keys()
    if unknown:
        raise UnknownParameterError(f"{owner}.{method}: enter {sorted(unknown)} in surface.py")


def takers_of_tenants() -> set[str]:
    """Return the classes that a program can use and that take a tenant, or what names one."""
    modules = [info.name for info in pkgutil.walk_packages(convostore.__path__, "convostore.") if _is_used(info.name)]
    return {
        name
        for module in map(importlib.import_module, modules)
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and cls.__module__ == module.__name__ and name[0] != "_" and _takes_a_tenant(cls)
    }


def _is_used(module: str) -> bool:
    return module.startswith(
        ("convostore.store", "convostore.tenant_store", "convostore.sync.", "convostore.operations.")
    ) or (module.startswith("convostore.repositories.") and module.endswith(("_repository", "user_sessions")))


def _takes_a_tenant(cls: type) -> bool:
    if cls.__module__ == "convostore.sync.events":  # values, all of them
        return False
    functions = [cls.__init__, *(value for _, value in inspect.getmembers(cls, inspect.isfunction))]
    parameters = [each for function in functions for each in inspect.signature(function).parameters.values()]
    return any(each.name == "tenant_id" or "TenantDatabase" in str(each.annotation) for each in parameters)
