"""P5, P13, P15: what the server itself can answer, and what becomes of it: error class, outcome, and the database."""

import asyncio
import time

import pytest
from fault_support import FORGOTTEN_SOCKETS
from public_writes import conversation, text, with_messages

from convostore import (
    ConversationDocument,
    ConversationStatus,
    ConvoStore,
    DeadlineExceededError,
    DuplicateEntityError,
    Outcome,
    RepositoryError,
    TransactionAbortedError,
    TransactionConflictError,
)

pytestmark = FORGOTTEN_SOCKETS
NOT_WRITABLE_PRIMARY, SHUTTING_DOWN, WRITE_CONFLICT, LOCK_TIMEOUT = 10107, 11600, 112, 24
UNAUTHORIZED, WRITE_CONCERN_FAILED, NO_SUCH_TRANSACTION, MAX_TIME = 13, 64, 251, 50
ALWAYS = "alwaysOn"


@pytest.fixture
async def failing(truth, convostore_settings):
    """A store that only it has fail points, and a function that sets one."""
    name = "fault-tests"

    async def set_fail_point(commands, times=1, **data):
        mode = times if times == ALWAYS else {"times": times}
        data = {"failCommands": commands, "appName": name, **data}
        await truth.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)

    async with ConvoStore.open(convostore_settings.evolve(app_name=name, deadline=8.0)) as store:
        store.set_fail_point = set_fail_point
        yield store
        await truth.admin.command("configureFailPoint", "failCommand", mode="off")
        await store.mongodb.activity.flush()


@pytest.fixture
async def cid(acme, store):
    cid = await with_messages(acme)
    await store.mongodb.activity.flush()
    return cid


async def _settled(failing, truth, cid, *, commit_was_faked=False):
    await truth.admin.command("configureFailPoint", "failCommand", mode="off")
    if commit_was_faked:  # the server said that there was no transaction, and there is
        await truth.admin.command("killAllSessions", [])
    assert await truth.open_transactions() == 0
    tenant = failing.tenant("acme")
    await tenant.messages.append(cid, text("after"))
    contents = await truth.contents(cid)
    assert contents.count("after") == 1
    return contents


PASSING = [
    {"errorCode": NOT_WRITABLE_PRIMARY, "errorLabels": ["RetryableWriteError"]},
    {"errorCode": SHUTTING_DOWN, "errorLabels": ["RetryableWriteError"]},
    {"closeConnection": True},
]


@pytest.mark.parametrize("data", PASSING, ids=str)
@pytest.mark.parametrize("times", [1, 2])
async def test_an_append_outlives_what_passes(failing, truth, cid, data, times):
    await failing.set_fail_point(["insert"], times, **data)
    sent = await failing.tenant("acme").messages.append(cid, text("the one"))
    assert sent.sequence == 4
    assert (await _settled(failing, truth, cid)).count("the one") == 1


@pytest.mark.parametrize("data", PASSING, ids=str)
@pytest.mark.parametrize("times", [1, 2])
async def test_a_read_outlives_what_passes(failing, cid, data, times):
    await failing.set_fail_point(["find"], times, **data)
    assert len((await failing.tenant("acme").messages.history(cid)).items) == 3


@pytest.mark.parametrize("code", [6, 7, 89, 134, 9001])
async def test_a_read_is_tried_again_after_every_code_that_the_driver_retries(failing, cid, code):
    await failing.set_fail_point(["find"], 1, errorCode=code)
    assert len((await failing.tenant("acme").messages.history(cid)).items) == 3


@pytest.mark.parametrize("data", PASSING, ids=str)
async def test_an_update_outlives_one_fault_and_reports_a_lasting_one(failing, truth, cid, data):
    conversations = failing.tenant("acme").conversations
    await failing.set_fail_point(["update"], 1, **data)
    assert await conversations.update_conversation_status(cid, ConversationStatus.WAITING)
    await failing.set_fail_point(["update"], ALWAYS, **data)
    with pytest.raises(RepositoryError) as caught:
        await conversations.update_conversation_status(cid, ConversationStatus.ARCHIVED)
    assert caught.value.retryable
    assert caught.value.outcome is Outcome.UNKNOWN
    assert (await truth.conversation(cid))["status"] == "waiting"


@pytest.mark.parametrize("code", [LOCK_TIMEOUT, UNAUTHORIZED])
async def test_a_refused_write_was_not_applied_and_says_so(failing, truth, cid, code):
    await failing.set_fail_point(["insert"], ALWAYS, errorCode=code)
    with pytest.raises(RepositoryError) as caught:
        await failing.tenant("acme").messages.append(cid, text("the one"))
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert "the one" not in await _settled(failing, truth, cid)


