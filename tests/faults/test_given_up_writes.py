"""P17: a write that its caller has given up while the server is at it holds up nobody else."""

import asyncio

import pytest
from public_writes import conversation, text

from convostore import ConversationDocument


async def test_a_write_that_waits_for_a_unit_of_work_and_is_given_up_holds_up_no_other_call(store, acme, rival):
    cid = await conversation(acme)
    held, release = asyncio.Event(), asyncio.Event()

    async def hold():
        async with store.transaction():
            await acme.messages.append(cid, text("first"))
            held.set()
            await release.wait()

    holder = asyncio.create_task(hold())
    await held.wait()
    for number in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await acme.messages.append(cid, text("late"))
        async with asyncio.timeout(3):
            await rival.conversations.create(ConversationDocument.start("u", conversation_id=f"c{number}"))
    release.set()
    await holder
