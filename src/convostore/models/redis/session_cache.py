"""The data of a session."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Self

import pydantic
from pydantic import Field
from pydantic_core import from_json

from convostore.models.document import Value
from convostore.models.redis.session_identity import SHOWN, fingerprint_of, place_of, tag_of
from convostore.models.types import PlainDict, TenantId, Timestamp, UserId, Version, utc_now
from convostore.repositories.exceptions import CorruptDocumentError, ValidationError

IDLE_SECONDS = 3600.0
LIFETIME = timedelta(days=30)  # NIST SP 800-63B, 4.1.3: authenticate again at least once in 30 days
LONGEST = timedelta(days=3660)
LARGEST_DATA = 64 * 1024  # bytes; every request reads them
MOST_FIELDS = 500
DATA_PREFIX = "data:"  # no other field has a colon

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class SessionData(Value):
    """A session of a user.

    Two moments end it: ``expires_at``, unless it is used before, and ``ends_at``, whatever happens. The server's clock
    decides; the moments tell what that clock said.

    Attributes:
        session_id: the secret that the user presents, or empty where it is not known, as in a list; never shown.
        tenant_id, user_id: whose it is.
        created_at: when it was stored.
        last_activity_at: when it was last used, at a twentieth of ``idle_seconds`` precisely.
        expires_at: when it ends if nobody uses it; by default an hour after ``created_at``.
        ends_at: when it ends even if it is used; by default 30 days after ``created_at``.
        idle_seconds: how long it lives from each use; by default from ``created_at`` to ``expires_at``.
        data: plain data (JSON) of the caller, 64 KiB and 500 fields at most; not shown.
        version: rises by one with each change of ``data``.
        fingerprint: the hash by which Redis knows it; no secret.
    """

    entity_type: ClassVar[str] = "Session"
    moment_fields: ClassVar[tuple[str, ...]] = ("created_at", "last_activity_at", "expires_at", "ends_at")

    session_id: Annotated[str, Field(max_length=256, repr=False)] = ""
    tenant_id: TenantId
    user_id: UserId
    created_at: Timestamp = Field(default_factory=utc_now)
    last_activity_at: Timestamp = Field(default_factory=lambda data: data["created_at"])
    expires_at: Timestamp = Field(default_factory=lambda data: data["created_at"] + timedelta(seconds=IDLE_SECONDS))
    ends_at: Timestamp = Field(default_factory=lambda data: max(data["created_at"] + LIFETIME, data["expires_at"]))
    idle_seconds: Annotated[float, Field(ge=0.001, le=LONGEST.total_seconds())] = Field(
        default_factory=lambda data: max(0.001, (data["expires_at"] - data["created_at"]).total_seconds())
    )
    data: PlainDict = Field(default_factory=dict, repr=False)
    version: Version = 1
    fingerprint: str = Field(default_factory=lambda data: fingerprint_of(data["session_id"]))
    extended_seconds: Annotated[float, Field(ge=0)] = Field(default=0.0, repr=False)
    """What ``extend_session`` asked for and the next update will store, as a length: clocks need not agree."""

    @classmethod
    def start(
        cls, tenant_id: TenantId, user_id: UserId, session_id: str, idle_seconds: float, lifetime_seconds: float
    ) -> Self:
        """Return a new session that lives so many seconds from each use, and so many at most.

        Raises:
            ValidationError: a field is not valid.
        """
        now = utc_now()
        ends_at = now + timedelta(milliseconds=checked_seconds(lifetime_seconds, "lifetime_seconds"))
        expires_at = min(ends_at, now + timedelta(milliseconds=checked_seconds(idle_seconds, "idle_seconds")))
        return cls(
            session_id=session_id,
            tenant_id=tenant_id,
            user_id=user_id,
            created_at=now,
            expires_at=expires_at,
            ends_at=ends_at,
            idle_seconds=idle_seconds,
        )

    def evolve(self, /, **changes: Any) -> Self:
        """Return a validated copy with other data.

        Raises:
            ValidationError: a change is not valid, or of another field, which would not be stored.
        """
        for name in sorted(changes.keys() - {"data"}):
            raise ValidationError(f"{name}: cannot be changed; data can, and extend_session gives more time", name)
        return super().evolve(**changes)

    @staticmethod
    def get_cache_key(tenant_id: TenantId, session_id: str) -> str:
        """Return the key of the hash of a session; it holds a hash of the id."""
        return place_of(tenant_id, session_id).key

    @property
    def tag(self) -> str:
        """The part of the id that all sessions of the user share, if the id is known."""
        return tag_of(self.session_id)

    @property
    def name(self) -> str:
        """What errors and logs call it: the beginning of its fingerprint."""
        return self.fingerprint[:SHOWN]

    def is_expired(self, now: datetime | None = None) -> bool:
        """Say whether it has ended by the clock of this process, or at a moment; the server's decides."""
        return min(self.expires_at, self.ends_at) <= (now or utc_now())

    def update_activity(self) -> Self:
        """Return it as it is once it has been used now."""
        return self._used(utc_now(), self.idle_seconds)

    def extend_session(self, hours: float = 1) -> Self:
        """Return it with at least so many hours from now to live, as far as ``ends_at`` allows.

        Raises:
            ValidationError: hours is no positive number of reasonable size.
        """
        seconds = checked_hours(hours) / 1000
        extended = self._used(utc_now(), seconds)
        return extended.model_copy(update={"extended_seconds": max(seconds, self.extended_seconds)})

    def _used(self, now: datetime, seconds: float) -> Self:
        later = min(max(self.expires_at, now + timedelta(seconds=seconds)), self.ends_at)
        return self.model_copy(update={"last_activity_at": max(now, self.last_activity_at), "expires_at": later})

    def stored_at(self, milliseconds: int) -> Self:
        """Return it with all its moments moved, so that it was created at one that the server told."""
        shift = _EPOCH + milliseconds * _MILLISECOND - self.created_at
        return self.model_copy(update={name: getattr(self, name) + shift for name in self.moment_fields})

    def to_redis_hash(self) -> dict[str, str]:
        """Return the fields of its hash; the id is not among them.

        Raises:
            ValidationError: its data is too large.
        """
        moments = {name: str(to_milliseconds(getattr(self, name))) for name in self.moment_fields}
        return {
            "tenant_id": self.tenant_id,
            "user_id": self.user_id,
            **moments,
            "idle": str(max(1, round(self.idle_seconds * 1000))),
            "version": str(self.version),
            **encoded_data(self.data),
        }

    @classmethod
    def from_redis_hash(cls, hash_data: Mapping[Any, Any], session_id: str = "", fingerprint: str = "") -> Self:
        """Return the session of a hash; unknown fields, which a later release may write, are ignored.

        Args:
            hash_data: names and values, as text or bytes.
            session_id: its id, if known.
            fingerprint: its fingerprint; by default that of the id.

        Raises:
            CorruptDocumentError: a field is missing or not valid.
        """
        session = cls.__new__(cls)
        fingerprint = fingerprint or fingerprint_of(session_id)
        fields: dict[str, Any] = {"session_id": session_id, "fingerprint": fingerprint}
        try:
            _decode(hash_data, fields)
            cls.__pydantic_validator__.validate_python(fields, self_instance=session, extra="ignore")
        except pydantic.ValidationError as error:
            field = str(error.errors(include_input=False, include_url=False)[0]["loc"][0])
            raise CorruptDocumentError(cls.entity_type, fingerprint[:SHOWN], field) from None
        except (ValueError, OverflowError):
            raise CorruptDocumentError(cls.entity_type, fingerprint[:SHOWN], "data") from None
        return session


