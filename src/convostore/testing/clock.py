"""A wrong clock: what a process takes for the time, set ahead or behind.

    with skewed(300):
        await store.sessions.start_session(tenant_id, user_id)

The clocks of machines differ. Processes on one machine share theirs, so this shifts what Python tells in one of them:
``time.time``, ``time.time_ns`` and the moments that convostore stamps. ``time.monotonic`` goes on as it is.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, tzinfo
from unittest.mock import patch

from convostore.models import types

__all__ = ["skewed"]


@contextmanager
def skewed(seconds: float) -> Iterator[None]:
    """Let this process take the time for so many seconds later than it is, or earlier where that is negative."""
    right, right_ns = time.time, time.time_ns

    class Skewed:
        """The class whose present moment convostore stamps."""

        @staticmethod
        def now(zone: tzinfo) -> datetime:
            """Return the present moment by the wrong clock."""
            return datetime.now(zone) + timedelta(seconds=seconds)

    with (
        patch.object(time, "time", lambda: right() + seconds),
        patch.object(time, "time_ns", lambda: right_ns() + round(seconds * 1e9)),
        patch.object(types, "datetime", Skewed),
    ):
        yield
