"""Ages: how old something must be, as a text that a person writes."""

import re
from datetime import timedelta

from convostore.repositories.exceptions import ValidationError

SHORTEST, LONGEST = timedelta(hours=1), timedelta(days=36_500)
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1), "y": timedelta(days=365)}
_AGE = re.compile(r"([1-9][0-9]{0,5}) ?([hdwy])", re.ASCII)


def parse_age(text: object, field: str = "older_than") -> timedelta:
    """Return the age of a text: a whole number of hours, days, weeks or years, such as ``36h``, ``90d`` or ``2y``.

    Raises:
        ValidationError: it is none, or shorter than an hour or longer than a century; names the field.
    """
    found = _AGE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise ValidationError(f"{field}: must be a number and h, d, w or y, such as 36h, 90d, 2y", field)
    return checked_age(int(found[1]) * _UNITS[found[2]], field)


def checked_age(age: object, field: str = "older_than") -> timedelta:
    """Return an age, if it can be one.

    Raises:
        ValidationError: it is none, or shorter than an hour or longer than a century; names the field.
    """
    if not isinstance(age, timedelta) or not SHORTEST <= age <= LONGEST:
        raise ValidationError(f"{field}: must be an age from an hour to a hundred years", field)
    return age
