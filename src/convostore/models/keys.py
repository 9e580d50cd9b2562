"""Keys in Redis: ``cs:<kind>:{<tag>}:<rest>``, injective in their components.

What stands between the braces decides the slot in a cluster, so keys that one script touches share their tag. Each
component is percent-escaped, a long one replaced by its hash behind a mark that escaping never produces.
"""

import base64
import hashlib
import re
from functools import lru_cache

from convostore.models.identity import escape

NAMESPACE = "cs"
CACHED = "cache"  # the kind of the keys of cached values
LONGEST_COMPONENT = 96  # bytes; a hash needs half of them
_HASHED = "%~"
_GLOB = re.compile(r"[*?\[\]\\^-]")


def redis_key(kind: str, tag: tuple[str, ...], *rest: str) -> str:
    """Return the key of checked components.

    Args:
        kind: what lies below it, such as ``session``; says how many components follow.
        tag: decides the slot; the tenant first.
        rest: what else tells it from its neighbours.
    """
    parts = [NAMESPACE, kind, "{" + ":".join([component(part) for part in tag]) + "}"]
    return ":".join(parts + [component(part) for part in rest])


@lru_cache(maxsize=4096)
def component(text: str) -> str:
    """Return a component as it stands in a key."""
    escaped = escape(text)
    if len(escaped) <= LONGEST_COMPONENT // 4 or len(escaped.encode()) <= LONGEST_COMPONENT:
        return escaped
    return _HASHED + digest(text)


def pattern(kind: str, *tag: str) -> str:
    """Return the pattern of all keys whose tag begins with these components, for SCAN.

    Args:
        kind: what lies below it; ``*`` is every kind.
        tag: the first components of the tag; nothing in them is taken for a pattern.
    """
    begin = ":".join(_GLOB.sub(r"\\\g<0>", component(part)) for part in tag)
    return f"{NAMESPACE}:{kind}:{{{begin}[:}}]*"


def digest(text: str) -> str:
    """Return 256 bits that stand for a text, in 43 characters."""
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
