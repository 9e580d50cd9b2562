"""The repository of sessions."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from convostore.database.redis_client import get_redis
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.redis_wire import Part
from convostore.models.redis.session_cache import SessionData, checked_hours, encoded_data
from convostore.models.redis.session_identity import SessionPlace, channel, place_of, successor_id
from convostore.models.types import TenantId, UserId, utc_now
from convostore.repositories import session_scripts as scripts
from convostore.repositories.exceptions import ConcurrencyError
from convostore.repositories.session_arguments import (
    checked_fields,
    checked_names,
    checked_place,
    checked_session,
    checked_version,
    times_left,
)
from convostore.repositories.session_policy import SessionLimitError, SessionPolicy
from convostore.repositories.session_replies import found_session, new_token, session_of
from convostore.repositories.user_sessions import UserSessions


class SessionRepository(UserSessions):
    """Repository for session management in Redis.

    A session lives if and only if the index of its user says so, and each script looks there first: nothing that is
    still under way when a session ends can bring it back, and an id that was used is not used again. The clock is the
    server's. An id that is unknown, malformed, forged or another tenant's is answered in one and the same way.

    While Redis is away every method raises ``ConnectionError`` within its deadline: nobody is let in unseen. After one
    whose outcome is unknown each of them may be called again; ``start_session`` then makes a second session, and the
    first, whose id nobody knows, counts towards the limit until it expires.

    Args:
        redis_client: the way to the server.
        session_key: secret of at least 32 bytes, the same in all processes; needed to make sessions and to find those
            of a user.
        policy: how long sessions live and how many a user may have.
    """

    def __init__(
        self, redis_client: RedisGateway, session_key: bytes | None = None, policy: SessionPolicy | None = None
    ) -> None:
        super().__init__(redis_client, session_key)
        self.policy = policy or SessionPolicy()

    def new_session_id(self, tenant_id: TenantId, user_id: UserId) -> str:
        """Return an id for a session of a user, which ``create_session`` takes."""
        return self._owners.new_id(tenant_id, user_id)

    async def start_session(
        self,
        tenant_id: TenantId,
        user_id: UserId,
        *,
        data: Mapping[str, Any] | None = None,
        idle_seconds: float | None = None,
        lifetime_seconds: float | None = None,
    ) -> SessionData:
        """Make a session with a new id, store it, and return it as it was stored.

        Args:
            tenant_id: whose it is.
            user_id: whose it is.
            data: plain data (JSON).
            idle_seconds: how long it lives from each use; by default as the policy says.
            lifetime_seconds: how long it lives at most; by default as the policy says.

        Raises:
            SessionLimitError: the user has as many as he may have, and the policy is to reject.
        """
        idle = self.policy.idle_seconds if idle_seconds is None else idle_seconds
        life = self.policy.lifetime_seconds if lifetime_seconds is None else lifetime_seconds
        session = SessionData.start(tenant_id, user_id, self.new_session_id(tenant_id, user_id), idle, life)
        if data is not None:
            session = session.evolve(data=data)
        return session.stored_at(await self._create(session, session.created_at))

    async def create_session(self, session_data: SessionData) -> bool:
        """Store a new session; say whether it was stored, or its id has been used before.

        The id must be one of ``new_session_id`` for its tenant and user: ids that others made up are not adopted.

        Raises:
            SessionLimitError: the user has as many as he may have, and the policy is to reject.
            ValidationError: the id was not made for this tenant and user, or the session has expired.
        """
        return await self._create(checked_session(session_data), utc_now()) > 0

    async def _create(self, session: SessionData, now: datetime) -> int:
        keys, arguments = self._creation(session, now)
        reply: int = await self._script(scripts.CREATE, keys, *arguments)
        if reply < 0:
            raise SessionLimitError(-reply)
        return reply

    def _creation(self, session: SessionData, now: datetime) -> tuple[Sequence[str], Sequence[Part]]:
        """Return the keys and arguments that store a session."""
        self._owners.check(session.tenant_id, session.user_id, session.session_id)
        where = place_of(session.tenant_id, session.session_id)
        told = (channel(session.tenant_id), session.user_id)
        limit = (self.policy.max_sessions or 0, self.policy.when_full)
        hashed = [part for item in session.to_redis_hash().items() for part in item]
        return where[:2], (where.fingerprint, new_token(), *told, *times_left(session, now), *limit, *hashed)

    async def get_session(self, tenant_id: TenantId, session_id: str) -> SessionData | None:
        """Return a session, or None if it does not live. It is not counted as a use; see ``touch_session``."""
        where = checked_place(tenant_id, session_id)
        return session_of(await self._script(scripts.GET, where[:2], where.fingerprint), where, session_id)

    async def touch_session(self, tenant_id: TenantId, session_id: str) -> SessionData | None:
        """Count a use of a session, so that it lives on for its idle time; return it, or None if it does not live.

        Nothing is written if that would win less than a twentieth of the idle time.
        """
        return await self._touch(checked_place(tenant_id, session_id), session_id, 0)

    async def extend_session(self, tenant_id: TenantId, session_id: str, hours: float = 1) -> bool:
        """Let a session live for at least so many hours from now, as far as its absolute end allows.

        Returns False if it does not live.
        """
        milliseconds = checked_hours(hours)
        return await self._touch(checked_place(tenant_id, session_id), session_id, milliseconds) is not None

    async def _touch(self, where: SessionPlace, session_id: str, milliseconds: int) -> SessionData | None:
        reply = await self._script(scripts.TOUCH, where[:2], where.fingerprint, milliseconds)
        return session_of(reply, where, session_id)

    async def update_session(self, session_data: SessionData, expected_version: int | None = None) -> bool:
        """Store the data of a session, if nobody has changed it since it was read; count that as a use.

        What ``extend_session`` of the session asked for is stored too. Its other fields never change.

        Args:
            session_data: the session.
            expected_version: the version that it must be at; by default its own.

        Raises:
            ConcurrencyError: it is at another version; nothing was changed.
            EntityNotFoundError: it does not live.
        """
        session = checked_session(session_data)
        expected = checked_version(session.version if expected_version is None else expected_version)
        where = place_of(session.tenant_id, session.session_id)
        longer = round(session.extended_seconds * 1000)
        found_session(await self._write(where, (expected, longer, 1), [], encoded_data(session.data)), where)
        return True

    async def update_fields(
        self,
        tenant_id: TenantId,
        session_id: str,
        fields: Mapping[str, Any] | None = None,
        *,
        remove: Iterable[str] = (),
        expected_version: int | None = None,
    ) -> SessionData:
        """Change some fields of a session's data, whatever the others are; count that as a use.

        Args:
            tenant_id: whose it is.
            session_id: which session.
            fields: names and new values.
            remove: names of fields that go.
            expected_version: the version that it must be at; by default any.

        Returns:
            The session as it is now.

        Raises:
            ConcurrencyError: it is at another version; nothing was changed.
            EntityNotFoundError: it does not live.
        """
        where = checked_place(tenant_id, session_id)
        how = (checked_version(expected_version), 0, 0)
        reply = await self._write(where, how, checked_names(remove), checked_fields(fields))
        return found_session(reply, where, session_id)

    async def _write(
        self, where: SessionPlace, how: tuple[int, int, int], gone: list[str], fields: Mapping[str, str]
    ) -> bytes | None:
        changes: list[Part] = [len(gone), *gone, *(part for item in fields.items() for part in item)]
        reply: bytes | int | None = await self._script(
            scripts.WRITE, where[:2], where.fingerprint, new_token(), *how, *changes
        )
        if isinstance(reply, int):
            raise ConcurrencyError(how[0], reply, self.entity_type, where.name)
        return reply

    async def rotate_session(self, tenant_id: TenantId, session_id: str) -> SessionData:
        """Give a session a new id, as after each change of what its user may do; the old id ends at once.

        Returns:
            The session under its new id.

        Raises:
            EntityNotFoundError: it does not live.
        """
        old = checked_place(tenant_id, session_id)
        new_id = successor_id(session_id)
        new = place_of(tenant_id, new_id)
        keys = (old.key, new.key, new.of_user)
        reply = await self._script(scripts.ROTATE, keys, old.fingerprint, new.fingerprint, channel(tenant_id))
        return found_session(reply, old if reply is None else new, new_id)

    async def delete_session(self, tenant_id: TenantId, session_id: str) -> bool:
        """End a session; say whether it lived."""
        return await self._end(tenant_id, checked_place(tenant_id, session_id))

    # names of the specification; the scripts keep the index, so these only ever ask them to

    async def _add_to_user_sessions_index(self, tenant_id: TenantId, user_id: UserId, session_id: str) -> None:
        """Keep a session in the index of its user for its idle time; never bring one back."""
        self._owners.check(tenant_id, user_id, session_id)
        await self.touch_session(tenant_id, session_id)

    async def _remove_from_user_sessions_index(self, tenant_id: TenantId, user_id: UserId, session_id: str) -> None:
        """Take a session out of the index of its user, which ends it."""
        self._owners.check(tenant_id, user_id, session_id)
        await self.delete_session(tenant_id, session_id)


async def get_session_repository() -> SessionRepository:
    """Return the session repository of the current store, for dependency injection.

    Raises:
        RepositoryError: no store is current.
    """
    clients = await get_redis()
    return SessionRepository(clients.state, clients.session_key)
