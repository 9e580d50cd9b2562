"""Whatever a method is given, it ends in a value or in one error of ours, and what was refused has changed nothing."""

import asyncio
import os
import reprlib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hostile_support import answer, stored_for
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from junk import HalfwayError, junk, nested
from surface import PLAIN, VERSIONED, Call, Names, all_methods, object_of, parameters_of, plain_call, planted

from convostore import (
    ConversationDocument,
    ConvoStore,
    Effect,
    MessageDocument,
    MongoSettings,
    Outbox,
    RedisSettings,
    RepositoryError,
    ValidationError,
)

SCALE = float(os.environ.get("CONVOSTORE_TEST_SCALE", "1"))
CASES = max(5, round(15 * SCALE))
ABSENT = object()
METHODS = [each for each in all_methods() if each[0] != "tenant"]  # a cursor: see the tests of the change feed


class Fuzz:
    """Calls methods with junk in the place of one argument or several, and keeps what is not as it should be."""

    def __init__(self, store: ConvoStore) -> None:
        self.store = store
        self.cases: Counter[str] = Counter()
        self.refused: list[tuple[Call, Names]] = []
        self.findings: dict[str, str] = {}

    async def names(self) -> Names:
        """Plant something for a tenant of its own."""
        return await planted(self.store, f"fuzz-{uuid.uuid4().hex[:10]}")

    async def make(self, call: Call, names: Names) -> None:
        """Make a call and judge its end."""
        self.cases[f"{call.owner}.{call.method}"] += 1
        try:
            async with asyncio.timeout(20):
                await answer(call, object_of(self.store, call.owner, names.tenant_id))
        except ValidationError as error:
            self._judge_refusal(call, error)
            self.refused.append((call, names))
        except (RepositoryError, HalfwayError):
            pass
        except BaseException as error:  # noqa: BLE001 - that is what is looked for
            if any(callable(call.given.get(name)) for name in ("change", "load", "count_tokens")):
                return  # the error of the caller's own function
            self._note(call, f"{type(error).__name__}: {str(error)[:200]}", error)

    def _judge_refusal(self, call: Call, error: ValidationError) -> None:
        if error.field is None or len(str(error)) > 1000 or len(error.field) > 300:
            self._note(call, f"a refusal that is not clear: {str(error)[:200]!r} {str(error.field)[:50]!r}", error)

    def _note(self, call: Call, what: str, error: BaseException) -> None:
        where = error.__traceback__
        while where is not None and where.tb_next is not None:
            where = where.tb_next
        place = f"{where.tb_frame.f_code.co_filename.rpartition('/')[2]}:{where.tb_lineno}" if where else ""
        given = {name: reprlib.repr(value) for name, value in call.given.items()}
        self.findings.setdefault(f"{call.owner}.{call.method} {type(error).__name__} {place}", f"{given}: {what}")

    async def again(self) -> None:
        """Make all calls that were refused once more, and make sure that they change nothing."""
        for owner_and_method in {(call.owner, call.method) for call, _ in self.refused}:
            calls = [each for each in self.refused if (each[0].owner, each[0].method) == owner_and_method]
            names = await self.names()
            before = await stored_for(self.store, names.tenant_id)
            for call, old in calls:
                own = plain_call(call.owner, call.method, names)
                own_before = plain_call(call.owner, call.method, old)
                kept = {
                    name: value for name, value in call.given.items() if value is not own_before.given.get(name, ABSENT)
                }
                bad = Call(call.owner, call.method, {**own.given, **kept})
                if await self._is_accepted(bad, names.tenant_id):
                    before = await stored_for(self.store, names.tenant_id)
            if await stored_for(self.store, names.tenant_id) != before:
                self.findings[f"{owner_and_method}"] = "something that was refused has changed something"

    async def _is_accepted(self, call: Call, tenant_id: str) -> bool:
        """Make a call again that was refused; what was an iterator is now used up, and may be accepted."""
        try:
            await answer(call, object_of(self.store, call.owner, tenant_id))
        except Exception:  # noqa: BLE001 - was judged the first time
            return False
        if not any(isinstance(value, Iterator) for value in call.given.values()):
            self.findings[f"{call}, again"] = f"{reprlib.repr(call.given)}: was refused the first time"
        return True


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def opened(
    runner: asyncio.Runner, convostore_settings: MongoSettings, convostore_redis_settings: RedisSettings
) -> Iterator[ConvoStore]:
    store = ConvoStore.open(convostore_settings, convostore_redis_settings)
    try:
        yield runner.run(store.__aenter__())
    finally:
        runner.run(store.__aexit__(None, None, None))


