"""UserSessions: what concerns several sessions of a user, a tenant, or all."""

from collections.abc import AsyncGenerator
from typing import ClassVar

from convostore.gateways.redis_gateway import RedisGateway
from convostore.models.identity import check_identifier
from convostore.models.redis.session_cache import SessionData
from convostore.models.redis.session_identity import INDEX_PATTERN, KIND, SessionPlace, channel, index_key, place
from convostore.models.types import TenantId, UserId
from convostore.repositories import session_scripts as scripts
from convostore.repositories.redis_repository import RedisRepository
from convostore.repositories.session_arguments import SessionOwners, checked_listed, checked_spared
from convostore.repositories.session_events import Revocation, revocations_of
from convostore.repositories.session_replies import new_token, raised, session_of

_READ_AT_ONCE = 250


class UserSessions(RedisRepository):
    """Lists, revokes and cleans up sessions.

    Args:
        redis_client: the way to the server.
        session_key: secret of at least 32 bytes, or None.
    """

    kind: ClassVar[str] = KIND
    entity_type: ClassVar[str] = SessionData.entity_type

    def __init__(self, redis_client: RedisGateway, session_key: bytes | None = None) -> None:
        super().__init__(redis_client)
        self._owners = SessionOwners(session_key)

    async def get_user_sessions(self, tenant_id: TenantId, user_id: UserId) -> list[SessionData]:
        """Return the sessions of a user that live, the one used last first.

        Their ids are not known to the server, so they are empty here; ``revoke_session`` takes the fingerprint.
        """
        tag = self._owners.tag(tenant_id, user_id)
        members = await self._script(scripts.LIST, [index_key(tenant_id, tag)])
        places = [place(tenant_id, tag, member.decode()) for member in members]
        sessions: list[SessionData] = []
        for start in range(0, len(places), _READ_AT_ONCE):
            sessions += await self._read(places[start : start + _READ_AT_ONCE])
        return sorted(sessions, key=lambda session: (session.last_activity_at, session.fingerprint), reverse=True)

    async def _read(self, places: list[SessionPlace]) -> list[SessionData]:
        calls = [(where[:2], (where.fingerprint,)) for where in places]
        replies = raised(await self.redis.scripts(self._running(scripts.GET), scripts.GET, calls))
        found = (session_of(reply, where) for reply, where in zip(replies, places, strict=True))
        return [session for session in found if session is not None]

    async def revoke_session(self, tenant_id: TenantId, user_id: UserId, fingerprint: str) -> bool:
        """End the session of a fingerprint, such as one of a list; say whether it lived."""
        tag = self._owners.tag(tenant_id, user_id)
        return await self._end(tenant_id, checked_listed(tenant_id, tag, fingerprint))

    async def _end(self, tenant_id: str, where: SessionPlace) -> bool:
        arguments = (where.fingerprint, new_token(), channel(tenant_id))
        return bool(await self._script(scripts.DELETE, where[:2], *arguments))

    async def revoke_user_sessions(self, tenant_id: TenantId, user_id: UserId, except_id: str | None = None) -> int:
        """End all sessions of a user, or all but one, at a cost that does not depend on their number.

        What they held goes when they would have expired.

        Args:
            tenant_id: whose they are.
            user_id: whose they are.
            except_id: the id of the session that is spared.

        Returns:
            How many lived.
        """
        index = index_key(tenant_id, self._owners.tag(tenant_id, user_id))
        arguments = (checked_spared(except_id), channel(tenant_id), user_id)
        count: int = await self._script(scripts.REVOKE, [index], *arguments)
        return count

    async def cleanup_expired_sessions(self) -> int:
        """Take sessions that have expired out of the indexes of all tenants; return how many.

        It only gives memory back early: nothing that has expired answers, and everything has a time to live.
        """
        cleaned = 0
        async for keys in self.redis.scan(self._operation("session_scan"), INDEX_PATTERN):
            calls = [((key.decode(),), ()) for key in keys]
            cleaned += sum(raised(await self.redis.scripts(self._running(scripts.TRIM), scripts.TRIM, calls)))
        return cleaned

    def revocations(self, tenant_id: TenantId) -> AsyncGenerator[Revocation]:
        """Iterate over the sessions of a tenant that end before their time, without end, as for open web sockets.

        What is published is a hint, lost while there is no connection. Each time one stands, the first too, ``missed``
        is told: read the sessions that you hold again. What expires is not published. Close the iterator to end it, by
        ``aclose`` or the end of its task.
        """
        return revocations_of(self.redis.subscribe(channel(check_identifier(tenant_id, "tenant_id"))))
