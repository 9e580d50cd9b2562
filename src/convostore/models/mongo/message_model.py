"""The message document."""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from convostore.models.document import Document, Value
from convostore.models.identity import join
from convostore.models.mongo.conversation_model import PREVIEW_LENGTH
from convostore.models.part import Part
from convostore.models.types import (
    DeliveryStatus,
    ExternalId,
    IdempotencyKey,
    MessageId,
    MessageRole,
    PlainDict,
    Text,
    Timestamp,
    Version,
    new_id,
    utc_now,
)

SEQUENCE_DIGITS = 10
CHARACTERS_PER_TOKEN = 4  # a common rule of thumb for English text; used only where no usage is known


def sequence_key(sequence: int) -> str:
    """Return a sequence as the part of an identity, zero-padded so that text order is number order."""
    return f"{sequence:0{SEQUENCE_DIGITS}d}"


class TokenUsage(Value):
    """Tokens that a message cost, as the model's provider counted them."""

    input_tokens: Annotated[int, Field(ge=0, lt=2**63)] = 0
    output_tokens: Annotated[int, Field(ge=0, lt=2**63)] = 0


class MessageDocument(Document):
    """A message of a conversation.

    Attributes:
        tenant_id, conversation_id, sequence: given by ``append``; empty and 0 until then.
        message_id: unique; tells a message from any other, also from one with the same text.
        content: the text; empty where a message has none.
        payload: what a framework sent beside the text (tool calls, parts, names), kept without loss.
        external_id: the id of the message at the channel's provider, for example of a webhook.
        idempotency_key: unique within the conversation, where it is set.
        deleted_at: set once the message was deleted; its content is gone, its place in the log stays.
        version: rises by one with each edit.
        replayed: whether an append found the message stored before, under the same idempotency key; not stored.
    """

    entity_type: ClassVar[str] = "Message"
    plain_fields: ClassVar[tuple[str, ...]] = ("payload",)
    moment_fields: ClassVar[tuple[str, ...]] = ("created_at", "edited_at", "deleted_at")
    nested: ClassVar[dict[str, type[Part]]] = {"usage": TokenUsage}
    transient_fields: ClassVar[frozenset[str]] = frozenset({"replayed"})
    state_fields: ClassVar[tuple[str, ...]] = ("content", "payload", "usage", "external_id", "edited_at")
    content_fields: ClassVar[tuple[str, ...]] = ("role", "content", "payload", "usage", "external_id")

    conversation_id: Annotated[str, Field(max_length=256)] = ""
    sequence: Annotated[int, Field(ge=0, lt=10**SEQUENCE_DIGITS)] = 0
    message_id: MessageId = Field(default_factory=new_id)
    role: Annotated[MessageRole, Field(strict=False)]
    content: Text = ""
    payload: PlainDict | None = None
    usage: TokenUsage | None = None
    external_id: ExternalId | None = None
    idempotency_key: IdempotencyKey | None = None
    delivery_status: Annotated[DeliveryStatus, Field(strict=False)] | None = None
    created_at: Timestamp = Field(default_factory=utc_now)
    edited_at: Timestamp | None = None
    deleted_at: Timestamp | None = None
    version: Version = 1
    replayed: bool = False

    @classmethod
    def user(cls, content: str, **fields: Any) -> Self:
        """Return a message of a user.

        Raises:
            ValidationError: a field is unknown or not valid.
        """
        return cls(role=MessageRole.USER, content=content, **fields)

    @classmethod
    def assistant(cls, content: str, **fields: Any) -> Self:
        """Return a message of the assistant.

        Raises:
            ValidationError: a field is unknown or not valid.
        """
        return cls(role=MessageRole.ASSISTANT, content=content, **fields)

    @property
    def id(self) -> str:
        """What ``get_by_id`` takes: conversation and sequence in one string."""
        return self.identify(self.conversation_id, self.sequence)

    @staticmethod
    def identify(conversation_id: str, sequence: int) -> str:
        """Return the id of the message at a sequence of a conversation."""
        return join(conversation_id, sequence_key(sequence))

    @property
    def is_deleted(self) -> bool:
        """Whether only the place of the message is left."""
        return self.deleted_at is not None

    @property
    def tokens(self) -> int:
        """Tokens of this message: counted by the provider for an answer, else estimated from its length."""
        if self.usage and self.usage.output_tokens:
            return self.usage.output_tokens
        length = len(self.content) + (len(str(self.payload)) if self.payload else 0)
        return -(-length // CHARACTERS_PER_TOKEN)

    def content_digest(self) -> str:
        """Return a digest of what the message says, whenever and wherever it is stored."""
        said = [_stored_form(getattr(self, name)) for name in self.content_fields]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]

    def stored_preview(self) -> dict[str, Any]:
        """Return what a list of conversations shows of this message, as a ``LastMessage`` is stored."""
        return {
            "sequence": self.sequence,
            "version": self.version,
            "role": str(self.role),
            "preview": self.content[:PREVIEW_LENGTH],
            "created_at": self.created_at,
        }

    def successor(self) -> Self:
        """Return this message as it stands after its next edit."""
        return self.replaced(version=self.version + 1, edited_at=utc_now())

    def blank(self) -> Self:
        """Return what is left of this message once it is deleted."""
        return type(self)(
            tenant_id=self.tenant_id,
            conversation_id=self.conversation_id,
            sequence=self.sequence,
            message_id=self.message_id,
            idempotency_key=self.idempotency_key,  # a message delivered again must not come back
            role=self.role,
            created_at=self.created_at,
            deleted_at=utc_now(),
            version=self.version + 1,
        )


def _stored_form(value: Any) -> Any:
    return value.model_dump() if isinstance(value, Value) else value
