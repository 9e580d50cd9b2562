"""P12: however callers are cancelled while the driver looks for a server, the client goes on afterwards."""

import asyncio

import pytest
from fault_support import FORGOTTEN_SOCKETS, address_of

pytestmark = FORGOTTEN_SOCKETS
CALLERS = 40
NOBODY = 1  # a port where nobody listens
MOST_STEPS = 6


@pytest.mark.parametrize("steps", range(MOST_STEPS))
async def test_a_client_whose_callers_were_cancelled_again_and_again_goes_on(proxied, proxy, convostore_servers, steps):
    """Its lock is not lost: else no call would ever end well again, and it could not be closed."""
    proxied.mongodb.deadline = 20
    proxy.lead_to("127.0.0.1", NOBODY)
    database = proxied.mongodb.database
    callers = [asyncio.create_task(database.command("ping")) for _ in range(CALLERS)]
    await asyncio.sleep(0.7)  # they look, and each looks again every half a second
    for _ in range(3):
        for caller in callers:
            caller.cancel()
        for _ in range(steps):
            await asyncio.sleep(0)
    _, waiting = await asyncio.wait(callers, timeout=30)
    assert not waiting
    proxy.lead_to(*address_of(convostore_servers.mongodb_uri))
    await proxied.tenant("acme").conversations.exists("unknown")
