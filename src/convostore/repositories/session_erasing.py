"""SessionErasing: takes away what sessions hold, without knowing the secret from which their ids are made.

The hash of a session names its user. So they are found by a look at all of the tenant's, those that were revoked and
wait for their end included, and whatever secret was in use when they were begun.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import ClassVar, NamedTuple

from convostore.models.keys import NAMESPACE, pattern
from convostore.models.redis.session_cache import SessionData, to_milliseconds
from convostore.models.redis.session_identity import INDEX, KIND, channel
from convostore.repositories import session_scripts as scripts
from convostore.repositories.redis_repository import RedisRepository
from convostore.repositories.session_replies import new_token, raised

_FIELDS = ("user_id", "last_activity_at")


class Wanted(NamedTuple):
    """Which sessions.

    Attributes:
        tenant_id: whose.
        user_id: of whom; None for all.
        idle_since: only those that were not used since; None for all.
    """

    tenant_id: str
    user_id: str | None = None
    idle_since: datetime | None = None

    def includes(self, user: bytes | None, used_at: bytes | None) -> bool:
        """Say whether a session is one of them; one that holds nothing is none."""
        if user is None or (self.user_id is not None and user.decode() != self.user_id):
            return False
        return self.idle_since is None or int(used_at or 0) < to_milliseconds(self.idle_since)


class SessionErasing(RedisRepository):
    """Counts and erases sessions by a scan of the servers, bundle by bundle; every method may be repeated."""

    kind: ClassVar[str] = KIND
    entity_type: ClassVar[str] = SessionData.entity_type

    async def count(self, wanted: Wanted) -> int:
        """Count the sessions that hold anything."""
        return sum([len(keys) async for keys in self._found(wanted)])

    async def erase(self, wanted: Wanted) -> int:
        """End sessions and take away what they hold; return how many held anything."""
        erased = 0
        async for keys in self._found(wanted):
            calls = [
                ((key, _index_of(key)), (key.rpartition(":")[2], new_token(), channel(wanted.tenant_id)))
                for key in keys
            ]
            erased += sum(raised(await self.redis.scripts(self._running(scripts.ERASE), scripts.ERASE, calls)))
        return erased

    async def _found(self, wanted: Wanted) -> AsyncIterator[list[str]]:
        look = self._operation("session_look")
        async for keys in self.redis.scan(self._operation("session_scan"), pattern(KIND, wanted.tenant_id)):
            replies = raised(await self.redis.commands(look, [("HMGET", key, *_FIELDS) for key in keys]))
            found = [key.decode() for key, reply in zip(keys, replies, strict=True) if wanted.includes(*reply)]
            if found:
                yield found


def _index_of(key: str) -> str:
    """Return the key of the index beside a session's hash, which has the same tag."""
    tag = key[key.index("{") : key.rindex("}") + 1]
    return f"{NAMESPACE}:{INDEX}:{tag}"
