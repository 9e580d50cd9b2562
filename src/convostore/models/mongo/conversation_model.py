"""The conversation document."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field

from convostore.models.document import Document
from convostore.models.part import Part
from convostore.models.types import (
    ChannelType,
    ConversationId,
    ConversationStatus,
    MessageRole,
    PlainDict,
    Timestamp,
    UserId,
    Version,
    new_id,
    utc_now,
)

PREVIEW_LENGTH = 120
Tag = Annotated[str, Field(min_length=1, max_length=100)]
Title = Annotated[str, Field(max_length=500)]


class LastMessage(Part):
    """What a list of conversations shows of the newest message.

    The order of the fields matters: the database compares documents by their fields in order, and ``$max`` over this
    one must prefer the later message, then the later edit of the same message.
    """

    moment_fields: ClassVar[tuple[str, ...]] = ("created_at",)

    sequence: int
    version: Version
    role: Annotated[MessageRole, Field(strict=False)]
    preview: str
    created_at: Timestamp


class ConversationDocument(Document):
    """A conversation: state that editors own, and activity that follows from its messages.

    Attributes:
        tenant_id: stamped on by the repository; empty until then.
        conversation_id: chosen by the caller, or a new time-ordered identifier.
        status, title, tags, metadata, assignee, completed_at: state, guarded by ``version``.
        message_count, last_activity_at, last_message: activity, changed only by appended messages.
        version: rises by one with each change of state.
    """

    entity_type: ClassVar[str] = "Conversation"
    plain_fields: ClassVar[tuple[str, ...]] = ("metadata",)
    moment_fields: ClassVar[tuple[str, ...]] = (
        "created_at", "started_at", "updated_at", "completed_at", "last_activity_at",
    )  # fmt: skip
    nested: ClassVar[dict[str, type[Part]]] = {"last_message": LastMessage}
    state_fields: ClassVar[tuple[str, ...]] = (
        "status", "title", "tags", "metadata", "assignee", "completed_at", "updated_at",
    )  # fmt: skip

    conversation_id: ConversationId = Field(default_factory=new_id)
    user_id: UserId
    channel: Annotated[ChannelType, Field(strict=False)]
    status: Annotated[ConversationStatus, Field(strict=False)] = ConversationStatus.ACTIVE
    title: Title | None = None
    tags: Annotated[tuple[Tag, ...], Field(strict=False, max_length=100)] = ()
    metadata: PlainDict = Field(default_factory=dict)
    assignee: UserId | None = None
    created_at: Timestamp = Field(default_factory=utc_now)
    started_at: Timestamp = Field(default_factory=lambda data: data["created_at"])
    updated_at: Timestamp = Field(default_factory=lambda data: data["created_at"])
    completed_at: Timestamp | None = None
    message_count: Annotated[int, Field(ge=0, lt=2**63)] = 0
    last_activity_at: Timestamp = Field(default_factory=lambda data: data["created_at"])
    last_message: LastMessage | None = None
    version: Version = 1

    @classmethod
    def start(cls, user_id: UserId, channel: ChannelType = ChannelType.WEB, **fields: Any) -> Self:
        """Return a new active conversation of a user; ``fields`` are any others of the document.

        Raises:
            ValidationError: a field is unknown or not valid.
        """
        return cls(user_id=user_id, channel=channel, **fields)

    @property
    def id(self) -> str:
        """What ``get_by_id`` takes."""
        return self.conversation_id

    def successor(self) -> Self:
        """Return this conversation as it stands after its next change of state."""
        return self.replaced(version=self.version + 1, updated_at=utc_now())
