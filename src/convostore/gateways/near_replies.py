"""Replies that are kept in the process, the least recently used given up first.

A reply may be kept only if nothing was said of its key since it was asked for: what is said of a key may overtake the
reply to it, for the two come over different connections.
"""

from collections import OrderedDict
from collections.abc import Iterable

_COST = 200  # bytes that a reply takes beside its own and those of its key, about
_LARGEST = 8  # of so many parts of the room, a single reply may take one


class NearReplies:
    """The replies to reads of single keys.

    Args:
        room: bytes at most, keys and what it costs to keep them included.

    Attributes:
        size: bytes that are taken.
    """

    def __init__(self, room: int) -> None:
        self.size = 0
        self._room = room
        self._replies: OrderedDict[str, bytes] = OrderedDict()
        self._asked: dict[str, object] = {}

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> bytes | None:
        """Return the reply that is kept for a key, or None."""
        reply = self._replies.get(key)
        if reply is not None:
            self._replies.move_to_end(key)
        return reply

    def ask(self, key: str) -> object:
        """Note that a key is about to be asked for, and return the right to keep the reply."""
        return self._asked.setdefault(key, object())

    def answer(self, key: str, right: object, reply: object) -> None:
        """Take what was replied, or None; it is kept if the right has not been lost meanwhile."""
        if self._asked.get(key) is not right:
            return
        del self._asked[key]
        if type(reply) is bytes and _cost(key, reply) <= self._room // _LARGEST:
            self._keep(key, reply)

    def _keep(self, key: str, reply: bytes) -> None:
        self._drop(key)
        self._replies[key] = reply
        self.size += _cost(key, reply)
        while self.size > self._room:
            self._drop(next(iter(self._replies)))

    def forget(self, keys: Iterable[str]) -> None:
        """Forget keys, and refuse the replies that are on their way."""
        for key in keys:
            self._asked.pop(key, None)
            self._drop(key)

    def forget_everything(self) -> None:
        """Forget all keys, and refuse all replies that are on their way."""
        self._replies.clear()
        self._asked.clear()
        self.size = 0

    def _drop(self, key: str) -> None:
        reply = self._replies.pop(key, None)
        if reply is not None:
            self.size -= _cost(key, reply)


def _cost(key: str, reply: bytes) -> int:
    return _COST + len(key) + len(reply)
