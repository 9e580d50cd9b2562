"""What the writers and readers of a chaos run do."""

import asyncio
import random
import time
from collections import deque

from chaos_plan import History

from convostore import ConversationDocument, ConvoStore, MessageDocument

LOGS, REGISTERS, NOTES = 12, 4, 4
TENANT, RIVAL = "acme", "rival"
NOTEBOOK = "notebook"  # the conversation whose messages are edited
LIMIT, WINDOW = 12, 2  # in any trailing window of so many seconds
LIMITED = 3
MANY = 1_000_000
SHORT_LIFE = 1.5
KEYS_A_SECOND = 3
BATCH = 3


def text(content):
    return MessageDocument.user(content)


async def prepare(store: ConvoStore) -> None:
    """Make what the crowd writes to."""
    acme = store.tenant(TENANT)
    names = [f"log-{n}" for n in range(LOGS)] + [f"register-{n}" for n in range(REGISTERS)] + [NOTEBOOK]
    for name in names:
        await acme.conversations.create(ConversationDocument.start(user_id="u", conversation_id=name))
    for number in range(NOTES):
        await acme.messages.append(NOTEBOOK, text(f"note {number}"))


class Shared:
    """What all of a process have in common.

    Attributes:
        store: the store.
        history: of all their calls.
        acme, rival: two tenants.
        living, dead: ids of sessions that were made, and of those that were ended or were to end.
    """

    def __init__(self, store: ConvoStore, history: History) -> None:
        self.store, self.history = store, history
        self.acme, self.rival = store.tenant(TENANT), store.tenant(RIVAL)
        self.living: deque[str] = deque(maxlen=20)
        self.dead: deque[str] = deque(maxlen=200)


class _Part:
    """A writer or reader."""

    def __init__(self, shared: Shared, rng: random.Random, name: str) -> None:
        self.shared, self.rng, self.name = shared, rng, name
        self.acme, self._rival = shared.acme, shared.rival
        self._sessions, self._limits = shared.store.sessions, shared.store.rate_limits
        self._count = 0

    def _call(self, op, call, tell=lambda _: {}, **facts):
        return self.shared.history.call(op, self.name, call, tell, **facts)

    def _token(self):
        self._count += 1
        return f"{self.shared.history.process}-{self.name}-{self._count}"

    def _log(self):
        return f"log-{self.rng.randrange(LOGS)}"

    def _register(self):
        return f"register-{self.rng.randrange(REGISTERS)}"


def _version(found):
    return {"version": found.version, "number": found.metadata.get("number", 0)}


def _raised(found):
    return found.evolve(metadata={"number": found.metadata.get("number", 0) + 1})


def _is_found(found):
    return {"found": found is not None}


