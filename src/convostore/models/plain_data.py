"""Plain data: what JSON can say, kept without loss in a database document.

A key that begins with a dollar sign would come back from the driver as something else (``$ref`` becomes a database
reference), so such keys are stored with a percent sign in front, and so are keys that begin with one.
"""

import math
from typing import Any

from convostore.repositories.exceptions import ValidationError

MAX_DEPTH = 100
_INT64 = 2**63
_ESCAPED = ("$", "%")


def check_plain_data(value: Any, field: str) -> None:
    """Make sure that a value can be stored and read back the same.

    Allowed are None, bool, int of 64 bits, finite float, str without lone surrogates, list, and dict with str keys
    without NUL, nested at most 100 deep.

    Raises:
        ValidationError: names the path of what cannot be stored.
    """
    _check(value, field, 0)


def _check(value: Any, path: str, depth: int) -> None:
    kind = type(value)
    if kind is str:
        check_text(value, path)
    elif kind is dict:
        _check_dict(value, path, depth + 1)
    elif kind is list:
        _check_list(value, path, depth + 1)
    elif value is not None and kind is not bool:
        _check_number(value, path)


def _check_number(value: Any, path: str) -> None:
    if isinstance(value, int):  # also of the class that the driver has for large ones
        if not -_INT64 <= value < _INT64:
            raise ValidationError(f"{path}: integers must fit into 64 bits", path)
    elif type(value) is not float:
        raise ValidationError(f"{path}: {type(value).__name__} is not plain data (JSON)", path)
    elif not math.isfinite(value):
        raise ValidationError(f"{path}: JSON has no {value}", path)


def _check_list(value: list[Any], path: str, depth: int) -> None:
    _check_depth(path, depth)
    for index, item in enumerate(value):
        _check(item, f"{path}[{index}]", depth)


def _check_dict(value: dict[Any, Any], path: str, depth: int) -> None:
    _check_depth(path, depth)
    for key, item in value.items():
        if type(key) is not str:
            raise ValidationError(f"{path}: keys must be text, not {type(key).__name__}", path)
        if "\0" in key:
            raise ValidationError(f"{path}: keys must not contain NUL", path)
        check_text(key, path)
        _check(item, f"{path}.{key}", depth)


def _check_depth(path: str, depth: int) -> None:
    if depth > MAX_DEPTH:
        field = path.partition(".")[0].partition("[")[0]
        raise ValidationError(f"{field}: nested deeper than {MAX_DEPTH}", field)


def check_text(value: str, path: str) -> None:
    """Make sure that a text can be encoded.

    Raises:
        ValidationError: it holds a lone surrogate.
    """
    if not (value.isascii() or _is_encodable(value)):
        raise ValidationError(f"{path}: must not contain lone surrogates", path)


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # it holds the text, so it must not be what led to an error
        return False
    return True


def needs_escape(value: Any) -> bool:
    """Say whether some key in the value must be stored under another name."""
    if type(value) is dict:
        return any(key.startswith(_ESCAPED) or needs_escape(item) for key, item in value.items())
    return type(value) is list and any(needs_escape(item) for item in value)


def escape_keys(value: Any) -> Any:
    """Return the value with a percent sign before each key that begins with a dollar or a percent sign."""
    if type(value) is dict:
        return {f"%{k}" if k.startswith(_ESCAPED) else k: escape_keys(item) for k, item in value.items()}
    return [escape_keys(item) for item in value] if type(value) is list else value


def unescape_keys(value: Any) -> Any:
    """Undo ``escape_keys``."""
    if type(value) is dict:
        return {key.removeprefix("%"): unescape_keys(item) for key, item in value.items()}
    return [unescape_keys(item) for item in value] if type(value) is list else value