def _moment(text: str) -> datetime:
    return _EPOCH + int(text) * _MILLISECOND


_DECODERS: Mapping[str, Any] = {
    **dict.fromkeys(("tenant_id", "user_id"), str),
    **dict.fromkeys(SessionData.moment_fields, _moment),
    "version": int,
}


def _decode(hash_data: Mapping[Any, Any], fields: dict[str, Any]) -> None:
    data: dict[str, Any] = {}
    for key, item in hash_data.items():
        name = key.decode() if isinstance(key, bytes) else key
        text = item.decode() if isinstance(item, bytes) else item
        if name.startswith(DATA_PREFIX):
            data[name[len(DATA_PREFIX) :]] = from_json(text)
        elif name == "idle":
            fields["idle_seconds"] = int(text) / 1000
        elif name in _DECODERS:
            fields[name] = _DECODERS[name](text)
    fields["data"] = data


def encoded_data(data: Mapping[str, Any], field: str = "data") -> dict[str, str]:
    """Return checked plain data as fields of a hash.

    Raises:
        ValidationError: it is too large.
    """
    fields = {
        DATA_PREFIX + name: json.dumps(value, ensure_ascii=False, separators=(",", ":")) for name, value in data.items()
    }
    if len(fields) > MOST_FIELDS:
        raise ValidationError(f"{field}: must have at most {MOST_FIELDS} fields, not {len(fields)}", field)
    size = sum(len(name.encode()) + len(text.encode()) for name, text in fields.items())
    if size > LARGEST_DATA:
        raise ValidationError(f"{field}: must take at most {LARGEST_DATA} bytes as JSON, not {size}", field)
    return fields


def to_milliseconds(moment: datetime) -> int:
    """Return a moment as scripts count them: milliseconds since 1970."""
    return (moment - _EPOCH) // _MILLISECOND


def checked_hours(hours: object) -> int:
    """Return hours in milliseconds.

    Raises:
        ValidationError: it is no positive number, or more than ten years.
    """
    return _length(hours, "hours", 3600)


def checked_seconds(seconds: object, field: str) -> int:
    """Return seconds in milliseconds.

    Raises:
        ValidationError: it is no positive number, or more than ten years.
    """
    return _length(seconds, field, 1)


def _length(value: object, field: str, unit: int) -> int:
    highest = LONGEST.total_seconds() / unit
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= highest:
        raise ValidationError(f"{field}: must be a number above 0, at most {highest:.0f}", field)
    return max(1, round(value * unit * 1000))
