"""P1, P2, P3, P15: a batch whose connection is lost tells each of its callers the truth."""

import asyncio
from collections import Counter

import pytest
from fault_support import FORGOTTEN_SOCKETS
from public_writes import text

from convostore import ConversationDocument, Outcome, RepositoryError
from convostore.testing.mongo_proxy import Fault

pytestmark = FORGOTTEN_SOCKETS
CALLERS = 40
CUTS = [Fault.CUT_BEFORE, Fault.CUT_AFTER]


async def _settled(calls):
    """Return what the calls answer; only our own errors count as answers."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [answer for answer in answers if isinstance(answer, BaseException)] == [
        answer for answer in answers if isinstance(answer, RepositoryError)
    ]
    return answers


def _check(answers, applied):
    """Compare what each was told with how often his write is there."""
    for place, answer in enumerate(answers):
        if not isinstance(answer, RepositoryError):
            assert applied[place] == 1, f"{place} was told that it is there"
        elif answer.outcome is Outcome.NOT_APPLIED:
            assert applied[place] == 0, f"{place} was told that it is not there"
        else:
            assert applied[place] <= 1, f"{place} is there twice"


def _lost(command, fault, times):
    """Return a rule under which the first so many commands of a name are lost."""
    left = [times]

    def rule(name):
        if name != command or not left[0]:
            return None
        left[0] -= 1
        return fault

    return rule


@pytest.mark.parametrize("times", [1, 2, 3, 20])
@pytest.mark.parametrize("fault", CUTS)
@pytest.mark.parametrize("talks", [1, 10])
async def test_appends(proxied, proxy, truth, fault, times, talks):
    acme = proxied.tenant("acme")
    cids = [f"c-{n}" for n in range(talks)]
    for cid in cids:
        await acme.conversations.create(ConversationDocument.start("u", conversation_id=cid))
        await acme.messages.append(cid, text("first"))
    await proxied.mongodb.activity.flush()
    proxy.rule = _lost("insert", fault, times)
    answers = await _settled(acme.messages.append(cids[n % talks], text(f"{n}")) for n in range(CALLERS))
    proxy.heal()
    stored = Counter([slot["content"] for cid in cids for slot in await truth.log(cid)])
    _check(answers, {place: stored[f"{place}"] for place in range(CALLERS)})
    if times < 3:  # the driver tries again, then the log looks, and tries again by itself
        assert [answer for answer in answers if isinstance(answer, RepositoryError)] == []
    await asyncio.gather(*(acme.messages.append(cid, text("last")) for cid in cids))
    assert {(await truth.log(cid))[-1]["content"] for cid in cids} == {"last"}


@pytest.mark.parametrize("fault", CUTS)
async def test_keyed_appends(proxied, proxy, truth, fault):
    acme = proxied.tenant("acme")
    await acme.conversations.create(ConversationDocument.start("u", conversation_id="c"))
    await acme.messages.append("c", text("first"))
    proxy.rule = _lost("insert", fault, 5)
    calls = [acme.messages.append("c", text(f"{n % 20}"), idempotency_key=f"k-{n % 20}") for n in range(CALLERS)]
    answers = await _settled(calls)
    proxy.heal()
    again = await asyncio.gather(
        *(acme.messages.append("c", text(f"{n}"), idempotency_key=f"k-{n}") for n in range(20))
    )
    stored = Counter(slot["content"] for slot in await truth.log("c"))
    assert stored == {"first": 1, **{f"{n}": 1 for n in range(20)}}
    for place, answer in enumerate(answers):
        if not isinstance(answer, RepositoryError):
            assert answer.sequence == again[place % 20].sequence


@pytest.mark.parametrize("times", [1, 2, 20])
@pytest.mark.parametrize("fault", CUTS)
async def test_new_conversations(proxied, proxy, truth, fault, times):
    acme = proxied.tenant("acme")
    await acme.conversations.exists("warm")
    proxy.rule = _lost("insert", fault, times)
    drafts = [ConversationDocument.start("u", conversation_id=f"c-{n}") for n in range(CALLERS)]
    answers = await _settled(acme.conversations.create(draft) for draft in drafts)
    proxy.heal()
    stored = [await truth.conversation(draft.id) for draft in drafts]
    _check(answers, {place: int(found is not None) for place, found in enumerate(stored)})
    if times == 1:
        assert [answer for answer in answers if isinstance(answer, RepositoryError)] == []


@pytest.mark.parametrize("times", [1, 2, 20])
@pytest.mark.parametrize("fault", CUTS)
async def test_updates(proxied, proxy, truth, fault, times):
    acme = proxied.tenant("acme")
    drafts = [ConversationDocument.start("u", conversation_id=f"c-{n}") for n in range(CALLERS)]
    talks = await asyncio.gather(*(acme.conversations.create(draft) for draft in drafts))
    await acme.conversations.update(talks[5].evolve(title="somebody else's"))
    proxy.rule = _lost("update", fault, times)
    answers = await _settled(acme.conversations.update(talk.evolve(title="mine")) for talk in talks)
    proxy.heal()
    stored = [await truth.conversation(talk.id) for talk in talks]
    assert len(stored) == CALLERS == await truth.database.conversations.count_documents({})
    _check(answers, {place: int(found.get("title") == "mine") for place, found in enumerate(stored)})
    assert isinstance(answers[5], RepositoryError)
    assert stored[5]["title"] == "somebody else's"
    if times == 1:
        assert [place for place, answer in enumerate(answers) if isinstance(answer, RepositoryError)] == [5]


async def test_reads_are_tried_again(proxied, proxy):
    acme = proxied.tenant("acme")
    drafts = [ConversationDocument.start("u", conversation_id=f"c-{n}") for n in range(CALLERS)]
    await asyncio.gather(*(acme.conversations.create(draft) for draft in drafts))
    proxy.rule = _lost("find", Fault.CUT_AFTER, 3)
    found = await asyncio.gather(*(acme.conversations.get_by_id(draft.id) for draft in drafts))
    assert [each and each.id for each in found] == [draft.id for draft in drafts]
