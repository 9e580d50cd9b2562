"""Revocations: what is published when sessions end before their time."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from pydantic import TypeAdapter, ValidationError

from convostore.gateways.redis_subscription import Missed, Subscription
from convostore.models.redis.session_cache import SessionData

_Payload = TypeAdapter(list[str])


class RevocationKind(StrEnum):
    """What has happened."""

    ENDED = "ended"
    EVICTED = "evicted"
    ROTATED = "rotated"
    ALL = "all"
    MISSED = "missed"


@dataclass(frozen=True)
class Revocation:
    """Sessions that have ended before their time.

    Attributes:
        kind: ``ended`` by logout, ``evicted`` by a newer one, ``rotated`` to another id, ``all`` of a user, or
            ``missed``: what was published before now was not heard, so look for yourself.
        user_id: whose sessions; empty if not known.
        fingerprint: of the session; with ``all``, of the one that was spared, or empty.
        successor: the fingerprint that the session has now, if it was rotated.
    """

    kind: RevocationKind
    user_id: str = ""
    fingerprint: str = ""
    successor: str = ""

    @classmethod
    def parse(cls, message: bytes) -> Self:
        """Return what a message says; one that nobody of us wrote may stand for anything."""
        try:
            kind, *rest = _Payload.validate_json(message)
            return cls(RevocationKind(kind), *rest)
        except (ValidationError, ValueError, TypeError):
            return cls(RevocationKind.MISSED)

    def may_concern(self, session: SessionData) -> bool:
        """Say whether a session may have ended by this; after ``missed`` it may, so read it again."""
        if self.kind is RevocationKind.MISSED:
            return True
        if self.kind is RevocationKind.ALL:
            return session.user_id == self.user_id and session.fingerprint != self.fingerprint
        return session.fingerprint == self.fingerprint


async def revocations_of(subscription: Subscription) -> AsyncGenerator[Revocation]:
    """Yield what is published, without end."""
    async with aclosing(subscription.messages()) as messages:  # type: ignore[type-var]
        async for message in messages:
            missed = isinstance(message, Missed)
            yield Revocation(RevocationKind.MISSED) if missed else Revocation.parse(message)  # type: ignore[arg-type]
