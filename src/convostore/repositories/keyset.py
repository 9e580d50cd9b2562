"""Keyset pages: each continues behind the last item of the one before, at the same cost however far in.

Winand, "We need tool support for keyset pagination", use-the-index-luke.com, 2013. Null comes before every value, as
in the database's own order.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from convostore.models.plain_data import check_plain_data
from convostore.repositories.exceptions import ValidationError

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PARTS = 4
_MAX_LENGTH = 16_384  # the longest title and the longest identity, in characters that take six bytes in JSON


@dataclass(frozen=True, slots=True)
class KeysetPage(Generic[T]):
    """A page, and where the next one begins.

    Attributes:
        items: the items of this page.
        next_cursor: what to ask the next page with, or None after the last.
    """

    items: list[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Keyset:
    """An order of a listing, and what its cursors belong to.

    Attributes:
        field: sorted by this, then by ``_id``.
        direction: 1 or -1.
        scope: tenant, collection and filter in one text; a cursor of another scope is refused.
    """

    field: str
    direction: int
    scope: str

    @property
    def sort(self) -> list[tuple[str, int]]:
        """The order in the database's language."""
        by_field = [] if self.field == "_id" else [(self.field, self.direction)]
        return [*by_field, ("_id", self.direction)]

    def cursor_after(self, document: dict[str, Any]) -> str:
        """Return the cursor that continues behind a stored document."""
        value = document.get(self.field)
        tag, plain = ("d", _milliseconds(value)) if isinstance(value, datetime) else ("v", value)
        text = json.dumps([self._fingerprint(), tag, plain, document["_id"]], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def condition_after(self, cursor: str) -> dict[str, Any]:
        """Return the condition on what comes behind a cursor.

        Raises:
            ValidationError: it is no cursor of this listing.
        """
        value, identity = self._decode(cursor)
        beyond = "$gt" if self.direction > 0 else "$lt"
        if self.field == "_id":
            return {"_id": {beyond: identity}}
        tie = {self.field: {"$eq": value}, "_id": {beyond: identity}}
        return {"$or": [*self._beyond(value), tie]}

    def _beyond(self, value: Any) -> list[dict[str, Any]]:
        # A comparison never matches null, which comes before every value.
        if self.direction > 0:
            return [{self.field: {"$ne": None} if value is None else {"$gt": value}}]
        return [] if value is None else [{self.field: {"$lt": value}}, {self.field: {"$eq": None}}]

    def _decode(self, cursor: str) -> tuple[Any, str]:
        try:
            fingerprint, tag, value, identity = self._parts(cursor)
            check_plain_data([value, identity], "cursor")
            moment = _EPOCH + value * _MILLISECOND if tag == "d" else value
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise _no_cursor() from None
        known = moment is None or type(moment) in (str, int, datetime)
        if fingerprint != self._fingerprint() or not known or not isinstance(identity, str):
            raise _no_cursor()
        return moment, identity

    def _parts(self, cursor: str) -> list[Any]:
        if not isinstance(cursor, str) or len(cursor) > _MAX_LENGTH:
            raise ValueError
        padded = cursor + "=" * (-len(cursor) % 4)
        parts = json.loads(base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True))
        if not isinstance(parts, list) or len(parts) != _PARTS:
            raise ValueError
        return parts

    def _fingerprint(self) -> str:
        text = json.dumps([self.field, self.direction, self.scope])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _milliseconds(moment: datetime) -> int:
    # What the database gives is in UTC, whether or not it says so.
    return (moment.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND


def _no_cursor() -> ValidationError:
    return ValidationError("cursor: not a cursor of this listing", "cursor")


def next_page(keyset: Keyset, documents: list[dict[str, Any]], limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Return the documents of a page read with one more than its limit, and the cursor behind it."""
    page = documents[:limit]
    return page, keyset.cursor_after(page[-1]) if len(documents) > limit else None