def drawn(cases: int, *strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Call a function with drawn values: as often as asked, the same ones in each run unless more are wanted."""
    how = settings(
        max_examples=cases,
        derandomize=SCALE <= 1,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    return lambda function: how(given(*strategies)(function))


def fuzz_one(fuzz: Fuzz, runner: asyncio.Runner, owner: str, method: str) -> None:
    """Call a method with junk."""
    names = runner.run(fuzz.names())
    plain = plain_call(owner, method, names)

    parameters = st.sampled_from(sorted(parameters_of(owner, method)))

    @drawn(CASES, st.lists(st.tuples(parameters, junk), min_size=1, max_size=2))
    def go(changes: list[tuple[str, Any]]) -> None:
        call = plain
        for name, value in changes:
            call = call.having(name, _fitting(owner, method, name, value))
        runner.run(fuzz.make(call, names))

    go()


def test_every_method_ends_in_a_value_or_in_an_error_of_ours(
    opened: ConvoStore, runner: asyncio.Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    fuzz = Fuzz(opened)
    for owner, method in METHODS:
        fuzz_one(fuzz, runner, owner, method)
    runner.run(fuzz.again())
    with capsys.disabled():
        least, most = min(fuzz.cases.values()), max(fuzz.cases.values())
        print(f"\n{len(fuzz.cases)} methods, {least} to {most} cases each, {fuzz.cases.total()} in all")
        print(f"{len(fuzz.refused)} refused")
    assert not fuzz.findings, "\n".join(f"{where} {what}" for where, what in fuzz.findings.items())


def _fitting(owner: str, method: str, name: str, value: Any) -> Any:
    """Return a value as Python takes it in the place of ``*name`` or ``**name``."""
    kind = parameters_of(owner, method)[name].kind
    if kind is kind.VAR_KEYWORD:
        return {"content": value} if not isinstance(value, dict) else {f"x{key}": value[key] for key in value}
    return [value] if kind is kind.VAR_POSITIONAL else value


DEEP = nested(5000)
FOUND: dict[str, tuple[str, Callable[[ConvoStore, Any], Any], list[Any]]] = {
    "a change of a conversation": (
        "change",
        lambda store, bad: acme(store).conversations.update_with("c", bad),
        [0, None],
    ),
    "a change of a message": (
        "change",
        lambda store, bad: acme(store).messages.update_with("c:0000000001", bad),
        [0, "x"],
    ),
    "keys of the cache": ("keys", lambda store, bad: store.cache.get_many("acme", PLAIN, bad), [0, None, "abc"]),
    "a key of the cache": ("key", lambda store, bad: store.cache.invalidate("acme", VERSIONED, bad, 1), [[], {}]),
    "one of the keys": ("key", lambda store, bad: store.cache.get_many("acme", PLAIN, [bad]), [[], {}, None]),
    "versions": ("versions", lambda store, bad: store.cache.invalidate_many("acme", VERSIONED, bad), [0, "", ["a"]]),
    "effects": ("effects", lambda store, bad: Outbox(store.mongodb).add("acme", bad, user_id="u"), [0, "x", [5], {}]),
    "conversations": (
        "conversation_ids",
        lambda store, bad: Outbox(store.mongodb).add("acme", [Effect.FORGET], conversation_ids=bad),
        [5, "x", {"a": 1}],
    ),
    "a user": (
        "user_id",
        lambda store, bad: Outbox(store.mongodb).add("acme", [Effect.FORGET], user_id=bad, conversation_ids=["c"]),
        [{"$ne": 1}, 0, None],
    ),
    "a count": (
        "count_tokens",
        lambda store, bad: acme(store).messages.window("c", max_tokens=5, count_tokens=bad),
        [5, ""],
    ),
    "a load": ("load", lambda store, bad: store.cache.get_or_load("acme", PLAIN, "k", bad), [None, 5]),
    "a status": ("status", lambda store, bad: acme(store).conversations.update_conversation_status("c", bad), [DEEP]),
    "a delivery": ("status", lambda store, bad: acme(store).messages.update_delivery_status("c", 1, bad), [DEEP]),
    "a name in a filter": (
        "x" * 100 + "…",
        lambda store, _: acme(store).messages.list({"conversation_id": "c", "x" * 2_000_000: 1}),
        [None],
    ),
    "an edit of nothing": ("changes", lambda store, bad: acme(store).messages.edit("c", 1, bad), [1]),
    "another tenant": (
        "tenant_id",
        lambda store, bad: acme(store).conversations.get_conversations_by_tenant(bad),
        [{"$ne": 1}, "x" * 999, 5],
    ),
}


def acme(store: ConvoStore) -> Any:
    """Return a tenant."""
    return store.tenant("acme")


@pytest.mark.parametrize("what", FOUND)
async def test_what_was_found_is_refused_by_name(store: ConvoStore, what: str) -> None:
    field, call, values = FOUND[what]
    for value in values:
        with pytest.raises(ValidationError) as refusal:
            await call(store, value)
        assert refusal.value.field == field
        assert len(str(refusal.value)) < 200


class Unhashable(str):
    """A text as some libraries have it."""

    __slots__ = ()

    __hash__ = None  # type: ignore[assignment]


async def test_a_text_of_another_class_is_taken_for_what_it_says(store: ConvoStore) -> None:
    tenant, cid, key = map(Unhashable, ("acme", "c", "k"))
    await store.cache.set(tenant, PLAIN, key, "value")
    found = await store.cache.get("acme", PLAIN, "k")
    assert found is not None
    assert found.value == "value"
    await store.tenant(tenant).conversations.create(ConversationDocument.start("u", conversation_id=cid))
    await store.tenant(tenant).messages.append(cid, MessageDocument.user("hello"), idempotency_key=key)
    await store.tenant(tenant).messages.edit(cid, 1, content="edited")
    assert [message.content for message in await store.tenant(tenant).messages.window(cid, max_messages=5)] == [
        "edited"
    ]
    await store.cache.invalidate_tag(tenant, Unhashable("tag"))
