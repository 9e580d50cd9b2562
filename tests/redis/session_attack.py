"""Late writes to sessions, as they come from requests that are still under way when a session ends.

Run as ``python session_attack.py <address> <session key> <script mutant or nothing>`` it is a process that attacks the
sessions it is told of, line by line, until it is told the next ones.
"""

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from convostore.database.redis_client import RedisClients
from convostore.database.settings import RedisSettings
from convostore.gateways.scripts import Script
from convostore.models.redis.session_cache import SessionData
from convostore.repositories import session_scripts
from convostore.repositories.exceptions import ConcurrencyError, EntityNotFoundError, ValidationError
from convostore.repositories.session_repository import SessionRepository

LIVENESS = "return expiry > now and expiry or nil"
TASKS = 8


@dataclass(frozen=True)
class BlindScript(Script):
    """A script that takes every session for one that lives, to see that the tests notice."""

    @cached_property
    def text(self) -> str:
        """The source without the check."""
        source = Script(self.name, self.parts).text
        assert LIVENESS in source or self.name in ("session_get", "session_list")
        return source.replace(LIVENESS, "return math.max(expiry, now + 60000)")


def blind(script: Script) -> BlindScript:
    """Return a script without the check of liveness."""
    return BlindScript(**{each.name: getattr(script, each.name) for each in fields(script)})


def blinded() -> dict[str, BlindScript]:
    """Return all scripts by their names, without the check of liveness."""
    scripts = {name: value for name, value in vars(session_scripts).items() if isinstance(value, Script)}
    return {name: replace(blind(value)) for name, value in scripts.items() if value.parts}


@dataclass
class Attack:
    """What came of the calls.

    Attributes:
        accepted: calls that a session took, for it lived.
        refused: calls that came when it had ended.
        successors: the ids that sessions were given, by the one they had.
    """

    accepted: int = 0
    refused: int = 0
    successors: dict[str, str] = field(default_factory=dict)


async def _update(sessions: SessionRepository, stale: SessionData, attack: Attack) -> bool:
    try:
        return await sessions.update_session(stale.evolve(data={"late": True}))
    except ConcurrencyError as error:
        return await sessions.update_session(stale, expected_version=error.actual_version)


async def _set_fields(sessions: SessionRepository, stale: SessionData, attack: Attack) -> bool:
    return bool(await sessions.update_fields(stale.tenant_id, stale.session_id, {"late": 1}, remove=["none"]))


async def _touch(sessions: SessionRepository, stale: SessionData, attack: Attack) -> bool:
    return await sessions.touch_session(stale.tenant_id, stale.session_id) is not None


async def _extend(sessions: SessionRepository, stale: SessionData, attack: Attack) -> bool:
    return await sessions.extend_session(stale.tenant_id, stale.session_id, hours=random.randint(1, 5))


async def _save_anew(sessions: SessionRepository, stale: SessionData, attack: Attack) -> bool:
    return await sessions.create_session(stale)


async def _rotate(sessions: SessionRepository, stale: SessionData, attack: Attack) -> bool:
    rotated = await sessions.rotate_session(stale.tenant_id, stale.session_id)
    attack.successors[stale.session_id] = rotated.session_id
    return True


LateCall = Callable[[SessionRepository, SessionData, Attack], Awaitable[bool]]
ON_LIVING: tuple[LateCall, ...] = (_update, _set_fields, _touch, _extend)
ON_DEAD: tuple[LateCall, ...] = (*ON_LIVING, _rotate, _save_anew)


async def attack_until(
    sessions: SessionRepository, targets: Sequence[SessionData], done: Callable[[Attack], bool], *, rotate: bool
) -> Attack:
    """Call whatever writes to sessions, again and again.

    Args:
        sessions: the repository.
        targets: the sessions as they were read before.
        done: says when to stop.
        rotate: whether also sessions that may live are given other ids; else only those that refused a call.
    """
    attack = Attack()
    dead: set[str] = set()

    async def task() -> None:
        while not done(attack):
            target = random.choice(targets)
            calls = ON_DEAD if rotate or target.session_id in dead else ON_LIVING
            try:
                accepted = await random.choice(calls)(sessions, target, attack)
            except (EntityNotFoundError, ValidationError):  # gone, or its end lies in the past
                accepted = False
            except ConcurrencyError:
                continue  # another writer was faster than both attempts
            attack.accepted += accepted
            attack.refused += not accepted
            if not accepted:
                dead.add(target.session_id)

    await asyncio.gather(*(task() for _ in range(TASKS)))
    return attack


async def main(url: str, session_key: str, mutant: str = "") -> None:
    """Attack what is told by lines of JSON; answer each with what came of it once the next one is there."""
    if mutant:
        vars(session_scripts).update(blinded())
    opened = RedisClients.open(RedisSettings(redis_url=url, session_key=session_key, redis_deadline=20))
    sessions = SessionRepository(opened.state, opened.session_key)
    line = await asyncio.to_thread(sys.stdin.readline)
    while line.strip():
        task = json.loads(line)
        targets = [SessionData.from_redis_hash(*each) for each in task["targets"]]
        following = asyncio.ensure_future(asyncio.to_thread(sys.stdin.readline))
        print("attacking", flush=True)

        def done(attack: Attack, following: Any = following, least: int = task["refusals"]) -> bool:
            return following.done() and attack.refused >= least

        attack = await attack_until(sessions, targets, done, rotate=task["rotate"])
        print(json.dumps(vars(attack)), flush=True)
        line = following.result()
        if line.strip() == "next":
            line = await asyncio.to_thread(sys.stdin.readline)
    await opened.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
