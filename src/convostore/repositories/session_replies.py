"""What the scripts of sessions answer, and the tokens by which they know a call again."""

import secrets

from pydantic_core import from_json

from convostore.models.redis.session_cache import SessionData
from convostore.models.redis.session_identity import SessionPlace
from convostore.repositories.exceptions import EntityNotFoundError, RepositoryError


def session_of(reply: bytes | None, where: SessionPlace, session_id: str = "") -> SessionData | None:
    """Return the session of a reply, the JSON of names and values in turn, or None if there is none."""
    if reply is None:
        return None
    parts = from_json(reply)
    return SessionData.from_redis_hash(dict(zip(parts[::2], parts[1::2], strict=True)), session_id, where.fingerprint)


def found_session(reply: bytes | None, where: SessionPlace, session_id: str = "") -> SessionData:
    """Return the session of a reply.

    Raises:
        EntityNotFoundError: there is none; names the beginning of its fingerprint, never its id.
    """
    session = session_of(reply, where, session_id)
    if session is None:
        raise EntityNotFoundError(SessionData.entity_type, where.name)
    return session


def new_token() -> str:
    """Return what a script leaves behind, so that it knows this call when it is sent again."""
    return secrets.token_urlsafe(8)


def raised(replies: list[object]) -> list:  # type: ignore[type-arg]
    """Return replies, unless one is a refusal."""
    for reply in replies:
        if isinstance(reply, RepositoryError):
            raise reply
    return replies
