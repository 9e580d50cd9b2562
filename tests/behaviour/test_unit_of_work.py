"""The unit of work: all or nothing, in one task, hooks after the commit, and one clear error where there is none."""

import asyncio
import logging
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from observed import dump
from pydantic import SecretStr

from convostore import (
    ConversationDocument,
    ConversationStatus,
    ConvoStore,
    DuplicateEntityError,
    MessageDocument,
    MongoSettings,
    RepositoryError,
    TenantStore,
    TransactionAbortedError,
    TransactionConflictError,
    TransactionError,
    UnitOfWork,
    ValidationError,
)
from convostore.database.child_server import HOST, free_ports
from convostore.database.server_binaries import ServerBinaries
from convostore.gateways.server_probe import is_writable_primary


def conversation(name: str, **fields: Any) -> ConversationDocument:
    return ConversationDocument.start("user", conversation_id=name, **fields)


async def _write(tenant: TenantStore) -> None:
    await tenant.conversations.create(conversation("new"))
    await tenant.messages.append("new", MessageDocument.user("one"))
    await tenant.messages.append_many("new", [MessageDocument.user("two"), MessageDocument.user("three")])
    await tenant.messages.edit("new", 1, content="edited")
    await tenant.conversations.update_conversation_status("new", ConversationStatus.WAITING)


class ExpectedError(Exception):
    """Raised by the tests inside a unit of work."""


async def test_leaving_normally_makes_everything_happen_at_once(
    store: ConvoStore, acme: TenantStore, rival: TenantStore
) -> None:
    async with store.transaction():
        await _write(acme)
        await _write(rival)
        inside = await acme.conversations.get_by_id("new")
        outside = await asyncio.create_task(_outside(acme, "new"), context=_empty_context())
    assert inside is not None
    assert (inside.message_count, inside.status, outside) == (3, ConversationStatus.WAITING, None)
    for tenant in (acme, rival):
        found = await tenant.conversations.get_by_id("new")
        assert found == inside.model_copy(update={"tenant_id": tenant.tenant_id, **_moments(found)})
        history = await tenant.messages.history("new")
        assert [message.content for message in history.items] == ["edited", "two", "three"]


def _moments(found: ConversationDocument | None) -> dict[str, Any]:
    assert found is not None
    names = ("created_at", "started_at", "updated_at", "last_activity_at", "last_message")
    return {name: getattr(found, name) for name in names}


def _empty_context() -> Any:
    from contextvars import Context  # noqa: PLC0415

    return Context()


async def _outside(tenant: TenantStore, name: str) -> ConversationDocument | None:
    return await tenant.conversations.get_by_id(name)


async def test_leaving_by_an_error_makes_nothing_happen(store: ConvoStore, acme: TenantStore) -> None:
    await acme.conversations.create(conversation("old"))
    await acme.messages.append("old", MessageDocument.user("x"))
    before = await dump(store)
    with pytest.raises(ExpectedError):  # noqa: PT012
        async with store.transaction():
            await _write(acme)
            await acme.messages.append("old", MessageDocument.user("y"))
            await acme.conversations.delete("old")
            raise ExpectedError
    assert await dump(store) == before
    assert (await acme.messages.append("old", MessageDocument.user("y"))).sequence == 2


async def test_a_conversation_deleted_in_a_unit_is_gone_with_it(store: ConvoStore, acme: TenantStore) -> None:
    await acme.conversations.create(conversation("old"))
    await acme.messages.append("old", MessageDocument.user("x"))
    async with store.transaction():
        assert await acme.conversations.delete("old")
    stored = await dump(store)
    assert [slot.get("kind") for slot in stored["messages"]] == ["blank", "seal"]
    with pytest.raises(RepositoryError):
        await acme.messages.append("old", MessageDocument.user("late"))


