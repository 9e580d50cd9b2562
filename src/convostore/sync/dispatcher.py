"""Dispatcher: carries out what is in the outbox, and tries it again until it is done."""

import asyncio
import random
from typing import NamedTuple

from convostore.gateways.epoch_counter import EpochCounter
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.outbox_entries import OutboxEntries, Stored
from convostore.logs import get_logger
from convostore.models.identity import split
from convostore.models.types import ConversationStatus
from convostore.repositories.cache_forgetting import CacheForgetting, Place
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.conversation_repository import ConversationRepository
from convostore.repositories.entity_spaces import CONVERSATION, NEWEST
from convostore.repositories.exceptions import RepositoryError
from convostore.repositories.session_repository import SessionRepository
from convostore.sync.outbox import Effect, Outbox, OutboxEntry

LEASE_SECONDS = 60.0  # for which an entry is one dispatcher's; who takes longer may get company, which is harmless
POLL_SECONDS = 1.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_AT_A_TIME = 8
_TOGETHER = 100
_OPEN = [
    str(status) for status in (ConversationStatus.ACTIVE, ConversationStatus.WAITING, ConversationStatus.ESCALATED)
]


class Targets(NamedTuple):
    """What effects act upon.

    Attributes:
        gateway: the way to the conversations, and to the outbox.
        sessions: of all tenants.
        cache: of all tenants.
    """

    gateway: MongoGateway
    sessions: SessionRepository
    cache: CacheRepository


class Dispatcher:
    """Carries out the entries of all tenants; several may run, here and elsewhere.

    An entry is removed only after its effects, and what fails is tried again, ever more rarely.

    Args:
        targets: what effects act upon; stays open.
        longest_pause: seconds between two attempts of an entry at most.
        lease: seconds after which an entry comes back if whoever has taken it is dead.
    """

    def __init__(self, targets: Targets, longest_pause: float = _LONGEST_PAUSE, lease: float = LEASE_SECONDS) -> None:
        self._gateway, self._sessions, cache = targets
        self._forgetting = CacheForgetting(cache, EpochCounter(self._gateway))
        self._entries = OutboxEntries(self._gateway)
        self._outbox = Outbox(self._gateway)
        self._longest_pause = longest_pause
        self._lease = lease
        self._logger = get_logger("outbox")

    async def run(self) -> None:
        """Go on until it is cancelled; a database that is away is waited for."""
        while True:
            try:
                await self.run_once()
            except Exception as error:  # noqa: BLE001 - whatever it is, what else is in the outbox must go on
                self._logger.warning("the outbox is looked at again", error=type(error).__name__)
            await asyncio.sleep(POLL_SECONDS)

    async def run_once(self) -> int:
        """Carry out what is due now; return how many entries have come to their end.

        Raises:
            RepositoryError: the outbox does not answer.
        """
        first = await self._entries.take(self._lease)
        if first is None:
            return 0  # as nearly always
        workers = [asyncio.create_task(self._work(stored)) for stored in (first, *[None] * (_AT_A_TIME - 1))]
        try:
            return sum(await asyncio.gather(*workers))
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, stored: Stored | None) -> int:
        ended = 0
        while stored := stored or await self._entries.take(self._lease):
            ended += not await self._deliver(stored)
            stored = None
        return ended

    async def try_at_once(self, identity: str) -> bool:
        """Carry out an entry that was just written; say whether all its effects are there.

        Whatever fails is left to later.
        """
        try:
            stored = await self._entries.take(self._lease, identity)
            return stored is not None and not await self._deliver(stored)
        except RepositoryError as error:
            self._logger.warning("left to later", entry=identity, error=type(error).__name__)
            return False

    async def _deliver(self, stored: Stored) -> list[Effect]:
        """Carry out an entry that was taken; return the effects that are not there yet."""
        identity, attempts = stored["_id"], int(stored.get("attempts", 1))
        left: list[Effect] = []
        try:
            entry = OutboxEntry.from_stored(stored)
            left = [effect for effect in entry.effects if not await self._is_carried_out(effect, entry)]
        except RepositoryError as error:
            self._logger.warning("not carried out", entry=identity, error=type(error).__name__)
            left = list(Effect)
        if left:
            await self._entries.postpone(identity, self._pause_after(attempts))
        else:
            await self._entries.remove(identity)
        return left

    def _pause_after(self, attempts: int) -> float:
        longest = min(self._longest_pause, _FIRST_PAUSE * 2.0 ** min(attempts, 16))
        return random.uniform(longest / 2, longest)  # noqa: S311 - jitter is no secret

    async def _is_carried_out(self, effect: Effect, entry: OutboxEntry) -> bool:
        try:
            await self._perform(effect, entry)
        except RepositoryError as error:
            self._logger.warning("to be tried again", entry=entry.identity, effect=effect, error=type(error).__name__)
            return False
        await self._entries.strike_out(entry.identity, effect)
        return True

    # effects

    async def _perform(self, effect: Effect, entry: OutboxEntry) -> None:
        perform = {
            Effect.REVOKE_SESSIONS: self._revoke,
            Effect.CLOSE_CONVERSATIONS: self._close,
            Effect.ERASE_CONVERSATIONS: self._erase,
            Effect.DELETE: self._delete,
            Effect.FORGET: self._forget,
        }
        await perform[effect](entry)

    async def _revoke(self, entry: OutboxEntry) -> None:
        await self._sessions.revoke_user_sessions(entry.tenant_id, entry.user_id)

    async def _close(self, entry: OutboxEntry) -> None:
        conversations = ConversationRepository(self._gateway.tenant(entry.tenant_id))
        while names := await self._of_user(entry, {"status": {"$in": _OPEN}}):
            # Before the change: whoever dies behind it would leave nobody who knows what is to be forgotten.
            told = await self._outbox.add(entry.tenant_id, [Effect.FORGET], conversation_ids=names)
            for name in names:
                await conversations.update_conversation_status(name, ConversationStatus.COMPLETED)
            await self.try_at_once(told)

    async def _erase(self, entry: OutboxEntry) -> None:
        while names := await self._of_user(entry, {}):
            # An entry of their own: a conversation half deleted is not found by its user any more.
            told = await self._outbox.add(
                entry.tenant_id, [Effect.DELETE, Effect.FORGET], user_id=entry.user_id, conversation_ids=names
            )
            await self._delete(OutboxEntry(told, entry.tenant_id, (Effect.DELETE,), conversation_ids=tuple(names)))
            await self._entries.strike_out(told, Effect.DELETE)
            await self.try_at_once(told)

    async def _of_user(self, entry: OutboxEntry, condition: Stored) -> list[str]:
        conversations = self._gateway.tenant(entry.tenant_id).collection("conversations", "Conversation")
        query = {"user_id": {"$eq": entry.user_id}, **condition}
        found = await conversations.find(query, limit=_TOGETHER, projection=["tenant_id"])
        return [split(stored["_id"])[1] for stored in found]

    async def _delete(self, entry: OutboxEntry) -> None:
        conversations = ConversationRepository(self._gateway.tenant(entry.tenant_id))
        for name in entry.conversation_ids:
            await conversations.delete(name)

    async def _forget(self, entry: OutboxEntry) -> None:
        places = [
            Place(entry.tenant_id, space.name, name)
            for name in entry.conversation_ids
            for space in (CONVERSATION, NEWEST)
        ]
        await self._forgetting.forget(places)
