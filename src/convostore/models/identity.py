"""Identities: components joined into one string, injectively.

Each component is percent-escaped where it holds a character with a meaning in an identity or a Redis key, so the
join of different components is never the same string, and ``split`` gives back exactly what was joined.
"""

from functools import lru_cache
from urllib.parse import unquote

from convostore.repositories.exceptions import ValidationError

SEPARATOR = ":"
AFTER_SEPARATOR = ";"  # the next code point: "a:" <= everything below "a" < "a;"
MAX_COMPONENT_LENGTH = 256
_RESERVED = "%:{}"  # the percent sign first: what the others become must not be escaped again


def escape(component: str) -> str:
    """Return the component with the reserved characters percent-escaped."""
    # Made for each call to a database, mostly of the same few tenants and conversations, or of a number.
    return component if component.isalnum() else _escaped(component)


@lru_cache(maxsize=4096)
def _escaped(component: str) -> str:
    for character in _RESERVED:
        if character in component:
            component = component.replace(character, f"%{ord(character):02X}")
    return component


def join(*components: str) -> str:
    """Return the identity of the components, which must have been checked."""
    return _head(components[:-1]) + escape(components[-1])


@lru_cache(maxsize=8192)
def _head(components: tuple[str, ...]) -> str:
    # The tenant, or the tenant and the conversation: the same for many calls.
    return "".join([escape(component) + SEPARATOR for component in components])


def split(identity: str) -> tuple[str, ...]:
    """Return the components that ``join`` was given."""
    return tuple(unquote(part, errors="strict") for part in identity.split(SEPARATOR))


def check_identifier(value: object, field: str) -> str:
    """Return an identifier a caller chose, if it can be one.

    Any text of 1 to 256 characters without control characters and lone surrogates can.

    Raises:
        ValidationError: it is no text, empty, too long, or has such a character; names the field.
    """
    if type(value) is str and 0 < len(value) <= MAX_COMPONENT_LENGTH and value.isprintable():
        return value
    if not isinstance(value, str):
        raise ValidationError(f"{field}: must be text, not {type(value).__name__}", field)
    problem = _problem_with(value)
    if problem:
        raise ValidationError(f"{field}: {problem}", field)
    return str.__str__(value)


def _problem_with(value: str) -> str | None:
    if not value:
        return "must not be empty"
    if len(value) > MAX_COMPONENT_LENGTH:
        return f"must have at most {MAX_COMPONENT_LENGTH} characters, not {len(value)}"
    if any(ch < " " or "\x7f" <= ch <= "\x9f" for ch in value):
        return "must not contain control characters"
    if any("\ud800" <= ch <= "\udfff" for ch in value):
        return "must not contain lone surrogates"
    return None