async def test_hooks_run_in_order_after_the_commit_and_never_after_a_rollback(
    store: ConvoStore, acme: TenantStore, caplog: pytest.LogCaptureFixture
) -> None:
    ran: list[Any] = []

    async def found() -> None:
        ran.append(await asyncio.create_task(_outside(acme, "new"), context=_empty_context()) is not None)

    def fail() -> None:
        ran.append("failed")
        raise ExpectedError

    with caplog.at_level(logging.WARNING, "convostore"):
        async with store.transaction() as unit:
            for hook in (lambda: ran.append("first"), fail, found, lambda: ran.append("last")):
                unit.after_commit(hook)
            await _write(acme)
            assert ran == []
    assert ran == ["first", "failed", True, "last"]
    assert unit.failed_hooks == 1
    assert [record.getMessage() for record in caplog.records] == ["after-commit hook failed"]
    ran.clear()
    with pytest.raises(ExpectedError):  # noqa: PT012
        async with store.transaction() as unit:
            unit.after_commit(lambda: ran.append("never"))
            await acme.messages.append("new", MessageDocument.user("x"))
            raise ExpectedError
    assert ran == []


async def test_units_cannot_be_nested_nor_used_twice(store: ConvoStore, acme: TenantStore) -> None:
    async with store.transaction() as unit:
        await acme.conversations.create(conversation("c"))
        with pytest.raises(TransactionError, match="nested"):
            async with store.transaction():
                pytest.fail("entered")
    assert await acme.conversations.exists("c")
    with pytest.raises(TransactionError, match="once"):
        async with unit:
            pytest.fail("entered")


async def test_a_child_task_is_refused(store: ConvoStore, acme: TenantStore) -> None:
    async with store.transaction():
        await acme.conversations.create(conversation("c"))
        for call in (
            acme.conversations.create(conversation("of a child")),
            acme.messages.append("c", MessageDocument.user("of a child")),
            acme.conversations.get_by_id("c"),
        ):
            with pytest.raises(TransactionError, match="belongs to the task"):
                await asyncio.create_task(call)
    stored = await dump(store)
    assert [found["_id"] for found in stored["conversations"]] == ["acme:c"]
    assert stored["messages"] == []


async def test_a_late_child_does_not_write_outside_of_the_unit(store: ConvoStore, acme: TenantStore) -> None:
    left = asyncio.Event()

    async def late() -> None:
        await left.wait()
        await acme.conversations.create(conversation("late"))

    async with store.transaction():
        await acme.conversations.create(conversation("c"))
        task = asyncio.create_task(late())
    left.set()
    with pytest.raises(TransactionError):
        await task
    assert not await acme.conversations.exists("late")


async def test_after_a_swallowed_error_the_unit_refuses_everything_and_nothing_happens(
    store: ConvoStore, acme: TenantStore
) -> None:
    await acme.conversations.create(conversation("c"))
    before = await dump(store)
    ran: list[str] = []
    with pytest.raises(TransactionAbortedError) as failure:  # noqa: PT012
        async with store.transaction() as unit:
            unit.after_commit(lambda: ran.append("never"))
            await acme.conversations.create(conversation("other"))
            with pytest.raises(DuplicateEntityError):
                await acme.conversations.create(conversation("c"))
            with pytest.raises(TransactionAbortedError):
                await acme.conversations.create(conversation("another"))
            with pytest.raises(TransactionAbortedError):
                await acme.conversations.get_by_id("c")
    assert isinstance(failure.value.__cause__, DuplicateEntityError)
    assert await dump(store) == before
    assert ran == []


async def test_bad_input_inside_a_unit_does_not_spoil_it(store: ConvoStore, acme: TenantStore) -> None:
    async with store.transaction():
        await acme.conversations.create(conversation("c"))
        with pytest.raises(ValidationError):
            await acme.messages.append("c", None)  # type: ignore[arg-type]
        await acme.messages.append("c", MessageDocument.user("x"))
    assert await acme.messages.count({"conversation_id": "c"}) == 1


async def test_of_two_units_that_meet_one_is_refused_as_retryable(store: ConvoStore, acme: TenantStore) -> None:
    await acme.conversations.create(conversation("c"))
    met = asyncio.Barrier(2)

    async def unit(title: str) -> str:
        async with store.transaction():
            found = await acme.conversations.get_by_id("c")
            assert found is not None
            await met.wait()
            await acme.conversations.update(found.evolve(title=title))
        return title

    answers = await asyncio.gather(unit("a"), unit("b"), return_exceptions=True)
    [refused] = [answer for answer in answers if isinstance(answer, BaseException)]
    assert isinstance(refused, TransactionConflictError)
    assert refused.retryable
    found = await acme.conversations.get_by_id("c")
    assert found is not None
    assert found.title in answers


