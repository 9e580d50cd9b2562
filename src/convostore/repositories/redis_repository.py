"""RedisRepository: what the repositories on Redis share."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from convostore.gateways.operation import Operation
from convostore.gateways.redis_gateway import RedisGateway
from convostore.gateways.redis_wire import Part
from convostore.gateways.scripts import Script
from convostore.repositories.exceptions import ValidationError


class RedisRepository:
    """Base of the repositories on Redis: names its calls for errors, logs and observers.

    Class attributes:
        kind: where the repository acts, as logs call it; the first part of its keys.
        entity_type: what errors call its entries.

    Args:
        redis_client: the way to the server; stays open.
    """

    kind: ClassVar[str] = "redis"
    entity_type: ClassVar[str] = "Entry"

    def __init__(self, redis_client: RedisGateway) -> None:
        if not isinstance(redis_client, RedisGateway):
            raise ValidationError("redis_client: must be a RedisGateway, as store.redis.state is one", "redis_client")
        self.redis = redis_client

    async def _script(self, script: Script, keys: Sequence[str], *arguments: Part) -> Any:
        """Run a script once and return its reply."""
        return await self.redis.script(self._running(script), script, keys, *arguments)

    def _running(self, script: Script) -> Operation:
        return self._operation(script.name, writes=script.writes, repeatable=script.repeatable)

    def _operation(self, name: str, *, writes: bool = False, repeatable: bool = False) -> Operation:
        """Return the name of a call; what only reads may always be repeated."""
        return Operation(name, self.kind, self.entity_type, writes=writes, repeatable=repeatable or not writes)


def checked_whole(value: object, field: str, lowest: int = 1, highest: int = 2**53 - 1) -> int:
    """Return a whole number, if it lies between two bounds; the highest is what a script can count to exactly.

    Raises:
        ValidationError: it is none, or does not; names the field.
    """
    if type(value) is not int:
        raise ValidationError(f"{field}: must be a whole number, not {type(value).__name__}", field)
    if not lowest <= value <= highest:
        raise ValidationError(f"{field}: must lie between {lowest} and {highest}", field)
    return value


def checked_seconds(value: object, field: str, highest: float, lowest: float = 0.001) -> int:
    """Return a length of time in milliseconds, if it lies between two bounds in seconds.

    Raises:
        ValidationError: it is no number, or does not; names the field.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValidationError(f"{field}: must be a number of seconds", field)
    if not lowest <= value <= highest:
        raise ValidationError(f"{field}: must lie between {lowest:g} and {highest:g} seconds", field)
    return round(value * 1000)
