"""What the properties are tested with, and a store for tests that hypothesis runs many times."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from pydantic import SecretStr
from pymongo.monitoring import CommandListener

from convostore import ConvoStore, MongoSettings, ValidationError
from convostore.database.local_servers import ServerAddresses
from convostore.gateways.mongo_gateway import MongoGateway

T = TypeVar("T")

settings.register_profile("convostore", deadline=None, print_blob=True, max_examples=200)
settings.load_profile("convostore")

_nasty = st.sampled_from(
    [":", "%", "%3A", "%25", ";", "{", "}", "a", "A", "$", ".", "/", " ", "é", "\u2028", "\U0001f600"]
)
identifiers = st.one_of(
    st.lists(_nasty, min_size=1, max_size=8).map("".join),
    st.text(st.characters(blacklist_categories=["Cc", "Cs"]), min_size=1, max_size=20),
)
_keys = st.one_of(
    st.sampled_from(["$ref", "$id", "$where", "%", "%%", "%$", "a.b", ".", "", "_id", "a"]),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=5),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=10),
)
plain_data: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_keys, inner, max_size=4)),
    max_leaves=12,
)
plain_dicts = st.dictionaries(_keys, plain_data, max_size=4)
garbage: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        scalars,
        st.binary(max_size=4),
        st.text(st.characters(), max_size=6),
        st.sampled_from([float("nan"), 2**70, "\ud800", "\0", ".*", "$gt", "active", "web", "user"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["$ne", "$gt", "$in", "$regex", "$where", "$exists", "a", "a.b"]), inner, max_size=2
        ),
    ),
    max_leaves=5,
)


def refusal(call: Callable[[], Any]) -> ValidationError | None:
    """Return the error that a call is refused with, if it is."""
    try:
        call()
    except ValidationError as error:
        return error
    return None


class Bench:
    """An open store and the loop it lives in, for tests without a loop of their own."""

    def __init__(self, runner: asyncio.Runner, store: ConvoStore) -> None:
        self.store = store
        self._runner = runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work in the store's loop."""
        return self._runner.run(work)

    def tenant_id(self) -> str:
        """Return the name of a tenant that nobody has used."""
        return uuid.uuid4().hex


@contextmanager
def bench(servers: ServerAddresses, *listeners: CommandListener) -> Iterator[Bench]:
    """Open a store on a database of its own, and drop that in the end."""
    chosen = MongoSettings(mongodb_uri=SecretStr(servers.mongodb_uri), database_name=f"test_{uuid.uuid4().hex[:20]}")
    options = {**chosen.client_options(), "event_listeners": list(listeners)}

    async def opened() -> ConvoStore:
        store = ConvoStore(MongoGateway.connect(servers.mongodb_uri, chosen.database_name, options))
        await store.prepare()
        return store

    with asyncio.Runner() as runner:
        store = runner.run(opened())
        try:
            yield Bench(runner, store)
        finally:
            runner.run(store.mongodb.administration.drop_database())
            runner.run(store.aclose())
