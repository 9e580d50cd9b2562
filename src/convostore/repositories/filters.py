"""Filters: what a caller may ask for, turned into queries in which a value can never become an operator."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, StringConstraints

from convostore.models.document import Value
from convostore.models.plain_data import check_text
from convostore.models.types import (
    ChannelType,
    ConversationId,
    ConversationStatus,
    DeliveryStatus,
    ExternalId,
    MessageRole,
    TenantId,
    Timestamp,
    UserId,
)
from convostore.repositories.exceptions import ValidationError

Query = dict[str, Any]
SearchText = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=200, pattern=r"^[^\p{Cc}]*[^\p{Cc}\s][^\p{Cc}]*$")
]
_QUOTING = str.maketrans({'"': " ", "\\": " "})


class Filter(Value):
    """Conditions that must all hold; the empty filter matches everything of the tenant.

    Values are scalars. None is refused where the field cannot be empty: a variable that was forgotten must not widen
    the answer to everything.
    """

    nullable: ClassVar[frozenset[str]] = frozenset()
    equal_fields: ClassVar[tuple[str, ...]] = ()
    date_field: ClassVar[str] = "created_at"
    moment_fields: ClassVar[tuple[str, ...]] = ("start_date", "end_date")

    tenant_id: TenantId | None = None
    start_date: Timestamp | None = None
    end_date: Timestamp | None = None
    search: SearchText | None = None

    @property
    def is_indexed(self) -> bool:
        """Whether an index leads to what matches, so that the first of it is found at once."""
        return self.search is None

    def __init__(self, /, **fields: Any) -> None:
        for name, value in fields.items():
            if value is None and name not in self.nullable:
                raise ValidationError(f"{name}: must not be None; leave it out instead", name)
        super().__init__(**fields)

    @classmethod
    def parse(cls, filters: Mapping[str, Any] | Self | None) -> Self:
        """Return the filter that a caller gave as a mapping of names to values.

        Raises:
            ValidationError: it is no mapping, or has an unknown name or a value that is no such scalar.
        """
        if isinstance(filters, cls):
            return filters
        if filters is not None and not isinstance(filters, Mapping):
            raise ValidationError(f"filters: must be a mapping, not {type(filters).__name__}", "filters")
        fields = dict(filters or {})
        for name in fields:
            if not isinstance(name, str):
                raise ValidationError("filters: names must be text", "filters")
            check_text(name, "filters")
        return cls(**fields)

    def query(self) -> Query:
        """Return the conditions in the database's language, without those on tenant and text."""
        given = self.model_fields_set
        query: Query = {name: {"$eq": _plain(getattr(self, name))} for name in self.equal_fields if name in given}
        period = {"$gte": self.start_date, "$lte": self.end_date}
        bounds = {operator: moment for operator, moment in period.items() if moment is not None}
        return {**query, self.date_field: bounds} if bounds else query


class SearchWords(Value):
    """The words that a search asks for."""

    text: SearchText


class ConversationFilter(Filter):
    """Which conversations: an ``assignee`` of None asks for those without one; dates are of ``started_at``."""

    nullable: ClassVar[frozenset[str]] = frozenset({"assignee"})
    equal_fields: ClassVar[tuple[str, ...]] = (
        "user_id", "conversation_id", "status", "channel", "assignee", "tags",
    )  # fmt: skip
    date_field: ClassVar[str] = "started_at"

    user_id: UserId | None = None
    conversation_id: ConversationId | None = None
    status: Annotated[ConversationStatus, Field(strict=False)] | None = None
    channel: Annotated[ChannelType, Field(strict=False)] | None = None
    assignee: UserId | None = None
    tags: Annotated[str, Field(min_length=1, max_length=100)] | None = None

    def query(self) -> Query:
        """Return the conditions; ``search`` asks the text index for all its words."""
        query = super().query()
        if self.search is not None:
            query["$text"] = {"$search": every_word(self.search)}
        return query


class MessageFilter(Filter):
    """Which messages of one conversation; dates are of ``created_at``."""

    equal_fields: ClassVar[tuple[str, ...]] = ("role", "delivery_status", "external_id")

    conversation_id: ConversationId
    role: Annotated[MessageRole, Field(strict=False)] | None = None
    delivery_status: Annotated[DeliveryStatus, Field(strict=False)] | None = None
    external_id: ExternalId | None = None

    def query(self) -> Query:
        """Return the conditions; ``search`` asks for all its words in any case, anywhere in the text."""
        query = super().query()
        if self.search is not None:
            query.update(containing(self.search))
        return query

    @property
    def is_indexed(self) -> bool:
        """Whether nothing has to be read on the way to what matches."""
        return self.is_whole_conversation

    @property
    def is_whole_conversation(self) -> bool:
        """Whether every message of the conversation is meant."""
        return self.model_fields_set <= {"conversation_id", "tenant_id"}


def every_word(text: str) -> str:
    """Return a text search that asks for each word literally; a minus sign or a quote in it means nothing."""
    return " ".join(f'"{word}"' for word in text.translate(_QUOTING).split())


def containing(text: str) -> Query:
    """Return the condition that a message's text contains each word, in any case."""
    return {"$and": [{"content": {"$regex": re.escape(word), "$options": "i"}} for word in text.split()]}


def _plain(value: str | datetime | None) -> str | datetime | None:
    return str(value) if isinstance(value, str) else value
