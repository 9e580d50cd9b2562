"""P13: no password, key or value is in an error, a traceback or a log line."""

import logging
import traceback

import pytest
from gateway_support import ADD, READ, WRITE, ended, inline, opened
from redis.exceptions import RedisError

from convostore.gateways import redis_translation
from convostore.repositories.exceptions import RepositoryError
from convostore.testing.redis_proxy import Fault, RedisProxy
from convostore.testing.redis_servers import RedisServer

pytestmark = pytest.mark.one_server
MARK = "s3cr3t-marker"


@pytest.fixture
def spoken(caplog):
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join(f"{vars(record)}" for record in caplog.records if record.name.startswith("convostore"))


def check_error(error):
    assert isinstance(error, RepositoryError), repr(error)
    assert not isinstance(error, RedisError)
    shown = "".join(traceback.format_exception(error))
    left, seen = [error], []
    while left:
        each = left.pop()
        if each is not None and each not in seen:
            seen.append(each)
            shown += f"{each} {each!r} {each.args} {vars(each)}"
            left += [each.__cause__, each.__context__]
    assert MARK not in shown, shown


async def provoke(gateway):
    """Return the errors of calls that carry the marker wherever they can."""
    error_with_it = inline(f"-- {MARK}\nreturn redis.error_reply('ERR ' .. ARGV[1])")
    calls = [
        gateway.command(WRITE, "LPUSH", MARK, MARK),
        gateway.command(WRITE, MARK, MARK),
        gateway.command(WRITE, "SET", MARK, f"{MARK}\ud800"),
        gateway.command(WRITE, "SET", MARK, [MARK]),
        gateway.script(WRITE, ADD, [MARK], MARK),
        gateway.script(WRITE, error_with_it, [MARK], MARK),
        gateway.command(READ, "EVAL", f"{MARK} is no Lua", 0),
    ]
    errors = [(await ended(call))[0] for call in calls]
    several = await gateway.commands(WRITE, [("LPUSH", MARK, MARK), ("INCRBY", MARK, MARK)])
    return [*errors, *several]


async def test_refusals_tell_no_secret(own_server, spoken):
    async with opened(own_server.url) as gateway:
        await gateway.command(WRITE, "SET", MARK, MARK)
        errors = await provoke(gateway)
    assert len(errors) == 9
    for error in errors:
        check_error(error)
    assert "redis operation" in spoken()
    assert MARK not in spoken()


@pytest.mark.parametrize("fault", [Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.STALL])
async def test_losses_tell_no_secret(own_server, spoken, fault):
    async with RedisProxy("127.0.0.1", own_server.port) as proxy, opened(proxy.url, deadline=0.3) as gateway:
        proxy.rule = lambda _: fault
        for operation in (READ, WRITE):
            error, _ = await ended(gateway.command(operation, "SET", MARK, MARK))
            check_error(error)
    assert MARK not in spoken()


@pytest.mark.parametrize(
    ("credentials", "told"), [(f":{MARK}@", "WRONGPASS"), (f"{MARK}:{MARK}@", "WRONGPASS"), ("", "NOAUTH")]
)
async def test_a_wrong_password_is_told_and_not_quoted(spoken, credentials, told):
    with RedisServer(requirepass="the right one") as server:
        url = f"redis://{credentials}{server.address}/0"
        async with opened(url) as gateway:
            for _ in range(7):
                error, _ = await ended(gateway.command(READ, "GET", "k"))
                assert str(error) == f"Redis denied read: {told}"
                assert type(error) is RepositoryError
                check_error(error)
        tried = server.ask("INFO", "commandstats").partition("cmdstat_get:")[2].partition("rejected_calls=")[2]
        assert tried.partition(",")[0] == ("" if credentials else "7"), "what is denied is not tried again"
    assert MARK not in spoken()


async def test_a_right_password_opens_and_a_right_that_is_missing_is_named(own_server):
    with RedisServer(requirepass="p@ss/word") as server:
        async with opened(f"redis://:p%40ss%2Fword@{server.address}/2") as gateway:
            assert await gateway.command(WRITE, "SET", "k", "v") == b"OK"
    own_server.ask("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+get", "+select")
    async with opened(f"redis://reader:secret@{own_server.address}") as gateway:
        error, _ = await ended(gateway.command(WRITE, "SET", "k", "v"))
        assert str(error) == "Redis denied write: NOPERM"
        assert not gateway.breaker.is_open


async def test_the_search_for_secrets_sees_an_error_that_is_not_stripped(own_server, monkeypatch):
    monkeypatch.setattr(redis_translation, "strip", lambda _: None)
    async with opened(own_server.url) as gateway:
        await gateway.command(WRITE, "SET", MARK, MARK)
        errors = await provoke(gateway)

    def check_all():
        for error in errors:
            check_error(error)

    with pytest.raises(AssertionError, match=MARK):
        check_all()
