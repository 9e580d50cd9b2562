"""Every public call of convostore that asks a server, by its name, on subjects that are made before."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from public_writes import WRITES, with_messages

from convostore import CacheSpace, RateLimitPolicy

CALENDAR = RateLimitPolicy.parse("100/day")
SPACE = CacheSpace("deadlines")
VERSIONED = CacheSpace("versioned", version_of=len)
TENANT = "acme"
# What the program of a caller does in several calls, each of which has the deadline for itself: how many there are.
STEPS = {**dict.fromkeys(("write append, read own", "write update", "write update message"), 2), "write transaction": 4}


async def mongodb_calls(store):
    """Prepare what the calls act on, and return the calls on MongoDB."""
    acme = store.tenant(TENANT)
    subjects = [(write, await write.prepare(acme)) for write in WRITES]
    cid, erased, closed = [await with_messages(acme) for _ in range(3)]
    await store.mongodb.activity.flush()
    messages, conversations = acme.messages, acme.conversations
    of_cid = {"conversation_id": cid}
    calls = {
        f"write {write.name}": (lambda write=write, subject=subject: write.act(store, acme, subject))
        for write, subject in subjects
    }
    return calls | {
        "messages.history": lambda: messages.history(cid),
        "messages.get": lambda: messages.get(cid, 1),
        "messages.get_by_id": lambda: messages.get_by_id(f"{cid}:1"),
        "messages.get_by_external_id": lambda: messages.get_by_external_id("unknown"),
        "messages.exists": lambda: messages.exists(f"{cid}:1"),
        "messages.window": lambda: messages.window(cid, max_messages=2),
        "messages.search": lambda: messages.search("before", cid),
        "messages.iterate": lambda: anext(messages.iterate(cid)),
        "messages.list": lambda: messages.list(of_cid),
        "messages.page": lambda: messages.page(of_cid),
        "messages.count": lambda: messages.count(of_cid),
        "conversations.get_by_id": lambda: conversations.get_by_id(cid),
        "conversations.exists": lambda: conversations.exists(cid),
        "conversations.list": conversations.list,
        "conversations.page": conversations.page,
        "conversations.count": conversations.count,
        "conversations.get_active_conversations": lambda: conversations.get_active_conversations(TENANT, "u"),
        "conversations.get_conversations_by_tenant": lambda: conversations.get_conversations_by_tenant(TENANT),
        "conversations.iterate_all": lambda: anext(conversations.iterate_all()),
        "users.sign_out": lambda: store.users.sign_out(TENANT, "nobody"),
        "users.erase": lambda: store.users.erase(TENANT, f"nobody-{erased}"),
        "users.close_conversation": lambda: store.users.close_conversation(TENANT, closed),
        "dispatcher.run_once": store.dispatcher.run_once,
    }


async def redis_calls(store):
    """Prepare what the calls act on, and return the calls on Redis."""
    sessions, limits, cache = store.sessions, store.rate_limits, store.cache
    made = [await sessions.start_session(TENANT, f"u-{number}") for number in range(8)]
    ids = [session.session_id for session in made]
    reservation = await limits.reserve(TENANT, [("u", "100/hour")], 5)
    other = await limits.reserve(TENANT, [("u", "100/hour")], 5)
    several = [("u", "100/hour"), ("v", "100/minute")]

    async def load():
        return "loaded"

    return {
        "sessions.start_session": lambda: sessions.start_session(TENANT, "new"),
        "sessions.create_session": lambda: sessions.create_session(made[0]),
        "sessions.get_session": lambda: sessions.get_session(TENANT, ids[0]),
        "sessions.touch_session": lambda: sessions.touch_session(TENANT, ids[0]),
        "sessions.extend_session": lambda: sessions.extend_session(TENANT, ids[0]),
        "sessions.update_session": lambda: sessions.update_session(made[1].evolve(data={"a": 1})),
        "sessions.update_fields": lambda: sessions.update_fields(TENANT, ids[2], {"a": 1}),
        "sessions.rotate_session": lambda: sessions.rotate_session(TENANT, ids[3]),
        "sessions.delete_session": lambda: sessions.delete_session(TENANT, ids[4]),
        "sessions.get_user_sessions": lambda: sessions.get_user_sessions(TENANT, "u-0"),
        "sessions.revoke_session": lambda: sessions.revoke_session(TENANT, "u-5", made[5].fingerprint),
        "sessions.revoke_user_sessions": lambda: sessions.revoke_user_sessions(TENANT, "u-6"),
        "sessions.cleanup_expired_sessions": sessions.cleanup_expired_sessions,
        "limits.check_rate_limit": lambda: limits.check_rate_limit(TENANT, "u", 100, 60),
        "limits.check_rate_limits": lambda: limits.check_rate_limits(TENANT, several),
        "limits.peek_rate_limits": lambda: limits.peek_rate_limits(TENANT, several),
        "limits.increment_counter": lambda: limits.increment_counter(TENANT, "u", 60),
        "limits.get_remaining_quota": lambda: limits.get_remaining_quota(TENANT, "u", 100, 60),
        "limits.get_rate_limit_info": lambda: limits.get_rate_limit_info(TENANT, "u", 100, 60),
        "limits.reset_rate_limit": lambda: limits.reset_rate_limit(TENANT, "w"),
        "limits.reserve": lambda: limits.reserve(TENANT, several, 5),
        "limits.commit": lambda: limits.commit(reservation, 3),
        "limits.release": lambda: limits.release(other),
        "limits.get_block": lambda: limits.get_block(TENANT, "u"),
        "limits.lift_block": lambda: limits.lift_block(TENANT, "u"),
        "cache.get": lambda: cache.get(TENANT, SPACE, "k"),
        "cache.get_many": lambda: cache.get_many(TENANT, SPACE, ["k", "l"]),
        "cache.exists": lambda: cache.exists(TENANT, SPACE, "k"),
        "cache.get_or_load": lambda: cache.get_or_load(TENANT, SPACE, "m", load),
        "cache.set": lambda: cache.set(TENANT, SPACE, "k", "v"),
        "cache.delete": lambda: cache.delete(TENANT, SPACE, "k"),
        "cache.invalidate": lambda: cache.invalidate(TENANT, SPACE, "k", 2),
        "cache.write_through": lambda: cache.write_through(TENANT, VERSIONED, "k", "vv"),
        "cache.invalidate_tag": lambda: cache.invalidate_tag(TENANT, "tag"),
    }
