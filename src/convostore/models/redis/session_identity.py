"""The id of a session: who may present it, and where it leads, without a look at the server.

    <tag of its user>.<192 random bits>

The tag is a keyed hash (HMAC, RFC 2104, with SHA-256, cut to 120 bits) of tenant and user: nobody without the key can
tell whose it is, or make one up for a user whose id he knows. It decides the slot, so all sessions of a user lie side
by side. The random part (OWASP Session Management Cheat Sheet asks for 64 bits) is what cannot be guessed. Redis sees a
hash of the id, its fingerprint, so whoever reads Redis or a log of it cannot present the id.
"""

import base64
import hashlib
import hmac
import re
import secrets
from typing import NamedTuple

from convostore.models.identity import join
from convostore.models.keys import redis_key
from convostore.repositories.exceptions import ValidationError

KIND = "session"
INDEX = "sessions"  # of a user
CHANNEL = "revocations"  # of a tenant
INDEX_PATTERN = "cs:sessions:*"
SHORTEST_KEY = 32  # bytes
SHOWN = 12  # characters of a fingerprint that errors show
_TAG_BYTES = 15
_RANDOM_BYTES = 24
_ID = re.compile(r"([A-Za-z0-9_-]{20})\.[A-Za-z0-9_-]{32}")
_FINGERPRINT = re.compile(r"[A-Za-z0-9_-]{43}")
_NOBODY = "-"  # the tag of what is no id; shorter than any user's


class SessionPlace(NamedTuple):
    """Where a session is kept, and the index of its user's sessions, in one slot.

    Attributes:
        key: of its hash.
        of_user: of the sorted set that decides which sessions live.
        fingerprint: what it is called there.
    """

    key: str
    of_user: str
    fingerprint: str

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.fingerprint[:SHOWN]


def user_tag(key: bytes, tenant_id: str, user_id: str) -> str:
    """Return the visible part of the ids of a user."""
    mac = hmac.digest(key, join(KIND, tenant_id, user_id).encode(), "sha256")
    return base64.urlsafe_b64encode(mac[:_TAG_BYTES]).decode()


def new_session_id(key: bytes, tenant_id: str, user_id: str) -> str:
    """Return an id that nobody has used."""
    return f"{user_tag(key, tenant_id, user_id)}.{secrets.token_urlsafe(_RANDOM_BYTES)}"


def successor_id(session_id: str) -> str:
    """Return an id of the same user that nobody has used."""
    return f"{tag_of(session_id)}.{secrets.token_urlsafe(_RANDOM_BYTES)}"


def is_made_for(session_id: str, key: bytes, tenant_id: str, user_id: str) -> bool:
    """Say whether an id was made with the key for this user."""
    return hmac.compare_digest(tag_of(session_id), user_tag(key, tenant_id, user_id))


def tag_of(session_id: str) -> str:
    """Return the tag in an id; what is no id has one that no user has."""
    found = _ID.fullmatch(session_id)
    return found[1] if found else _NOBODY


def fingerprint_of(session_id: str) -> str:
    """Return the hash by which Redis knows a session: 256 bits in 43 characters."""
    hashed = hashlib.sha256(session_id.encode(errors="surrogatepass")).digest()
    return base64.urlsafe_b64encode(hashed)[:-1].decode()


def is_fingerprint(text: str) -> bool:
    """Say whether a text can be the fingerprint of a session."""
    return _FINGERPRINT.fullmatch(text) is not None


def place_of(tenant_id: str, session_id: str) -> SessionPlace:
    """Return where a session would be kept, whether or not there is one."""
    return place(tenant_id, tag_of(session_id), fingerprint_of(session_id))


def place(tenant_id: str, tag: str, fingerprint: str) -> SessionPlace:
    """Return where the session of a fingerprint is kept."""
    index = index_key(tenant_id, tag)
    return SessionPlace(f"{redis_key(KIND, (tenant_id, tag))}:{fingerprint}", index, fingerprint)


def index_key(tenant_id: str, tag: str) -> str:
    """Return the key of the index of a user's sessions."""
    return redis_key(INDEX, (tenant_id, tag))


def channel(tenant_id: str) -> str:
    """Return where the ends of a tenant's sessions are published."""
    return redis_key(CHANNEL, (tenant_id,))


def checked_session_id(value: object, field: str = "session_id") -> str:
    """Return what was presented as an id, if it is text; whether it is one is not told.

    Raises:
        ValidationError: it is no text, or empty.
    """
    if not isinstance(value, str):
        raise ValidationError(f"{field}: must be text, not {type(value).__name__}", field)
    if not value:
        raise ValidationError(f"{field}: must not be empty", field)
    return value


def checked_key(value: object) -> bytes | None:
    """Return a session key, if it is one, or None.

    Raises:
        ValidationError: it is something else, or too short to keep a secret.
    """
    if value is None or (isinstance(value, bytes) and len(value) >= SHORTEST_KEY):
        return value
    raise ValidationError(f"session_key: must be at least {SHORTEST_KEY} secret bytes", "session_key")
