"""Stored forms: from what the database holds to documents, at half of what pydantic takes for it.

Reading a page goes by for the most part in making documents of it, so that is done here by msgspec, which checks types
and bounds in one pass without a call back into Python. What it refuses is left to pydantic, which says what is wrong.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from types import UnionType
from typing import Annotated, Any, Generic, Required, TypedDict, TypeVar, Union, get_args, get_origin

import msgspec
from annotated_types import Ge, Lt, MaxLen, MinLen
from pydantic import StringConstraints
from pydantic.fields import FieldInfo

from convostore.models.part import Part, set_extra, set_fields, set_given, set_private
from convostore.models.plain_data import check_plain_data, unescape_keys
from convostore.repositories.exceptions import ValidationError

P = TypeVar("P", bound=Part)
ESCAPED = "escaped"  # names the fields whose keys were escaped on the way in; most documents have none

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WITHOUT_ZONE = _EPOCH.replace(tzinfo=None)


class StoredForm(Generic[P]):
    """How values of one class are stored.

    Args:
        kind: the class.
    """

    def __init__(self, kind: type[P]) -> None:
        fields = kind.model_fields
        self._kind = kind
        self._plain = frozenset(getattr(kind, "plain_fields", ()))
        self._nested = {name: stored_form(part) for name, part in getattr(kind, "nested", {}).items()}
        self._moments = [name for name in kind.moment_fields if _is_needed(fields[name])]
        self._others = [name for name in kind.moment_fields if not _is_needed(fields[name])]
        self._defaults = {name: field.default for name, field in fields.items() if _has_plain_default(field)}
        self._dicts = [name for name, field in fields.items() if field.default_factory is dict]
        self._uncommon = frozenset((*self._plain, *self._nested, *self._others, ESCAPED))
        self._list: Any = list[_typed_dict(kind)]  # type: ignore[misc]
        self._packed = msgspec.msgpack.Decoder(self._list)

    def read(self, several: Iterable[dict[str, Any]]) -> list[P] | None:
        """Return values of their stored forms, or None if one of them is not plainly valid."""
        try:
            return self._built(msgspec.convert(several, self._list))
        except (msgspec.ValidationError, ValidationError, UnicodeEncodeError):  # the last: a lone surrogate
            return None

    def unpack(self, packed: bytes) -> list[P] | None:
        """Return values of an array of their stored forms in MessagePack, or None if it is not plainly valid."""
        try:
            return self._built(self._packed.decode(packed))
        except (msgspec.DecodeError, ValidationError):
            return None

    def _built(self, several: Iterable[dict[str, Any]]) -> list[P]:
        # Nearly all documents pass by here, so what is the same for all, or rare, is kept out of it, and what ``built``
        # and ``put_into_utc`` do stands here once more: two calls for each document are a third of all.
        kind, defaults, is_common = self._kind, self._defaults, self._uncommon.isdisjoint
        moments, dicts, new = self._moments, self._dicts, self._kind.__new__
        values = []
        for fields in several:
            given = set(fields)
            for name in moments:
                moment = fields[name]
                if moment.tzinfo is None:
                    fields[name] = _EPOCH + (moment - _EPOCH_WITHOUT_ZONE)
            if not is_common(given):
                self._open(fields, given)
            for name in dicts:
                fields.setdefault(name, {})
            value = new(kind)
            set_fields(value, defaults | fields)
            set_given(value, given)
            set_extra(value, None)
            set_private(value, None)
            values.append(value)
        return values

    def _open(self, fields: dict[str, Any], given: set[str]) -> None:
        escaped = fields.pop(ESCAPED, ())
        given.discard(ESCAPED)
        put_into_utc(fields, self._others)
        for name in given & self._plain:
            fields[name] = _plain_data(fields[name], name, escaped=name in escaped)
        for name in given & self._nested.keys():
            if fields[name] is not None:
                (fields[name],) = self._nested[name]._built([fields[name]])  # noqa: SLF001


def put_into_utc(fields: dict[str, Any], names: Iterable[str]) -> None:
    """Make the moments among some fields say that they are in UTC, as the database keeps them."""
    for name in names:
        if type(fields.get(name)) is datetime:
            fields[name] = _in_utc(fields[name])


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else _EPOCH + (moment - _EPOCH_WITHOUT_ZONE)  # ``replace`` is slower


@cache
def stored_form(kind: type[P]) -> StoredForm[P]:
    """Return how values of a class are stored."""
    return StoredForm(kind)


def _plain_data(value: Any, name: str, *, escaped: bool) -> Any:
    if value:
        value = unescape_keys(value) if escaped else value
        check_plain_data(value, name)
    return value


def _has_plain_default(field: FieldInfo) -> bool:
    return not field.is_required() and field.default_factory is None


def _is_needed(field: FieldInfo) -> bool:
    return not _has_plain_default(field) and field.default_factory is not dict


def _typed_dict(kind: type[Part]) -> Any:
    transient = getattr(kind, "transient_fields", ())
    fields = {
        name: Required[_field_type(field)] if _is_needed(field) else _field_type(field)
        for name, field in kind.model_fields.items()
        if name not in transient
    }
    return TypedDict(kind.__name__, {**fields, ESCAPED: list[str]}, total=False)  # type: ignore[operator]


def _field_type(field: FieldInfo) -> Any:
    return _bounded(_type(field.annotation), field.metadata)


def _type(annotation: Any) -> Any:
    """Return an annotation as msgspec understands it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(_type(arguments[0]), arguments[1:])
    if origin in (Union, UnionType):
        return Union[tuple(_type(argument) for argument in arguments)]  # noqa: UP007 - made at run time
    if origin is tuple:
        return tuple[_type(arguments[0]), ...]  # type: ignore[misc]
    return _typed_dict(annotation) if isinstance(annotation, type) and issubclass(annotation, Part) else annotation


def _bounded(kind: Any, metadata: Iterable[Any]) -> Any:
    bounds: dict[str, Any] = {}
    for each in metadata:
        for constraint in each.metadata if isinstance(each, FieldInfo) else (each,):
            bounds |= _bounds(constraint)
    return Annotated[kind, msgspec.Meta(**bounds)] if bounds else kind


def _bounds(constraint: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(constraint, StringConstraints):
        found = {"min_length": constraint.min_length, "max_length": constraint.max_length}
    for cls, name in ((Ge, "ge"), (Lt, "lt"), (MinLen, "min_length"), (MaxLen, "max_length")):
        if isinstance(constraint, cls):
            found[name] = getattr(constraint, name)
    return {name: bound for name, bound in found.items() if bound is not None and abs(bound) < 2**63}