async def test_units_that_meet_are_run_again_until_all_have_happened(store: ConvoStore, acme: TenantStore) -> None:
    await acme.conversations.create(conversation("c", metadata={"number": 0}))
    runs = 0

    async def work(_: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        found = await acme.conversations.get_by_id("c")
        assert found is not None
        await acme.conversations.update(found.evolve(metadata={"number": found.metadata["number"] + 1}))
        await acme.messages.append("c", MessageDocument.user("x"))

    await asyncio.gather(*(store.in_transaction(work) for _ in range(8)))
    found = await acme.conversations.get_by_id("c")
    assert found is not None
    assert (found.metadata, found.message_count, found.version) == ({"number": 8}, 8, 9)
    assert [m.sequence for m in (await acme.messages.history("c")).items] == list(range(1, 9))
    assert runs > 8, "some of them have met"


async def test_an_append_outside_and_one_inside_a_unit_both_get_their_place(
    store: ConvoStore, acme: TenantStore
) -> None:
    await acme.conversations.create(conversation("c"))

    async def inside(_: UnitOfWork) -> int:
        return (await acme.messages.append("c", MessageDocument.user("inside"))).sequence

    async def outside() -> int:
        return (await acme.messages.append("c", MessageDocument.user("outside"))).sequence

    answers = await asyncio.gather(*(store.in_transaction(inside) if n % 2 else outside() for n in range(12)))
    assert sorted(answers) == list(range(1, 13))


async def test_a_key_used_in_a_unit_is_found_there_again(store: ConvoStore, acme: TenantStore) -> None:
    await acme.conversations.create(conversation("c"))
    for _ in range(2):
        async with store.transaction():
            for _ in range(2):
                stored = await acme.messages.append("c", MessageDocument.user("x"), idempotency_key="k")
                assert stored.sequence == 1
    assert await acme.messages.count({"conversation_id": "c"}) == 1


async def test_work_joins_the_unit_that_is_open(store: ConvoStore, acme: TenantStore) -> None:
    joined: list[UnitOfWork] = []

    async def inner(unit: UnitOfWork) -> str:
        joined.append(unit)
        await acme.conversations.create(conversation("inner"))
        return "result"

    with pytest.raises(ExpectedError):  # noqa: PT012
        async with store.transaction() as unit:
            assert await store.in_transaction(inner) == "result"
            raise ExpectedError
    assert joined == [unit]
    assert not await acme.conversations.exists("inner")
    assert await store.in_transaction(inner) == "result"
    assert await acme.conversations.exists("inner")


async def test_an_error_of_the_work_is_not_tried_again(store: ConvoStore, acme: TenantStore) -> None:
    runs = 0

    async def work(_: UnitOfWork) -> None:
        nonlocal runs
        runs += 1
        await acme.conversations.create(conversation("c"))
        raise ExpectedError

    with pytest.raises(ExpectedError):
        await store.in_transaction(work)
    assert runs == 1
    assert not await acme.conversations.exists("c")


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[str]:
    """The address of a mongod without a replica set."""
    [port] = free_ports(1)
    command = [str(ServerBinaries.find().mongod), "--dbpath", str(tmp_path), "--bind_ip", HOST, "--port", str(port)]
    with subprocess.Popen([*command, "--nounixsocket"], stdout=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 30
            while not is_writable_primary(HOST, port):
                assert server.poll() is None
                assert time.monotonic() < deadline
            yield f"mongodb://{HOST}:{port}/"
        finally:
            server.kill()


async def test_without_a_replica_set_a_unit_is_refused_with_one_clear_error_and_writes_nothing(alone: str) -> None:
    async with ConvoStore.open(MongoSettings(mongodb_uri=SecretStr(alone), database_name="alone")) as store:
        acme = store.tenant("acme")
        await acme.conversations.create(conversation("c"))
        await acme.messages.append("c", MessageDocument.user("x"))
        before = await dump(store)

        async def work(_: UnitOfWork) -> None:
            await _write(acme)

        with pytest.raises(TransactionError, match="replica set") as first:
            await store.in_transaction(work)
        with pytest.raises(TransactionError, match="replica set") as second:
            async with store.transaction():
                await acme.messages.append("c", MessageDocument.user("y"))
        assert not first.value.retryable
        assert not second.value.retryable
        assert await dump(store) == before
        assert (await acme.messages.append("c", MessageDocument.user("y"))).sequence == 2
