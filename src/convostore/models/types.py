"""The small types that all models share."""

import secrets
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field, InstanceOf, StringConstraints

from convostore.models.identity import MAX_COMPONENT_LENGTH
from convostore.models.plain_data import check_plain_data

# Any text but control characters; escaped wherever it becomes part of a key.
_Identifier = StringConstraints(strict=True, min_length=1, max_length=MAX_COMPONENT_LENGTH, pattern=r"^[^\p{Cc}]+$")
TenantId = Annotated[str, _Identifier]
UserId = Annotated[str, _Identifier]
ConversationId = Annotated[str, _Identifier]
MessageId = Annotated[str, _Identifier]
SessionId = Annotated[str, _Identifier]
ExternalId = Annotated[str, _Identifier]
IdempotencyKey = Annotated[str, _Identifier]
OptionalTenantId = Annotated[
    str, StringConstraints(strict=True, max_length=MAX_COMPONENT_LENGTH, pattern=r"^[^\p{Cc}]*$")
]
"""A tenant, or the empty text as long as no repository has stamped one on."""


def to_utc_milliseconds(moment: datetime) -> datetime:
    """Return the moment in UTC, cut to the milliseconds that the database keeps.

    Raises:
        ValueError: the moment has no time zone, or lies outside the years 1 to 9999 in UTC.
    """
    if moment.tzinfo is not UTC:
        moment = _in_utc(moment)
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000) if moment.microsecond % 1000 else moment


def _in_utc(moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise ValueError("must have a time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("must lie in the years 1 to 9999 in UTC") from error


def utc_now() -> datetime:
    """Return the present moment in UTC, cut to milliseconds."""
    return to_utc_milliseconds(datetime.now(UTC))


def new_id() -> str:
    """Return a new unique identifier of 32 hexadecimal digits, ordered by time (UUID version 7, RFC 9562)."""
    random = secrets.randbits(74)
    value = (time.time_ns() // 1_000_000) << 80 | 7 << 76 | (random >> 62) << 64 | 2 << 62 | random & (1 << 62) - 1
    return f"{value:032x}"


def _plain_dict(value: dict[str, Any]) -> dict[str, Any]:
    check_plain_data(value, "value")
    return value


# Checked by class alone: a function of ours for each moment would cost half of all reading. The models put moments into
# UTC on their way in, by the list of their ``moment_fields``.
Timestamp = Annotated[datetime, InstanceOf()]
Text = Annotated[str, Field(max_length=16 * 1024 * 1024)]
PlainDict = Annotated[dict[str, Any], AfterValidator(_plain_dict)]
Version = Annotated[int, Field(ge=1, lt=2**63)]


class ConversationStatus(StrEnum):
    """Where a conversation stands."""

    ACTIVE = "active"
    WAITING = "waiting"
    ESCALATED = "escalated"
    COMPLETED = "completed"
    ABANDONED = "abandoned"
    ARCHIVED = "archived"


class ChannelType(StrEnum):
    """Where a conversation takes place."""

    WEB = "web"
    MOBILE = "mobile"
    API = "api"
    WHATSAPP = "whatsapp"
    MESSENGER = "messenger"
    INSTAGRAM = "instagram"
    TELEGRAM = "telegram"
    SLACK = "slack"
    TEAMS = "teams"
    DISCORD = "discord"
    SMS = "sms"
    EMAIL = "email"
    VOICE = "voice"
    OTHER = "other"


class MessageRole(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class DeliveryStatus(StrEnum):
    """How far a message has come on its way to a person; it only moves forward."""

    QUEUED = "queued"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"

    @property
    def predecessors(self) -> tuple["DeliveryStatus", ...]:
        """The statuses that may be followed by this one.

        A failure ends a message that has not arrived; a proof that it has arrived outweighs a reported failure.
        """
        s = DeliveryStatus
        return {
            s.QUEUED: (),
            s.SENT: (s.QUEUED,),
            s.DELIVERED: (s.QUEUED, s.SENT, s.FAILED),
            s.READ: (s.QUEUED, s.SENT, s.DELIVERED, s.FAILED),
            s.FAILED: (s.QUEUED, s.SENT),
        }[self]
