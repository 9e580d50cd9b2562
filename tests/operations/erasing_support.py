"""What the tests of erasing share: tenants with everything that can be kept of a user, and looks past the library."""

from datetime import UTC, datetime
from functools import partial

from convostore import CacheSpace, ConversationDocument, MessageDocument
from convostore.gateways.operation import Operation
from convostore.models.keys import redis_key
from convostore.operations.erasing import Erasure
from convostore.operations.quota_usage import write_usage
from convostore.repositories.entity_spaces import CONVERSATION
from convostore.sync.outbox import Effect, Outbox

QUOTA = "1000 per calendar month"
SPACE = CacheSpace("summaries")
_SCAN = Operation("SCAN", "redis", "Key", repeatable=True)


async def talk(tenant, user, name=None, messages=("secret",)):
    """Begin a conversation and return its id."""
    named = {} if name is None else {"conversation_id": name}
    created = await tenant.conversations.create(ConversationDocument.start(user, title=f"of {user}", **named))
    for message in messages:
        await tenant.messages.append(created.conversation_id, MessageDocument.user(message))
    return created.conversation_id


async def settle_in(store, tenant, user):
    """Leave everything of a user that can be kept; return his conversations and a session."""
    name = tenant.tenant_id
    talks = [await talk(tenant, user, messages=("secret", "more")) for _ in range(3)]
    await tenant.messages.append_many(talks[0], [MessageDocument.user("secret")] * 3, idempotency_key="k")
    sessions = [await store.sessions.start_session(name, user, data={"secret": 1}) for _ in range(3)]
    await store.sessions.revoke_user_sessions(name, user, sessions[0].session_id)  # leaves what they held
    await store.rate_limits.check_rate_limits(name, [(user, QUOTA), (user, "60/minute")])
    await write_usage(store.rate_limits, tenant.database, [(user, QUOTA)])
    await Outbox(store.mongodb).add(name, [Effect.CLOSE_CONVERSATIONS], user_id=user)
    await store.cache.get_or_load(
        name, CONVERSATION, talks[0], partial(tenant.conversations.get_by_id, talks[0]), tags=[f"tag-{user}"]
    )
    await claim(store, tenant, user)
    return talks, sessions[0]


async def claim(store, tenant, user, messages=3, stored=1):
    """Leave what an import leaves that was killed after it had stored some of the messages of a conversation."""
    name = f"claimed-{user.encode().hex()}"
    place = {
        "_id": tenant.database.identity(name), "version": 1, "importing": "digest", "at": datetime.now(UTC),
        "user_id": user, "title": "secret", "message_count": messages,
    }  # fmt: skip
    await store.mongodb.database["conversations"].insert_one(place)
    slots = [slot(tenant, name, number) for number in range(1, stored + 1)]
    if slots:
        await store.mongodb.database["messages"].insert_many(slots)
    return name


def slot(tenant, name, number, **fields):
    return {
        "_id": tenant.database.identity(name, f"{number:010d}"), "tenant_id": tenant.tenant_id,
        "conversation_id": name, "sequence": number, "message_id": f"m-{number}", "content": "secret", "version": 1,
        "role": "user", "created_at": datetime.now(UTC), **fields,
    }  # fmt: skip


def erasure(store, tenant, user=None, **options):
    return Erasure(store.mongodb, store.redis, tenant.tenant_id, user, **options)


async def documents(store):
    """Return all documents of the database, by collection."""
    database = store.mongodb.database
    names = ("conversations", "messages", "usage", "outbox")
    return {name: await database[name].find({}).sort("_id", 1).to_list() for name in names}


async def in_redis(store, tenant):
    """Return what is stored under all keys of a tenant."""
    gateway, found = store.redis.state, {}
    begin = redis_key("x", (tenant.tenant_id,)).partition(":{")[2].rstrip("}")
    async for keys in gateway.scan(_SCAN, "cs:*"):
        for key in map(bytes.decode, keys):
            if key.partition(":{")[2].startswith((begin + ":", begin + "}")):
                kind = await gateway.command(_SCAN, "TYPE", key)
                read = {b"hash": ("HGETALL", key), b"zset": ("ZRANGE", key, 0, -1)}.get(kind, ("GET", key))
                found[key] = await gateway.command(_SCAN, *read)
    return found
