"""Addresses: what each says, and that none is ever quoted."""

import traceback

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from convostore.database.redis_client import RedisClients
from convostore.database.settings import RedisSettings
from convostore.gateways.redis_address import RedisAddress
from convostore.gateways.redis_cluster import ClusterWire
from convostore.gateways.redis_connections import open_wire
from convostore.gateways.redis_gateway import RedisGateway
from convostore.repositories.exceptions import ValidationError

MARK = "s3cr3tmarker"

SINGLE = [
    ("redis://h", Connection, {"host": "h", "port": 6379, "db": 0}),
    ("redis://h:7/3", Connection, {"host": "h", "port": 7, "db": 3}),
    ("redis://h/?db=4", Connection, {"host": "h", "db": 4}),
    ("redis://u:p%40w@h:7", Connection, {"username": "u", "password": "p@w"}),
    ("redis://:p@h", Connection, {"username": None, "password": "p"}),
    ("redis://[::1]:7", Connection, {"host": "::1", "port": 7}),
    ("redis://h?client_name=me", Connection, {"client_name": "me"}),
    ("rediss://h:7?ssl_cert_reqs=none", SSLConnection, {"host": "h", "port": 7}),
    ("unix:///run/redis.sock?db=2", UnixDomainSocketConnection, {"path": "/run/redis.sock", "db": 2}),
]


@pytest.mark.parametrize(("text", "cls", "expected"), SINGLE)
def test_the_address_of_one_server(text, cls, expected):
    address = RedisAddress.parse(text)
    connection = open_wire(address, 1).new_connection()
    assert type(connection) is cls
    assert {name: getattr(connection, name) for name in expected} == expected
    assert address.encrypted == (cls is SSLConnection)
    assert not address.is_cluster
    assert not address.has_sentinels
    assert connection.socket_timeout is connection.socket_connect_timeout is None, "the gateway bounds each call"
    assert connection.retry.get_retries() == 0
    assert connection.protocol == 2


def test_the_address_behind_sentinels():
    address = RedisAddress.parse("redis+sentinel://u:p%2F@one,two:7,[::1]:8/the%20service/3")
    assert address.hosts == (("one", 26379), ("two", 7), ("::1", 8))
    assert (address.service, address.has_sentinels, address.is_cluster) == ("the service", True, False)
    assert address.options == {"username": "u", "password": "p/", "db": 3}
    assert RedisAddress.parse("redis+sentinel://one/s").options == {"db": 0}
    assert RedisAddress.parse("rediss+sentinel://one/s").encrypted
    assert isinstance(open_wire(RedisAddress.parse("rediss+sentinel://one/s"), 1).new_connection(), SSLConnection)


def test_the_address_of_a_cluster():
    address = RedisAddress.parse("redis+cluster://:p@one,two:7")
    assert address.hosts == (("one", 6379), ("two", 7))
    assert (address.is_cluster, address.options) == (True, {"password": "p"})
    assert isinstance(open_wire(address, 1), ClusterWire)
    assert type(open_wire(RedisAddress.parse("rediss+cluster://one/"), 1).new_connection()) is SSLConnection


WRONG = [
    *("", "redis", "http://h", f"mongodb://u:{MARK}@h", f"redis://u:{MARK}@h:port", f"redis://:{MARK}@h:99999"),
    *(f"redis://:{MARK}@h/first", f"redis://:{MARK}@h/1/2", f"redis://:{MARK}@h/-1", f"redis://:12/{MARK}@h/0"),
    *(f"redis://:{MARK}@h?decode_responses=true", f"redis://:{MARK}@h?socket_timeout=1", "redis://h?db=x"),
    *(f"redis://:{MARK}#{MARK}@h:7/0", f"redis://:{MARK}@[::1", f"redis://:{MARK}@h?max_connections=1"),
    *(f"redis+sentinel://:{MARK}@h", f"redis+sentinel://:{MARK}@h/s/x", f"redis+sentinel://:{MARK}@h/s/0/1"),
    *(f"redis+sentinel://:{MARK}@/s", f"redis+sentinel://:{MARK}@h,:7/s", f"redis+sentinel://:{MARK}@h:x/s"),
    *(f"redis+cluster://:{MARK}@h/1", f"redis+cluster://:{MARK}@", f"redis+cluster://:{MARK}@h?db=1"),
]


def _shown(error):
    return "".join(traceback.format_exception(error)) + f"{error!r}{error.args}{vars(error)}"


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_address_is_refused_and_not_quoted(text):
    with pytest.raises(ValidationError, match="redis_url: not a valid Redis address; it begins with one of") as caught:
        RedisAddress.parse(text)
    assert MARK not in _shown(caught.value).replace(f'"{text}"', "")
    assert caught.value.field == "redis_url"


PIECES = st.sampled_from(
    [
        "redis",
        "rediss",
        "unix",
        "+sentinel",
        "+cluster",
        "://",
        ":",
        "@",
        "/",
        "?",
        "#",
        ",",
        "[",
        "]",
        "%",
        "h",
        "7",
        "&",
    ]
)


@given(st.lists(PIECES | st.just(MARK), max_size=14).map("".join))
@example(f"redis+cluster://{MARK}:{MARK}@h")
@example(f"redis://h?password={MARK}")
@example(f"redis://h?ssl_password={MARK}&db=1")
@example(f"unix://{MARK}:{MARK}@/path")
def test_no_text_whatever_is_shown_by_an_address_or_its_errors(text):
    address, error = _parsed(text)
    if error is not None:
        assert error.__cause__ is None
        assert MARK not in f"{error}{error!r}{error.args}{vars(error)}"
    elif MARK not in f"{address.hosts}{address.service}":
        assert MARK not in f"{address}{address!r}"


def _parsed(text):
    try:
        return RedisAddress.parse(text), None
    except ValidationError as error:
        return None, error


@pytest.mark.parametrize("scheme", ["redis://{}h", "redis+cluster://{}h", "redis+sentinel://{}h/s"])
def test_a_password_is_shown_by_nothing_that_holds_it(scheme):
    url = scheme.format(f"user:{MARK}@")
    settings = RedisSettings(redis_url=SecretStr(url), cache_url=SecretStr(url))
    clients = RedisClients.open(settings)
    gateway = RedisGateway.connect(url)
    wire = open_wire(RedisAddress.parse(url), 1)
    for each in (settings, clients, gateway, wire, RedisAddress.parse(url), wire.new_connection()):
        assert MARK not in f"{each}{each!r}"
