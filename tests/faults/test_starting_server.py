"""P13, P15: a member that is just starting, and knows of no sessions yet, makes no error of the driver escape."""

import asyncio

import pytest
import pytest_asyncio
from fault_support import address_of
from public_writes import conversation, text
from pydantic import SecretStr

from convostore import ConnectionError as OurConnectionError
from convostore import ConvoStore, Outcome
from convostore.testing.mongo_proxy import MongoProxy


class StartingProxy(MongoProxy):
    """Lets a server look as it does before it has found its replica set."""

    starting = False

    def told(self, name, answer):  # noqa: ARG002
        return (
            answer.replace(b"logicalSessionTimeoutMinutes", b"logicalSessionTimeoutUnknown")
            if self.starting
            else answer
        )

    def start(self, starting):
        self.starting = starting
        self.cut_connections()


@pytest_asyncio.fixture
async def starting(convostore_servers):
    async with StartingProxy(*address_of(convostore_servers.mongodb_uri)) as proxy:
        yield proxy


async def test_calls_say_that_nothing_was_applied_and_work_afterwards(store, starting, convostore_settings):
    settings = convostore_settings.evolve(mongodb_uri=SecretStr(starting.uri), deadline=5)
    async with ConvoStore.open(settings) as proxied:
        acme = proxied.tenant("acme")
        cid = await conversation(acme)

        async def append_two(_):
            await acme.messages.append(cid, text("one"))
            await acme.messages.append(cid, text("two"))

        starting.start(True)
        for call in (lambda: acme.messages.append(cid, text("one")), lambda: proxied.in_transaction(append_two)):
            with pytest.raises(OurConnectionError) as caught:
                await call()
            assert caught.value.outcome is Outcome.NOT_APPLIED
        starting.start(False)
        await proxied.in_transaction(append_two)
        assert [message.content for message in (await acme.messages.history(cid)).items] == ["one", "two"]


async def test_a_unit_of_work_that_cannot_be_aborted_raises_its_own_error(store, starting, convostore_settings):
    async with ConvoStore.open(convostore_settings.evolve(mongodb_uri=SecretStr(starting.uri))) as proxied:
        acme = proxied.tenant("acme")
        cid = await conversation(acme)
        asyncio.get_running_loop().call_later(0.7, starting.start, False)

        async def fail(_):
            await acme.messages.append(cid, text("one"))
            starting.start(True)
            raise LookupError

        with pytest.raises(LookupError):
            await proxied.in_transaction(fail)
        await acme.messages.append(cid, text("after"))
        assert [message.content for message in (await acme.messages.history(cid)).items] == ["after"]
