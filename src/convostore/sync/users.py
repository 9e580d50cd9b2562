"""Users: what concerns a user in both stores, said in one place.

Each is one write to MongoDB, in the unit of work that is open, if any, and takes effect in both stores as soon as that
is committed: at once if all is well, else when what was away is back. Until then ``convostore sync`` keeps trying.
"""

from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.shared_deadline import one_deadline
from convostore.models.identity import check_identifier
from convostore.models.types import ConversationStatus
from convostore.repositories.conversation_repository import ConversationRepository
from convostore.repositories.unit_of_work import UnitOfWork, in_transaction
from convostore.sync.dispatcher import Dispatcher
from convostore.sync.outbox import Effect, Outbox


class Users:
    """The users of all tenants.

    Every method may be repeated; what it does, it may do once more a little later, after a failure. It returns whether
    all of it is there already; in a unit of work False, since there it begins with the commit. It raises
    ``ValidationError`` for what cannot be an identifier, and ``ConnectionError`` if MongoDB did not take it in.

    Args:
        gateway: the way to MongoDB.
        dispatcher: carries out what is told.
    """

    def __init__(self, gateway: MongoGateway, dispatcher: Dispatcher) -> None:
        self._gateway = gateway
        self._outbox = Outbox(gateway)
        self._dispatcher = dispatcher

    async def sign_out(self, tenant_id: str, user_id: str, *, close_conversations: bool = False) -> bool:
        """End all sessions of a user.

        Should Redis be away, a session that he begins meanwhile ends with the others.

        Args:
            tenant_id: whose user.
            user_id: who.
            close_conversations: also complete those of his conversations that are active, waiting or escalated.
        """
        closing = (Effect.CLOSE_CONVERSATIONS,) if close_conversations else ()
        return await self._tell(tenant_id, (Effect.REVOKE_SESSIONS, *closing), user_id)

    async def erase(self, tenant_id: str, user_id: str) -> bool:
        """Delete all conversations of a user with all their messages, and end all his sessions.

        ``ConvoStore.erasure`` takes everything that is kept of him, and counts it; this goes with a transaction.

        Once this has returned, or its unit of work was committed, it will be done, whatever fails meanwhile. What he
        begins before it is done goes too.
        """
        return await self._tell(tenant_id, (Effect.REVOKE_SESSIONS, Effect.ERASE_CONVERSATIONS), user_id)

    async def close_conversation(
        self, tenant_id: str, conversation_id: str, status: ConversationStatus = ConversationStatus.COMPLETED
    ) -> bool:
        """Set the status of a conversation, and let the cache forget it; say whether there is such a conversation.

        Raises:
            TransactionError: the server has no transactions.
        """
        conversations = ConversationRepository(self._gateway.tenant(tenant_id))

        async def close(unit: UnitOfWork) -> bool:
            found = await conversations.update_conversation_status(conversation_id, status)
            if found:
                told = await self._outbox.add(tenant_id, [Effect.FORGET], conversation_ids=[conversation_id])
                self._dispatch_after(unit, told)
            return found

        conversation_id = check_identifier(conversation_id, "conversation_id")
        return await in_transaction(self._gateway, close)

    async def _tell(self, tenant_id: str, effects: tuple[Effect, ...], user_id: str) -> bool:
        tenant_id = check_identifier(tenant_id, "tenant_id")
        user_id = check_identifier(user_id, "user_id")

        async def tell(unit: UnitOfWork) -> None:
            self._dispatch_after(unit, await self._outbox.add(tenant_id, effects, user_id=user_id))

        if self._gateway.in_transaction():
            await in_transaction(self._gateway, tell)
            return False
        with one_deadline(self._gateway.deadline):
            return await self._dispatcher.try_at_once(await self._outbox.add(tenant_id, effects, user_id=user_id))

    def _dispatch_after(self, unit: UnitOfWork, identity: str) -> None:
        async def dispatch() -> None:
            await self._dispatcher.try_at_once(identity)

        unit.after_commit(dispatch)
