"""The command that erases shows what it has found, asks, and says what is left."""

import asyncio
import json
import re
import uuid
from datetime import timedelta

import pytest

from convostore import ConversationDocument, ErasureCounts, MessageDocument
from convostore.models.types import utc_now


@pytest.fixture
def tenant():
    """A tenant that no other test uses, for all share one Redis."""
    return f"acme-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def erase(program, tenant, convostore_servers):
    """Run the command on both servers."""

    def run(*arguments):
        return program("erase", "--tenant", tenant, *arguments, "--redis-url", convostore_servers.redis_url)

    return run


@pytest.fixture
def talks(program, tenant):
    """Two users with conversations, one of which is old."""

    async def create(store):
        acme = store.tenant(tenant)
        for name, user in (("one", "u"), ("two", "u"), ("three", "v")):
            await acme.conversations.create(ConversationDocument.start(user, conversation_id=name))
            await acme.messages.append(name, MessageDocument.user("secret"))
        # Nor may anything still be on its way, which would make the old one new again.
        async with asyncio.timeout(10):
            while store.mongodb.activity.is_pending:
                await store.mongodb.activity.flush()
                await asyncio.sleep(0)
        old = {"$set": {"last_activity_at": utc_now() - timedelta(days=100)}}
        await store.mongodb.database["conversations"].update_one({"_id": f"{tenant}:one"}, old)
        old = {"$set": {"created_at": utc_now() - timedelta(days=100)}}
        await store.mongodb.database["messages"].update_one({"conversation_id": "one"}, old)

    program.do(create)
    return program


def left(program, tenant):
    return program.do(lambda store: store.tenant(tenant).conversations.count())


def test_a_user_is_erased_if_that_is_wanted(talks, erase, tenant):
    shown = erase("--user", "u", "--dry-run")
    assert (shown.exit_code, left(talks, tenant)) == (0, 3)
    assert re.search(rf"user u of tenant {tenant}", shown.stdout)
    assert re.search(r"conversations +2\b.*messages +2\b", shown.stdout, re.DOTALL)
    refused = erase("--user", "u")
    assert (refused.exit_code, left(talks, tenant)) == (1, 3)
    assert "Nothing was changed: add --yes" in refused.stderr
    done = erase("--user", "u", "--yes")
    assert (done.exit_code, left(talks, tenant)) == (0, 1)
    assert "erased, nothing left" in done.stdout
    again = json.loads(erase("--user", "u", "--yes", "--json").stdout)
    assert again == {"before": _plain(), "after": _plain()}


def test_a_tenant_is_erased_and_programs_are_told_in_json(talks, erase, tenant):
    refused = erase("--json")
    assert (refused.exit_code, json.loads(refused.stdout)) == (1, {"before": _plain(3, 3), "after": None})
    done = erase("--json", "--yes")
    assert (done.exit_code, json.loads(done.stdout)) == (0, {"before": _plain(3, 3), "after": _plain()})
    assert left(talks, tenant) == 0


def _plain(conversations=0, messages=0):
    counts = ErasureCounts(conversations=conversations, messages=messages)
    return {name: getattr(counts, name) for name in ErasureCounts.__slots__}


def test_what_is_older_than_an_age_goes(talks, erase, tenant):
    both = ("--older-than", "90d", "--only", "conversations", "--only", "messages")
    shown = erase(*both, "--dry-run")
    assert (shown.exit_code, left(talks, tenant)) == (0, 3)
    assert "older than 90d" in shown.stdout
    assert erase(*both).exit_code == 1
    done = erase("--older-than", "90d", "--only", "messages", "--yes", "--json")
    assert json.loads(done.stdout) == {"older": {"messages": 1}, "gone": {"messages": 1}}
    done = erase("--older-than", "90d", "--yes", "--only", "conversations", "--only", "sessions")
    assert done.stdout.splitlines()[-1] == "1 conversations, 0 sessions gone"
    assert left(talks, tenant) == 2
    assert erase("--older-than", "90d").exit_code == 0, "nothing to do"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--older-than", "90"], 1, "older_than: must be a number and h, d, w or y"),
        (["--older-than", "90d", "--user", "u"], 2, "neither with --user"),
        (["--only", "messages"], 2, "--only goes with --older-than"),
        (["--older-than", "90d", "--only", "everything"], 2, "everything"),
        (["--user", ""], 1, "user: must not be empty"),
        (["--identifier", "x"], 1, "identifiers: go with a user"),
    ],
)
def test_what_cannot_be_right_is_told_in_one_line(erase, arguments, code, told):
    result = erase(*arguments, "--yes")
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_a_redis_that_is_away_is_told_in_one_line(talks, program, tenant):
    result = program("erase", "--tenant", tenant, "--yes", "--redis-url", "redis://127.0.0.1:1")
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("error: ")
    assert left(talks, tenant) == 3


def test_without_a_redis_it_says_that_only_mongodb_is_looked_at(talks, program, tenant):
    result = program("erase", "--tenant", tenant, "--yes")
    assert (result.exit_code, left(talks, tenant)) == (0, 0)
    assert "Redis is not used: no address" in result.stderr
