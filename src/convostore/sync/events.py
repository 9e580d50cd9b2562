"""Events: what has happened, as the change feed tells it.

They name what has changed and carry versions, not documents: a document read afterwards would be a later one, and
contents would travel to followers that do not need them. Whoever needs one reads it, and sees at least this version.
"""

from dataclasses import dataclass
from datetime import datetime

from convostore.gateways.change_stream import Loss
from convostore.models.types import DeliveryStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeEvent:
    """Something that has happened.

    Attributes:
        tenant_id: whose it is; empty where it concerns all tenants.
        cursor: give it as ``after``, at any time later, to go on behind this event.
        at: when it was committed, by the server's clock, in whole seconds.
    """

    tenant_id: str
    cursor: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationEvent(ChangeEvent):
    """Something that has happened to a conversation or in it.

    Attributes:
        conversation_id: which one.
    """

    conversation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationCreated(ConversationEvent):
    """A conversation was created, or its import was finished, in which case its messages were told before.

    Attributes:
        version: that it has.
    """

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationChanged(ConversationEvent):
    """The state of a conversation was changed; activity, which follows from its messages, is no state.

    Attributes:
        version: that it has now; None if another program changed it without saying so.
        fields: the names of the fields that were changed; empty if the whole was replaced.
    """

    version: int | None
    fields: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationDeleted(ConversationEvent):
    """A conversation was deleted, with all its messages.

    Attributes:
        version: that of its tombstone; None if not known.
        removed: nothing is left in its place: another program removed it, or the server did it with the tombstone of
            one that was deleted a month ago, so that this is a repetition.
    """

    version: int | None
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent(ConversationEvent):
    """Something that has happened to a message.

    Attributes:
        sequence: its place in the conversation.
    """

    sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageAppended(MessageEvent):
    """A message was appended, or several as one, of which ``sequence`` is the last.

    Attributes:
        count: how many.
    """

    count: int = 1

    @property
    def sequences(self) -> range:
        """The places of all of them."""
        return range(self.sequence - self.count + 1, self.sequence + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEdited(MessageEvent):
    """A message was changed.

    Attributes:
        version: that it has now; None if another program changed it without saying so.
        fields: the names of the fields that were changed; empty if the whole was replaced.
    """

    version: int | None
    fields: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryChanged(MessageEvent):
    """The delivery status of a message has moved.

    Attributes:
        status: where to; None if another program wrote what is none.
    """

    status: DeliveryStatus | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDeleted(MessageEvent):
    """A message was deleted; its place stays.

    Attributes:
        version: that of the blank; None if not known.
        removed: nothing is left in its place: another program removed it, or the server did it with what was left of a
            conversation that was deleted at least a day ago.
    """

    version: int | None
    removed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryLost(ChangeEvent):
    """Events are missing before this one: whoever keeps something that follows from them looks for himself.

    Attributes:
        reason: why.
    """

    reason: Loss