@pytest.mark.parametrize("labels", [[], ["RetryableWriteError"]], ids=str)
@pytest.mark.parametrize("times", [1, ALWAYS])
async def test_a_write_whose_durability_is_unknown_never_claims_that_it_was_not_applied(
    failing, truth, cid, labels, times
):
    concern = {"code": WRITE_CONCERN_FAILED, "errmsg": "waiting for replication timed out"}
    await failing.set_fail_point(["insert", "update"], times, writeConcernError=concern, errorLabels=labels)
    acme = failing.tenant("acme")
    calls = (
        acme.messages.append(cid, text("the one")),
        acme.messages.append_many(cid, [text("batch")] * 3),
        acme.conversations.create(ConversationDocument.start(user_id="u", conversation_id="new")),
        acme.conversations.update_conversation_status(cid, ConversationStatus.WAITING),
    )
    for call in calls:
        try:
            await call
        except RepositoryError as error:
            assert error.outcome is Outcome.UNKNOWN, repr(error)  # noqa: PT017 - an answer is as good
    contents = await _settled(failing, truth, cid)
    assert contents.count("the one") == 1
    assert contents.count("batch") == 3


@pytest.mark.parametrize("command", ["find", "insert", "update", "commitTransaction"])
async def test_a_call_ends_by_its_deadline_and_says_whether_it_may_have_happened(failing, truth, cid, command):
    acme = failing.tenant("acme")
    failing.mongodb.deadline = 1.0
    await failing.set_fail_point([command], ALWAYS, blockConnection=True, blockTimeMS=2500)
    started = time.monotonic()
    with pytest.raises(DeadlineExceededError) as caught:
        async with asyncio.timeout(30):
            await _call(failing, acme, cid, command)
    assert time.monotonic() - started < 2 * 1.0 + 1, "one deadline for the commit, one to end the session"
    assert caught.value.outcome is (Outcome.NOT_APPLIED if command == "find" else Outcome.UNKNOWN)
    await truth.admin.command("configureFailPoint", "failCommand", mode="off")
    await _until_writable(failing, cid)
    assert (await truth.contents(cid)).count("the one") <= 1


async def _until_writable(store, cid):
    async with asyncio.timeout(10):
        await store.tenant("acme").conversations.update_conversation_status(cid, ConversationStatus.ARCHIVED)


async def _call(store, acme, cid, command):
    if command == "find":
        return await acme.messages.history(cid)
    if command == "insert":
        return await acme.messages.append(cid, text("the one"))
    if command == "update":
        return await acme.conversations.update_conversation_status(cid, ConversationStatus.WAITING)
    async with store.transaction():
        return await acme.messages.append(cid, text("the one"))


# units of work

TRANSIENT = [
    ("insert", {"errorCode": WRITE_CONFLICT, "errorLabels": ["TransientTransactionError"]}),
    ("insert", {"errorCode": NO_SUCH_TRANSACTION, "errorLabels": ["TransientTransactionError"]}),
    ("insert", {"closeConnection": True}),
    ("update", {"errorCode": LOCK_TIMEOUT, "errorLabels": ["TransientTransactionError"]}),
    ("find", {"errorCode": NOT_WRITABLE_PRIMARY, "errorLabels": ["TransientTransactionError"]}),
    ("commitTransaction", {"errorCode": NO_SUCH_TRANSACTION, "errorLabels": ["TransientTransactionError"]}),
]


def _unit(acme, cid, runs):
    async def work(unit):
        runs.append(unit)
        unit.after_commit(lambda: runs.append("committed"))
        await acme.messages.append(cid, text("the one"))
        await acme.conversations.update_conversation_status(cid, ConversationStatus.WAITING)

    return work


@pytest.mark.parametrize(("command", "data"), TRANSIENT[:-1], ids=str)
async def test_a_unit_run_again_happens_once(failing, truth, cid, command, data):
    runs = []
    await failing.set_fail_point([command], 1, **data)
    await failing.in_transaction(_unit(failing.tenant("acme"), cid, runs))
    assert runs.count("committed") == 1
    assert len(runs) == 3, "one fault, two runs, one commit"
    assert (await _settled(failing, truth, cid)).count("the one") == 1
    assert (await truth.conversation(cid))["status"] == "waiting"


