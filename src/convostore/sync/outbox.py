"""Outbox: what must still happen because of a write, kept in the same database and by the same transaction.

Richardson, "Microservices Patterns", 2018, chapter 3 (transactional outbox). What is rolled back leaves no entry; what
is committed leaves one, and it stays until all its effects are there. Each effect may be carried out twice, or late.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.outbox_entries import AT_ONCE, COLLECTION, ENTITY
from convostore.models.identity import check_identifier
from convostore.models.types import new_id, utc_now
from convostore.repositories.exceptions import CorruptDocumentError, ValidationError


class Effect(StrEnum):
    """What is to happen.

    The first three concern a user, the others conversations that are named.
    """

    REVOKE_SESSIONS = "revoke_sessions"
    CLOSE_CONVERSATIONS = "close_conversations"
    ERASE_CONVERSATIONS = "erase_conversations"
    DELETE = "delete"
    FORGET = "forget"


OF_A_USER = frozenset({Effect.REVOKE_SESSIONS, Effect.CLOSE_CONVERSATIONS, Effect.ERASE_CONVERSATIONS})


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """Effects that are still to happen.

    Attributes:
        identity: of the entry.
        tenant_id: whose data they concern.
        effects: in this order.
        user_id: whom they concern, if it is a user.
        conversation_ids: what they concern, if it is conversations.
        attempts: how often it was tried.
    """

    identity: str
    tenant_id: str
    effects: tuple[Effect, ...]
    user_id: str = ""
    conversation_ids: tuple[str, ...] = ()
    attempts: int = 0

    @classmethod
    def from_stored(cls, stored: dict[str, Any]) -> Self:
        """Return an entry as it is stored.

        Raises:
            CorruptDocumentError: it is of another release, or was changed by somebody.
        """
        identity = str(stored["_id"])
        try:
            effects = tuple(Effect(effect) for effect in stored["effects"])
            users, named = stored.get("user_id", ""), tuple(stored.get("conversation_ids", ()))
            return cls(identity, stored["tenant_id"], effects, users, named, int(stored.get("attempts", 0)))
        except (KeyError, ValueError, TypeError):
            raise CorruptDocumentError(ENTITY, identity, "effects") from None


class Outbox:
    """Takes in what must happen because of a write.

    Args:
        gateway: the way to the database.
    """

    def __init__(self, gateway: MongoGateway) -> None:
        self._gateway = gateway

    async def add(
        self, tenant_id: str, effects: Sequence[Effect], *, user_id: str = "", conversation_ids: Sequence[str] = ()
    ) -> str:
        """Take in effects, in the unit of work that is open, if any; return the identity of the entry.

        Args:
            tenant_id: whose data they concern.
            effects: which ones, in this order; each is carried out whatever becomes of the others.
            user_id: for those that concern a user.
            conversation_ids: for those that concern conversations.

        Raises:
            ValidationError: they do not go together.
            ConnectionError: the answer did not come; if the entry is there all the same, its effects will be too.
        """
        _check(effects, user_id, conversation_ids)
        entry = {
            "effects": [str(effect) for effect in effects],
            **({"user_id": user_id} if user_id else {}),
            **({"conversation_ids": list(conversation_ids)} if conversation_ids else {}),
            "created_at": utc_now(),
            "due_at": AT_ONCE,
            "attempts": 0,
        }
        entries, key = self._gateway.tenant(tenant_id).collection(COLLECTION, ENTITY), (new_id(),)
        await entries.insert(key, entry)
        return entries.identity(key)


def _check(effects: Sequence[Effect], user_id: str, conversation_ids: Sequence[str]) -> None:
    for name, several in (("effects", effects), ("conversation_ids", conversation_ids)):
        if isinstance(several, str) or not isinstance(several, Sequence):
            raise ValidationError(f"{name}: must be a list, not {type(several).__name__}", name)
    if any(effect not in list(Effect) for effect in effects):
        raise ValidationError(f"effects: must be of {', '.join(Effect)}", "effects")
    if not effects:
        raise ValidationError("effects: must be one at least", "effects")
    _check_whom(effects, user_id, conversation_ids)


def _check_whom(effects: Sequence[Effect], user_id: str, conversation_ids: Sequence[str]) -> None:
    if user_id != "" or any(effect in OF_A_USER for effect in effects):
        check_identifier(user_id, "user_id")
    if any(effect not in OF_A_USER for effect in effects) and not conversation_ids:
        raise ValidationError("conversation_ids: must be one at least", "conversation_ids")
    for conversation_id in conversation_ids:
        check_identifier(conversation_id, "conversation_ids")