class Writer(_Part):
    """Makes one of the writes each time."""

    def __init__(self, shared: Shared, rng: random.Random, name: str, only=()) -> None:
        super().__init__(shared, rng, name)
        acts = {
            "append": self._append,
            "append_keyed": self._append_keyed,
            "append_many": self._append_many,
            "raise": self._raise,
            "update": self._update,
            "edit": self._edit,
            "unit": self._unit,
            "session": self._session,
            "limit": self._limit,
            "count": self._count_up,
        }
        self._acts = [act for name, act in acts.items() if not only or name in only]

    async def act(self):
        await self.rng.choice(self._acts)()

    async def _append(self):
        log, token = self._log(), self._token()
        await self._call(
            "append",
            self.acme.messages.append(log, text(token)),
            lambda stored: {"sequences": [stored.sequence]},
            log=log,
            texts=[token],
        )

    async def _append_keyed(self):
        """Append what others append under the same key at about the same time, and once more if that is unclear."""
        number = int(time.monotonic() * KEYS_A_SECOND)
        log, key = f"log-{number % LOGS}", f"key-{number}"
        for _ in range(2):
            stored = await self._call(
                "append_keyed",
                self.acme.messages.append(log, text(key), idempotency_key=key),
                lambda stored: {"sequences": [stored.sequence], "replayed": stored.replayed},
                log=log,
                texts=[key],
            )
            if stored is not None:
                return

    async def _append_many(self):
        log, token = self._log(), self._token()
        texts = [f"{token}-{member}" for member in range(BATCH)]
        await self._call(
            "append_many",
            self.acme.messages.append_many(log, [text(each) for each in texts]),
            lambda stored: {"sequences": [message.sequence for message in stored]},
            log=log,
            texts=texts,
        )

    async def _raise(self):
        register = self._register()
        await self._call("raise", self.acme.conversations.update_with(register, _raised), _version, register=register)

    async def _update(self):
        """Change what was read a while ago, which is refused if anybody else has changed it since."""
        register = self._register()
        found = await self._call("read", self.acme.conversations.get_by_id(register), _version, register=register)
        if found is not None:
            await asyncio.sleep(self.rng.uniform(0, 0.02))
            await self._call(
                "update",
                self.acme.conversations.update(_raised(found)),
                _version,
                register=register,
                expected=found.version,
            )

    async def _edit(self):
        sequence, token = self.rng.randint(1, NOTES), self._token()
        found = await self._call("look", self.acme.messages.get(NOTEBOOK, sequence), _note, sequence=sequence)
        if found is not None:
            await self._call(
                "edit",
                self.acme.messages.edit(NOTEBOOK, sequence, expected_version=found.version, content=token),
                _note,
                sequence=sequence,
                expected=found.version,
                content=token,
            )

    async def _unit(self):
        """Append to two logs in a unit of work."""
        logs, token = self.rng.sample(range(LOGS), 2), self._token()
        texts = [f"{token}-a", f"{token}-b"]

        async def work(_):
            return [
                (await self.acme.messages.append(f"log-{log}", text(each))).sequence
                for log, each in zip(logs, texts, strict=True)
            ]

        await self._call(
            "unit",
            self.shared.store.in_transaction(work),
            lambda sequences: {"sequences": sequences},
            logs=[f"log-{log}" for log in logs],
            texts=texts,
        )

    async def _session(self):
        short = self.rng.random() < 0.3
        life = SHORT_LIFE if short else 3600.0
        user = f"user-{self.rng.randrange(20)}"
        session = await self._call(
            "session_start",
            self._sessions.start_session(TENANT, user, idle_seconds=life, lifetime_seconds=life),
            lambda session: {"session": session.session_id},
            life=life,
        )
        if session is None:
            return
        (self.shared.dead if short else self.shared.living).append(session.session_id)
        if not short and self.rng.random() < 0.7:
            await self._end_session(self.shared.living.popleft())

    async def _end_session(self, session_id):
        await self._call(
            "session_end",
            self._sessions.delete_session(TENANT, session_id),
            lambda ended: {"found": ended},
            session=session_id,
        )
        self.shared.dead.append(session_id)

    async def _limit(self):
        user = f"limited-{self.rng.randrange(LIMITED)}"
        await self._call("limit", self._limits.check_rate_limit(TENANT, user, LIMIT, WINDOW), _admitted, user=user)

    async def _count_up(self):
        await self._call("count", self._limits.check_rate_limit(TENANT, "counter", MANY, 86_400), _admitted)


def _note(found):
    return {"found": found is not None} if found is None else {"version": found.version, "content": found.content}


def _admitted(result):
    return {"allowed": result.allowed, "degraded": result.degraded}


class Reader(_Part):
    """Follows one log from its beginning, and looks at one thing or another each time."""

    def __init__(self, shared: Shared, rng: random.Random, name: str) -> None:
        super().__init__(shared, rng, name)
        self._followed, self._last = self._log(), 0
        self._looks = [self._tail, self._tail, self._read, self._look, self._session, self._foreign]

    async def act(self):
        await self.rng.choice(self._looks)()

    async def _tail(self):
        page = await self._call(
            "tail",
            self.acme.messages.history(self._followed, after=self._last, limit=100),
            lambda page: {"seen": [[message.sequence, message.content] for message in page.items]},
            log=self._followed,
        )
        if page is not None and page.items:
            self._last = page.items[-1].sequence

    async def _read(self):
        register = self._register()
        await self._call("read", self.acme.conversations.get_by_id(register), _version, register=register)

    async def _look(self):
        sequence = self.rng.randint(1, NOTES)
        await self._call("look", self.acme.messages.get(NOTEBOOK, sequence), _note, sequence=sequence)

    async def _session(self):
        known = [*self.shared.living, *self.shared.dead]
        if known:
            session_id = self.rng.choice(known)
            await self._call(
                "session_get", self._sessions.get_session(TENANT, session_id), _is_found, session=session_id
            )

    async def _foreign(self):
        """Ask as another tenant for what is this one's."""
        rival, log = self._rival, self._log()
        questions = {
            "conversation": lambda: rival.conversations.get_by_id(log),
            "history": lambda: _some(rival.messages.history(log)),
            "message": lambda: rival.messages.get(log, 1),
            "list": lambda: _some(rival.conversations.list()),
            "update": lambda: _if_true(rival.conversations.update_conversation_status(log, "archived")),
        }
        if self.shared.living:
            session_id = self.shared.living[0]
            questions["session"] = lambda: self._sessions.get_session(RIVAL, session_id)
        what = self.rng.choice(sorted(questions))
        await self._call("foreign", questions[what](), _is_found, what=what)


async def _some(page):
    return (await page).items or None


async def _if_true(answer):
    return await answer or None
