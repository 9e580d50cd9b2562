"""Document: the base of everything that is stored."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, ClassVar, Self

import pydantic
from pydantic import BaseModel
from pydantic_core import ErrorDetails

from convostore.models.part import Part, built
from convostore.models.plain_data import check_plain_data, escape_keys, needs_escape, unescape_keys
from convostore.models.stored_form import ESCAPED, put_into_utc, stored_form
from convostore.models.types import OptionalTenantId, to_utc_milliseconds
from convostore.repositories.exceptions import CorruptDocumentError, ValidationError


class Value(Part):
    """A frozen, strictly validated value, made by callers.

    Raises:
        ValidationError: a field is missing, unknown, of a wrong type, or holds what cannot be stored.
    """

    def __init__(self, /, **fields: Any) -> None:
        for name in self.moment_fields:
            if isinstance(fields.get(name), datetime):
                fields[name] = _in_utc(fields[name], name)
        try:
            super().__init__(**fields)
        except pydantic.ValidationError as error:
            raise _as_our_own(error.errors(include_input=False, include_url=False)[0]) from None

    def evolve(self, /, **changes: Any) -> Self:
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
        nested: the fields that hold a value of several fields, and its class.
        transient_fields: the fields that are not stored.
        state_fields: the fields that may change once the document is stored.
    """

    entity_type: ClassVar[str] = "Document"
    plain_fields: ClassVar[tuple[str, ...]] = ()
    nested: ClassVar[dict[str, type[Part]]] = {}
    transient_fields: ClassVar[frozenset[str]] = frozenset()
    state_fields: ClassVar[tuple[str, ...]] = ()

    tenant_id: OptionalTenantId = ""

    def evolve(self, /, **changes: Any) -> Self:
        """Return a validated copy with some fields changed; once it is stored, only those of its state can be.

        Raises:
            ValidationError: a change is not valid, or would not be stored.
        """
        fixed = changes.keys() & type(self).model_fields.keys() - set(self.state_fields)
        if self.tenant_id and fixed:
            name = min(fixed)
            raise ValidationError(f"{name}: cannot be changed once it is stored", name)
        return super().evolve(**changes)

    def stamped(self, tenant_id: str) -> Self:
        """Return the document as one of a tenant's.

        Raises:
            ValidationError: plain data has been changed into what cannot be stored.
        """
        # Nothing else can have changed, and to validate all again would cost a twentieth of storing it.
        plain = {name: dict(value) for name in self.plain_fields if (value := getattr(self, name))}
        for name, value in plain.items():
            check_plain_data(value, name)
        return self.replaced(**plain, tenant_id=tenant_id)

    def replaced(self, /, **changes: Any) -> Self:
        """Return a copy with some fields changed to what is known to be valid; ``evolve`` is for callers."""
        return built(type(self), {**self.__dict__, **changes}, self.__pydantic_fields_set__ | changes.keys())

    def to_dict(self) -> dict[str, Any]:
        """Return the document in its stored form; fields without a value are left out."""
        stored = {
            name: value if type(value) in _STORED_AS_THEY_ARE else _stored(value)
            for name, value in self.__dict__.items()
            if value is not None
            and name not in self.transient_fields
            and (value or value not in _UNSET or self._says(name))
        }
        escaped = [name for name in self.plain_fields if name in stored and needs_escape(stored[name])]
        if escaped:
            stored.update({name: escape_keys(stored[name]) for name in escaped}, escaped=escaped)
        return stored

    @classmethod
    def _says(cls, name: str) -> bool:
        """Say whether an empty value differs from the one a field has when it is left out."""
        return cls.__pydantic_fields__[name].default is None

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Self:
        """Return the document of a stored form; unknown fields, which a later release may write, are ignored.

        Raises:
            CorruptDocumentError: a field is missing or not valid.
        """
        return cls.from_dicts((stored,))[0]

    @classmethod
    def from_dicts(cls, several: Iterable[dict[str, Any]]) -> list[Self]:
        """Return the documents of several stored forms, as ``from_dict`` does.

        Raises:
            CorruptDocumentError: a field of one is missing or not valid.
        """
        stored = several if isinstance(several, list) else list(several)
        documents = stored_form(cls).read(stored)
        return [cls._validated(each) for each in stored] if documents is None else documents

    @classmethod
    def _validated(cls, stored: dict[str, Any]) -> Self:
        document = cls.__new__(cls)
        try:
            # What the constructor of the base class does, without the detour over keyword arguments.
            cls.__pydantic_validator__.validate_python(cls._fields(stored), self_instance=document, extra="ignore")
        except pydantic.ValidationError as error:
            field = _as_our_own(error.errors(include_input=False, include_url=False)[0]).field
            raise CorruptDocumentError(cls.entity_type, str(stored.get("_id")), str(field)) from None
        return document

    @classmethod
    def _fields(cls, stored: dict[str, Any]) -> dict[str, Any]:
        fields = _with_zone(cls, stored)
        if ESCAPED in fields:
            names = [name for name in cls.plain_fields if name in fields and name in _names(fields[ESCAPED])]
            fields.update({name: unescape_keys(fields[name]) for name in names})
        for name in cls.nested:
            if name in fields and isinstance(fields[name], dict):
                fields[name] = _known(cls.nested[name], fields[name])
        return fields


_UNSET: tuple[Any, ...] = ("", (), {})
_STORED_AS_THEY_ARE = frozenset({str, int, bool, datetime, dict})
_LONGEST_NAME = 100  # characters that an error shows of one
_PLAINER = {
    "extra_forbidden": "is not known",
    "string_unicode": "must be text without lone surrogates",
}


def _names(escaped: Any) -> list[Any]:
    return escaped if isinstance(escaped, list) else []


def _known(kind: type[Part], stored: dict[str, Any]) -> dict[str, Any]:
    fields = _with_zone(kind, stored)
    return {name: fields[name] for name in kind.model_fields if name in fields}


def _with_zone(kind: type[Part], stored: dict[str, Any]) -> dict[str, Any]:
    """Return a copy in which the moments say that they are in UTC, as the database keeps them."""
    fields = stored.copy()
    put_into_utc(fields, kind.moment_fields)
    return fields


def _in_utc(moment: datetime, field: str) -> datetime:
    try:
        return to_utc_milliseconds(moment)
    except ValueError as error:
        raise ValidationError(f"{field}: {error}", field) from None


def _stored(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, BaseModel):
        return {name: _stored(item) for name, item in value.__dict__.items() if item is not None}
    return value


def _as_our_own(details: ErrorDetails) -> ValidationError:
    """Name the field, and say why in words that never quote the value."""
    location = [_shortened(str(part)) for part in details["loc"]]
    cause = details.get("ctx", {}).get("error")
    path = ".".join(location) or "value"
    if isinstance(cause, ValidationError):
        path, text = path + str(cause.field).removeprefix("value"), str(cause).partition(": ")[2]
        return ValidationError(f"{path}: {text}", location[0])
    text = _PLAINER.get(details["type"], details["msg"].removeprefix("Value error, "))
    return ValidationError(f"{path}: {text}", location[0] if location else None)


def _shortened(name: str) -> str:
    # A name that is not known was chosen by the caller, or by his caller.
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
