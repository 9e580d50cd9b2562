"""What the methods of sessions are given, checked before anything is sent."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from convostore.models.identity import check_identifier
from convostore.models.plain_data import check_plain_data
from convostore.models.redis.session_cache import DATA_PREFIX, MOST_FIELDS, SessionData, encoded_data
from convostore.models.redis.session_identity import (
    SessionPlace,
    checked_key,
    checked_session_id,
    fingerprint_of,
    is_fingerprint,
    is_made_for,
    new_session_id,
    place,
    place_of,
    user_tag,
)
from convostore.repositories.exceptions import ValidationError
from convostore.repositories.redis_repository import checked_whole

_MILLISECOND = timedelta(milliseconds=1)


class SessionOwners:
    """Knows which ids belong to whom, by the session key.

    Args:
        session_key: the secret, or None where no id is made and nobody is looked for.
    """

    def __init__(self, session_key: bytes | None) -> None:
        self._session_key = checked_key(session_key)

    @property
    def _key(self) -> bytes:
        if self._session_key is None:
            text = "session_key: needed to make session ids and to find a user's sessions; see CONVOSTORE_SESSION_KEY"
            raise ValidationError(text, "session_key")
        return self._session_key

    def tag(self, tenant_id: str, user_id: str) -> str:
        """Return the tag of a user."""
        tenant_id = check_identifier(tenant_id, "tenant_id")
        return user_tag(self._key, tenant_id, check_identifier(user_id, "user_id"))

    def new_id(self, tenant_id: str, user_id: str) -> str:
        """Return an id for a user that nobody has used."""
        tenant_id = check_identifier(tenant_id, "tenant_id")
        return new_session_id(self._key, tenant_id, check_identifier(user_id, "user_id"))

    def check(self, tenant_id: str, user_id: str, session_id: str) -> None:
        """Make sure that an id was made here for this user.

        Raises:
            ValidationError: it was not; a session of that id would be one that somebody else made up.
        """
        if not is_made_for(session_id, self._key, tenant_id, user_id):
            raise ValidationError("session_id: was not made for this tenant and user; see start_session", "session_id")


def checked_place(tenant_id: str, session_id: str) -> SessionPlace:
    """Return where a session would be; what can be no id leads to where nothing is."""
    return place_of(check_identifier(tenant_id, "tenant_id"), checked_session_id(session_id))


def checked_listed(tenant_id: str, tag: str, fingerprint: str) -> SessionPlace:
    """Return where the session of a fingerprint would be."""
    if not isinstance(fingerprint, str) or not is_fingerprint(fingerprint):
        raise ValidationError("fingerprint: must be that of a session", "fingerprint")
    return place(tenant_id, tag, fingerprint)


def checked_spared(session_id: str | None) -> str:
    """Return the fingerprint of a session to be spared, or empty."""
    return "" if session_id is None else fingerprint_of(checked_session_id(session_id, "except_id"))


def checked_session(session: object) -> SessionData:
    """Return a session, if it is one."""
    if not isinstance(session, SessionData):
        kind = type(session).__name__
        raise ValidationError(f"session_data: must be a SessionData, not {kind}", "session_data")
    checked_session_id(session.session_id)
    return session


def times_left(session: SessionData, now: datetime) -> tuple[int, int]:
    """Return how many milliseconds a new session has until it expires and until it ends.

    ``now`` is told by the clock that its moments were taken from, so that it does not matter what that clock shows.

    Raises:
        ValidationError: one of them has come, or it is not new.
    """
    if session.version != 1:
        raise ValidationError("version: a new session is at version 1", "version")
    for name in ("expires_at", "ends_at"):
        if getattr(session, name) <= now:
            raise ValidationError(f"{name}: lies in the past", name)
    return (session.expires_at - now) // _MILLISECOND, (session.ends_at - now) // _MILLISECOND


def checked_version(version: object) -> int:
    """Return a version that is expected, or 0 for any."""
    return 0 if version is None else checked_whole(version, "expected_version")


def checked_fields(fields: Mapping[str, Any] | None) -> dict[str, str]:
    """Return fields of data as they are stored."""
    if fields is None:
        return {}
    if not isinstance(fields, Mapping):
        raise ValidationError(f"fields: must be a mapping, not {type(fields).__name__}", "fields")
    plain = dict(fields)
    check_plain_data(plain, "fields")
    return encoded_data(plain, "fields")


def checked_names(remove: Iterable[str]) -> list[str]:
    """Return names of fields of data as they are stored."""
    if isinstance(remove, str | bytes) or not isinstance(remove, Iterable):
        raise ValidationError("remove: must be names of fields", "remove")
    names = list(remove)
    check_plain_data(names, "remove")
    if not all(isinstance(name, str) for name in names) or len(names) > MOST_FIELDS:
        raise ValidationError(f"remove: must be at most {MOST_FIELDS} names of fields", "remove")
    return [DATA_PREFIX + name for name in names]