@pytest.mark.parametrize(("command", "data"), TRANSIENT, ids=str)
async def test_a_single_attempt_tells_of_a_conflict_and_applies_nothing(failing, truth, cid, command, data):
    runs = []
    await failing.set_fail_point([command], 1, **data)
    with pytest.raises(TransactionConflictError) as caught:
        async with failing.transaction() as unit:
            await _unit(failing.tenant("acme"), cid, runs)(unit)
    assert caught.value.retryable
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert ("was lost" in str(caught.value)) is ("closeConnection" in data or data["errorCode"] == NOT_WRITABLE_PRIMARY)
    assert "committed" not in runs
    assert "the one" not in await _settled(failing, truth, cid, commit_was_faked=command == "commitTransaction")


async def test_of_a_batch_whose_durability_is_unknown_nobody_is_told_that_his_write_is_there(failing, truth):
    acme = failing.tenant("acme")
    drafts = [ConversationDocument.start(user_id="u", conversation_id=f"c-{n}") for n in range(30)]
    talks = await asyncio.gather(*(acme.conversations.create(draft) for draft in drafts))
    concern = {"code": WRITE_CONCERN_FAILED, "errmsg": "waiting for replication timed out"}
    await failing.set_fail_point(["insert", "update"], ALWAYS, writeConcernError=concern)
    new = [draft.evolve(conversation_id=f"{draft.id}-new") for draft in drafts]
    for calls in (
        [acme.conversations.create(draft) for draft in [*new, drafts[3]]],
        [acme.conversations.update(talk.evolve(title="mine")) for talk in talks],
    ):
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(answer, RepositoryError)
            assert answer.outcome is Outcome.UNKNOWN, repr(answer)
    await truth.admin.command("configureFailPoint", "failCommand", mode="off")
    assert len([draft for draft in new if await truth.conversation(draft.id)]) == 30


@pytest.mark.parametrize(
    "data",
    [
        {"errorCode": SHUTTING_DOWN, "errorLabels": ["UnknownTransactionCommitResult", "RetryableWriteError"]},
        {"errorCode": MAX_TIME, "errorLabels": ["UnknownTransactionCommitResult"]},
        {"closeConnection": True},
        {"writeConcernError": {"code": WRITE_CONCERN_FAILED, "errmsg": "waiting for replication timed out"}},
    ],
    ids=str,
)
async def test_an_unknown_commit_is_sent_again_until_it_is_known(failing, truth, cid, data):
    runs = []
    await failing.set_fail_point(["commitTransaction"], 3, **data)
    async with failing.transaction() as unit:
        await _unit(failing.tenant("acme"), cid, runs)(unit)
    assert runs[-1] == "committed"
    assert (await _settled(failing, truth, cid)).count("the one") == 1


async def test_a_commit_that_stays_unknown_says_so(failing, truth, cid):
    data = {"errorCode": MAX_TIME, "errorLabels": ["UnknownTransactionCommitResult"]}
    await failing.set_fail_point(["commitTransaction"], ALWAYS, **data)
    failing.mongodb.deadline = 1.0
    with pytest.raises(DeadlineExceededError) as caught:
        async with failing.transaction() as unit:
            await _unit(failing.tenant("acme"), cid, [])(unit)
    assert caught.value.outcome is Outcome.UNKNOWN
    failing.mongodb.deadline = 8.0
    await _settled(failing, truth, cid, commit_was_faked=True)


@pytest.mark.parametrize("retried", [False, True])
async def test_a_swallowed_duplicate_undoes_the_unit_and_is_not_run_again(failing, truth, cid, acme, retried):
    taken = await conversation(acme)
    runs, started = [], time.monotonic()

    async def work(_):
        runs.append(1)
        await failing.tenant("acme").messages.append(cid, text("the one"))
        try:
            fresh = ConversationDocument.start(user_id="u", conversation_id=taken)
            await failing.tenant("acme").conversations.create(fresh)
        except DuplicateEntityError:
            pass

    async def once():
        async with failing.transaction() as unit:
            await work(unit)

    with pytest.raises(TransactionAbortedError):
        await (failing.in_transaction(work) if retried else once())
    assert len(runs) == 1
    assert time.monotonic() - started < 2
    assert "the one" not in await _settled(failing, truth, cid)


async def test_an_operation_that_is_late_in_a_unit_has_not_happened(failing, truth, cid):
    failing.mongodb.deadline = 1.0
    await failing.set_fail_point(["insert"], ALWAYS, blockConnection=True, blockTimeMS=2500)
    with pytest.raises(RepositoryError) as caught:
        async with failing.transaction() as unit:
            await _unit(failing.tenant("acme"), cid, [])(unit)
    assert caught.value.outcome is Outcome.NOT_APPLIED, "the transaction was given up before any commit"
    failing.mongodb.deadline = 8.0
    assert "the one" not in await _settled(failing, truth, cid)
