"""A MongoDB that soon forgets what has happened, for tests of lost history."""

import time
from contextlib import contextmanager

from pymongo import MongoClient

from convostore.database.child_server import start_together
from convostore.database.server_binaries import ServerBinaries
from convostore.database.server_kinds import MongodServer
from convostore.database.throw_away import create_throw_away, discard

_MEBIBYTE = 1024 * 1024


class _Forgetful(MongodServer):
    def command(self):
        command = super().command()
        command[command.index("--oplogSize") + 1] = "1"
        return [*command, "--syncdelay", "1"]  # what is in no checkpoint yet is not forgotten


@contextmanager
def forgetful_server():
    """Run a server that remembers only a few megabytes of changes, and yield its address."""
    layout, hold = create_throw_away()
    server = _Forgetful(ServerBinaries.find().mongod, layout)
    try:
        start_together([server], hold.descriptor)
        yield server.uri
    finally:
        server.begin_stop()
        server.finish_stop()
        hold.close()
        discard(layout)


def make_forget(uri):
    """Write until the server has forgotten what happened before."""
    with MongoClient(uri) as client:
        oplog, flood = client.local["oplog.rs"], client.flood.flood
        newest = oplog.find_one(sort=[("$natural", -1)])["ts"]
        for _ in range(200):
            flood.insert_many([{"filling": "x" * _MEBIBYTE} for _ in range(4)])
            if oplog.find_one(sort=[("$natural", 1)])["ts"] > newest:
                return
            time.sleep(0.1)
    raise AssertionError("the server does not forget")
