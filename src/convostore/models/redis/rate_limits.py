"""Policies of rate limits: how much of what, and what happens when the server is away."""

import re
from enum import Enum, StrEnum
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import Field, StringConstraints

from convostore.models.document import Value
from convostore.models.types import Timestamp
from convostore.repositories.exceptions import ValidationError

MOST_UNITS = 2**31 - 1
LONGEST_WINDOW = 400 * 86_400  # seconds
LONGEST_LEASE = 86_400.0

Units = Annotated[int, Field(ge=1, le=MOST_UNITS)]
PolicyName = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
BlockSeconds = Annotated[float, Field(gt=0, le=30 * 86_400, strict=False, allow_inf_nan=False)]


class Algorithm(StrEnum):
    """How units are counted.

    Attributes:
        WINDOW: never more than the limit in any trailing window, wherever it begins; sustained use reaches at least
            60 / 61 of the limit.
        SMOOTH: evenly spaced, with bursts (generic cell rate algorithm); a window may see ``limit + burst``.
        DAY, MONTH: a quota for each day or month of the UTC calendar.
    """

    WINDOW = "window"
    SMOOTH = "smooth"
    DAY = "day"
    MONTH = "month"

    @property
    def is_calendar(self) -> bool:
        """Whether it counts in days or months of the calendar."""
        return self in (Algorithm.DAY, Algorithm.MONTH)


class WhenUnavailable(StrEnum):
    """What happens while the server does not answer.

    Attributes:
        LOCAL: each process admits its share by itself; it begins with nothing counted.
        OPEN: everything is admitted.
        CLOSED: everything is denied, as for logins.
    """

    LOCAL = "local"
    OPEN = "open"
    CLOSED = "closed"


class WholeTenant(Enum):
    """Stands in the place of an identifier for all of a tenant's."""

    WHOLE_TENANT = "whole tenant"


WHOLE_TENANT: Final = WholeTenant.WHOLE_TENANT
CALENDAR_SECONDS = {Algorithm.DAY: 86_400, Algorithm.MONTH: 31 * 86_400}

_SECONDS = {"s": 1, "second": 1, "m": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86_400, "day": 86_400}
_TEXT = re.compile(
    r"(?P<limit>[0-9]{1,10}) ?(?:/|per) ?"
    r"(?:calendar (?P<calendar>day|month)|(?P<times>[0-9]{1,8})? ?(?P<unit>s|m|h|d|(?:second|minute|hour|day)s?))"
    r"(?: burst (?P<burst>[0-9]{1,10}))?",
    re.ASCII,
)


class RateLimitPolicy(Value):
    """What is allowed under a name.

    What has been counted stays when the limit of a name changes, and as far as it can when its window does.

    Attributes:
        name: letters, digits and ``_.-``; counters are kept by it. It begins with a letter, unless it is the one that
            ``ad_hoc`` makes of the rest.
        limit: units, 1 to 2**31 - 1.
        window_seconds: whole seconds, up to 400 days; left out for ``day`` and ``month``.
        algorithm: how they are counted.
        burst: for ``smooth``: units that may be taken at once after a pause; 1 if it is left out.
        when_unavailable: what happens while the server does not answer.
    """

    name: PolicyName
    limit: Units
    window_seconds: Annotated[int, Field(ge=1, le=LONGEST_WINDOW)] | None = None
    algorithm: Annotated[Algorithm, Field(strict=False)] = Algorithm.WINDOW
    burst: Units | None = None
    when_unavailable: Annotated[WhenUnavailable, Field(strict=False)] = WhenUnavailable.LOCAL

    def __init__(self, /, **fields: Any) -> None:
        super().__init__(**fields)
        calendar, smooth = self.algorithm.is_calendar, self.algorithm is Algorithm.SMOOTH
        if calendar == (self.window_seconds is not None):
            rule = "follows from the calendar" if calendar else "must be given"
            raise ValidationError(f"window_seconds: {rule}", "window_seconds")
        if self.burst is not None and not smooth:
            raise ValidationError("burst: only for the algorithm 'smooth'", "burst")
        if self.name[0].isdigit() and self.name != ad_hoc_name(self.algorithm, self.window_seconds):
            raise ValidationError("name: must begin with a letter", "name")

    @property
    def seconds(self) -> int:
        """The length of the window, or of the longest period of the calendar."""
        return self.window_seconds or CALENDAR_SECONDS[self.algorithm]

    @property
    def most_at_once(self) -> int:
        """The highest cost that can ever be admitted."""
        return (self.burst or 1) if self.algorithm is Algorithm.SMOOTH else self.limit

    @classmethod
    def ad_hoc(cls, limit: int, window_seconds: int | None, **settings: Any) -> Self:
        """Return a policy named after its window, such as ``60s``; never after its limit, which may change.

        Raises:
            ValidationError: a setting is not valid.
        """
        algorithm = settings.get("algorithm", Algorithm.WINDOW)
        name = ad_hoc_name(algorithm, window_seconds)
        return cls(name=name, limit=limit, window_seconds=window_seconds, **settings)

    @classmethod
    def parse(cls, text: str, name: str | None = None, **settings: Any) -> Self:
        """Return the policy of a text.

        Such as ``60/minute``, ``5 per 10 minutes``, ``60/minute burst 10`` (smooth), ``100000 per calendar month``.

        Raises:
            ValidationError: the text is none, or a setting is not valid.
        """
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValidationError("policy: must be text such as '60/minute' or '1000 per calendar month'", "policy")
        fields = _fields(found) | settings
        return cls.ad_hoc(**fields) if name is None else cls(name=name, **fields)


class AbuseGuard(Value):
    """When an identity that keeps being denied is blocked, and for how long.

    Attributes:
        denials: so many, as the server sees them ...
        within_seconds: ... in such a time lead to a block.
        block_seconds: length of the first block; each further one is twice as long as the one before ...
        longest_block_seconds: ... up to this. After as long a time without a block the first length counts again.
    """

    denials: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    within_seconds: BlockSeconds = 60.0
    block_seconds: BlockSeconds = 60.0
    longest_block_seconds: BlockSeconds = 3600.0

    def __init__(self, /, **fields: Any) -> None:
        super().__init__(**fields)
        if self.longest_block_seconds < self.block_seconds:
            raise ValidationError("longest_block_seconds: must not be below block_seconds", "longest_block_seconds")


class Block(Value):
    """How an identity is blocked.

    Attributes:
        until: when it ends.
        retry_after: seconds until then.
        times: how often it has been blocked of late, this block included.
    """

    moment_fields: ClassVar[tuple[str, ...]] = ("until",)

    until: Timestamp
    retry_after: float
    times: int


def ad_hoc_name(algorithm: str, window_seconds: object) -> str:
    """Return the name of a policy that nobody has named."""
    window = "1" if window_seconds is None else f"{window_seconds}s"
    return window if algorithm == Algorithm.WINDOW else f"{window}-{algorithm}"


def _fields(found: re.Match[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"limit": int(found["limit"]), "window_seconds": None}
    if found["calendar"]:
        fields["algorithm"] = Algorithm(found["calendar"])
    else:
        unit = found["unit"] if len(found["unit"]) == 1 else found["unit"].removesuffix("s")
        fields["window_seconds"] = int(found["times"] or 1) * _SECONDS[unit]
    if found["burst"]:
        fields.update(algorithm=Algorithm.SMOOTH, burst=int(found["burst"]))
    return fields
