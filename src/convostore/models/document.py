"""Document: the base of everything that is stored."""

from typing import Any, ClassVar, Self

import pydantic
from pydantic import BaseModel, ConfigDict
from pydantic_core import ErrorDetails

from convostore.models.plain_data import escape_keys, needs_escape, unescape_keys
from convostore.models.types import OptionalTenantId
from convostore.repositories.exceptions import CorruptDocumentError, ValidationError

ESCAPED = "escaped"  # names the fields whose keys were escaped on the way in; most documents have none


class Value(BaseModel):
    """A frozen, strictly validated value.

    Raises:
        ValidationError: a field is missing, unknown, of a wrong type, or holds what cannot be stored.
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", hide_input_in_errors=True, validate_default=False
    )

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except pydantic.ValidationError as error:
            raise _as_our_own(error.errors(include_input=False, include_url=False)[0]) from None

    def evolve(self, **changes: Any) -> Self:
        """Return a validated copy with some fields changed.

        Raises:
            ValidationError: a change is not valid.
        """
        return type(self)(**{**dict(self), **changes})


class Document(Value):
    """A value that is stored: it knows its tenant, its version, and its form in the database.

    Class attributes:
        entity_type: what errors call it.
        plain_fields: the fields that hold plain data of the caller.
        transient_fields: the fields that are not stored.
    """

    entity_type: ClassVar[str] = "Document"
    plain_fields: ClassVar[tuple[str, ...]] = ()
    transient_fields: ClassVar[frozenset[str]] = frozenset()

    tenant_id: OptionalTenantId = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the document in its stored form; fields without a value are left out."""
        kept = (item for item in self.__dict__.items() if item[0] not in self.transient_fields)
        stored = {name: _stored(value) for name, value in kept if value not in _UNSET}
        escaped = [name for name in self.plain_fields if name in stored and needs_escape(stored[name])]
        if escaped:
            stored.update({name: escape_keys(stored[name]) for name in escaped}, escaped=escaped)
        return stored

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Return the document of a stored form; unknown fields, which a later release may write, are ignored.

        Raises:
            CorruptDocumentError: a field is missing or not valid.
        """
        fields = {name: stored[name] for name in cls.model_fields if name in stored}
        for name in stored.get(ESCAPED, ()):
            fields[name] = unescape_keys(fields[name])
        try:
            return cls(**fields)
        except ValidationError as error:
            raise CorruptDocumentError(cls.entity_type, str(stored.get("_id")), str(error.field)) from error


_UNSET: tuple[Any, ...] = (None, "", (), {})


def _stored(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return {name: _stored(item) for name, item in value.__dict__.items() if item is not None}
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, str) else value


def _as_our_own(details: ErrorDetails) -> ValidationError:
    """Name the field, and say why in words that never quote the value."""
    location = [str(part) for part in details["loc"]]
    cause = details.get("ctx", {}).get("error")
    path = ".".join(location) or "value"
    if isinstance(cause, ValidationError):
        path, text = path + str(cause.field).removeprefix("value"), str(cause).partition(": ")[2]
        return ValidationError(f"{path}: {text}", location[0])
    return ValidationError(f"{path}: {details['msg'].removeprefix('Value error, ')}", location[0] if location else None)
