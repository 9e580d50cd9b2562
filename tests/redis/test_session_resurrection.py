"""A session that has ended never answers again, whatever is in flight: thousands of late writes, from processes."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from session_attack import Attack, attack_until, blinded

from convostore.database.redis_client import RedisClients
from convostore.models.redis.session_cache import SessionData
from convostore.models.types import utc_now
from convostore.repositories import session_scripts
from convostore.repositories.session_repository import SessionRepository

WORKER = Path(__file__).with_name("session_attack.py")
PROCESSES = 3
ROUNDS = 2
SESSIONS = 12
REFUSALS = 480  # of each process in each round; together 3 * 2 * 4 * 480 = 11,520 late writes

Kill = Callable[[SessionRepository, SessionData], Awaitable[object]]


async def _log_out(sessions: SessionRepository, session: SessionData) -> None:
    assert await sessions.delete_session(session.tenant_id, session.session_id)


async def _revoke_all(sessions: SessionRepository, session: SessionData) -> None:
    assert await sessions.revoke_user_sessions(session.tenant_id, session.user_id) == 1


async def _give_another_id(sessions: SessionRepository, session: SessionData) -> None:
    await sessions.rotate_session(session.tenant_id, session.session_id)


async def _reach_the_end(sessions: SessionRepository, session: SessionData) -> None:
    while utc_now() <= session.ends_at:  # noqa: ASYNC110 - the clock, which the server shares, is no event
        await asyncio.sleep(0.02)


KILLS: dict[str, tuple[Kill, bool]] = {  # and whether sessions may be given other ids before
    "logout": (_log_out, False),
    "revoked": (_revoke_all, True),
    "rotated": (_give_another_id, False),
    "expired": (_reach_the_end, True),
}


@pytest.fixture
def sessions(clients: RedisClients) -> SessionRepository:
    return SessionRepository(clients.state, clients.session_key)


async def _targets(sessions: SessionRepository, tenant: str, kind: str, number: int) -> list[SessionData]:
    life = 0.6 if kind == "expired" else 3600.0
    return [
        await sessions.start_session(tenant, f"user-{number}-{index}", lifetime_seconds=life)
        for index in range(SESSIONS)
    ]


async def _resurrected(
    sessions: SessionRepository, targets: list[SessionData], kind: str, successors: dict[str, str]
) -> list[str]:
    """Return the ids that answer although their session has ended."""
    ids = [(target.tenant_id, target.session_id) for target in targets]
    by_id = {target.session_id: target for target in targets}
    ids += [(by_id[old].tenant_id, new) for old, new in successors.items()]
    found = [session_id for tenant_id, session_id in ids if await sessions.get_session(tenant_id, session_id)]
    if kind != "rotated":
        for target in targets:
            found += [each.fingerprint for each in await sessions.get_user_sessions(target.tenant_id, target.user_id)]
    return found


@pytest.mark.parametrize("kind", KILLS)
async def test_writes_of_other_tasks_never_bring_a_session_back(
    sessions: SessionRepository, tenant: str, kind: str
) -> None:
    attack, found = await _attacked_by_tasks(sessions, tenant, kind)
    assert found == []
    assert attack.refused >= 400


async def _attacked_by_tasks(sessions: SessionRepository, tenant: str, kind: str) -> tuple[Attack, list[str]]:
    kill, rotate = KILLS[kind]
    targets = await _targets(sessions, tenant, kind, 0)
    killed = asyncio.Event()

    def done(attack: Attack) -> bool:
        return killed.is_set() and attack.refused >= 400

    attacking = asyncio.ensure_future(attack_until(sessions, targets, done, rotate=rotate))
    await asyncio.sleep(0.02)
    await asyncio.gather(*(kill(sessions, target) for target in targets))
    killed.set()
    try:
        attack = await asyncio.wait_for(attacking, 20)
    except TimeoutError:
        attack = Attack()  # nothing was refused any more
    return attack, await _resurrected(sessions, targets, kind, attack.successors)


@pytest.mark.one_server
@pytest.mark.parametrize("name", ["WRITE", "TOUCH", "ROTATE"])
async def test_a_script_that_does_not_look_at_the_index_is_seen_to_bring_sessions_back(
    sessions: SessionRepository, tenant: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_scripts, name, blinded()[name])
    targets = await _targets(sessions, tenant, "revoked", 0)
    calls = 0

    def done(attack: Attack) -> bool:
        nonlocal calls
        calls += 1
        return calls > 400

    attacking = asyncio.ensure_future(attack_until(sessions, targets, done, rotate=False))
    await asyncio.sleep(0.02)
    for target in targets:
        await sessions.revoke_user_sessions(target.tenant_id, target.user_id)
    attack = await attacking
    assert await _resurrected(sessions, targets, "revoked", attack.successors) != []


class Attackers:
    """Processes that attack the same sessions."""

    def __init__(self, workers: list[subprocess.Popen[str]]) -> None:
        self._workers = workers

    def begin(self, targets: list[SessionData], *, rotate: bool, refusals: int) -> None:
        """Let them begin, and wait until they have."""
        told = [(each.to_redis_hash(), each.session_id) for each in targets]
        task = {"targets": told, "rotate": rotate, "refusals": refusals}
        self._tell(json.dumps(task))
        for worker in self._workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "attacking\n"

    def end(self) -> list[Attack]:
        """Let them stop once they have been refused often enough, and return what came of it."""
        self._tell("next")
        return [Attack(**json.loads(worker.stdout.readline())) for worker in self._workers if worker.stdout]

    def _tell(self, line: str) -> None:
        for worker in self._workers:
            assert worker.stdin is not None
            worker.stdin.write(line + "\n")
            worker.stdin.flush()


@pytest.fixture
async def attackers(redis_url: str, clients: RedisClients) -> AsyncIterator[Attackers]:
    assert clients.session_key is not None
    with _processes([redis_url, clients.session_key.decode()]) as workers:
        yield Attackers(workers)


class _processes:  # noqa: N801 - used as a function
    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._stack = ExitStack()

    def __enter__(self) -> list[subprocess.Popen[str]]:
        return list(self._started())

    def _started(self) -> Iterator[subprocess.Popen[str]]:
        for _ in range(PROCESSES):
            command = [sys.executable, str(WORKER), *self._arguments]
            worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self._stack.enter_context(worker)
            self._stack.callback(worker.kill)
            yield worker

    def __exit__(self, *details: object) -> None:
        self._stack.close()


@pytest.mark.slow
@pytest.mark.one_server
async def test_ten_thousand_writes_of_other_processes_never_bring_a_session_back(
    sessions: SessionRepository, tenant: str, attackers: Attackers
) -> None:
    late = 0
    found: list[str] = []
    for kind, (kill, rotate) in KILLS.items():
        for number in range(ROUNDS):
            targets = await _targets(sessions, tenant, kind, number)
            await asyncio.to_thread(attackers.begin, targets, rotate=rotate, refusals=REFUSALS)
            await asyncio.gather(*(kill(sessions, target) for target in targets))
            found += await _resurrected(sessions, targets, kind, {})  # while they attack
            attacks = await asyncio.to_thread(attackers.end)
            late += sum(attack.refused for attack in attacks)
            for attack in attacks:
                found += await _resurrected(sessions, targets, kind, attack.successors)
            await asyncio.gather(*(sessions.revoke_user_sessions(tenant, target.user_id) for target in targets))
    assert found == []
    assert late >= 10_000
    print(f"{late} late writes refused")
