"""A proxy that can hold up what the server says of changes, and nothing else: that connection stands, and is silent."""

import asyncio

from convostore.testing.proxy import Connection, Proxy


class PausedProxy(Proxy):
    """A proxy in front of one Redis or Valkey server; use it with ``async with``.

    Attributes:
        flows: whether what is said on connections that listen passes.
    """

    def __init__(self, host, port):
        super().__init__(host, port)
        self.flows = asyncio.Event()
        self.flows.set()

    @property
    def url(self):
        return f"redis://{self.address}/0"

    def connection(self, reader, writer):
        return _Connection(self.flows, reader, writer)

    async def let_pass_once(self):
        """Let pass what is held up in each direction, and not what comes behind it."""
        await asyncio.sleep(0.1)  # it may be on its way here
        self.flows.set()
        self.flows.clear()
        await asyncio.sleep(0.1)


class _Connection(Connection):
    def __init__(self, flows, reader, writer):
        super().__init__(reader, writer)
        self._flows = flows
        self._listens = False

    async def carry_requests(self, reader, server):
        await self._carry(reader, server)

    async def carry_answers(self, server, writer):
        await self._carry(server, writer)

    async def _carry(self, source, target):
        while data := await source.read(65536):
            self._listens |= b"SUBSCRIBE" in data
            if self._listens:
                await self._flows.wait()
            target.write(data)
            await target.drain()
