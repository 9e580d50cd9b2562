"""Tags by generation: forget everything that bears a tag, however much it is, in one step.

A tag has a generation: eight random bytes under a key of its own. A value keeps the generations that its tags had
*before it was loaded*, and counts only as long as they are those of now. To invalidate a tag is to delete its
generation; whoever loads next draws another. So an eviction does what an invalidation does, a generation never comes
back, and a full server, which refuses to store but not to delete, can still invalidate.

Cell and generations lie on different servers of a cluster and are read at different moments; that is harmless, since
all of them are read after the reader has begun: an invalidation that returned before is seen, whichever comes first.
"""

import secrets
from collections.abc import Sequence

from convostore.gateways.redis_wire import Command
from convostore.models.identity import check_identifier
from convostore.models.keys import redis_key
from convostore.repositories.cache_cell import GENERATION_BYTES, MAX_TAGS
from convostore.repositories.cache_space import MAX_TTL
from convostore.repositories.exceptions import ValidationError

TAG_SECONDS = int(MAX_TTL)  # at least as long as the values that bear it


def check_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags in order, each once.

    Raises:
        ValidationError: one cannot be a tag, or there are too many.
    """
    if isinstance(tags, str) or not isinstance(tags, Sequence | set | frozenset):
        raise ValidationError("tags: must be a list of texts", "tags")
    checked = tuple(sorted({check_identifier(tag, "tags") for tag in tags}))
    if len(checked) > MAX_TAGS:
        raise ValidationError(f"tags: at most {MAX_TAGS}, not {len(checked)}", "tags")
    return checked


def tag_key(tenant_id: str, tag: str, epoch: str) -> str:
    """Return the key of a tag's generation."""
    return redis_key("cachetag", (tenant_id, tag), epoch)


def reading(keys: Sequence[str]) -> list[Command]:
    """Return the commands that read generations."""
    return [("GET", key) for key in keys]


def ensuring(keys: Sequence[str]) -> list[Command]:
    """Return the commands that read generations, and draw those that are not there; their replies come in pairs."""
    pairs = [
        (
            ("SET", key, secrets.token_bytes(GENERATION_BYTES), "NX", "EX", TAG_SECONDS),
            ("GETEX", key, "EX", TAG_SECONDS),
        )
        for key in keys
    ]
    return [command for pair in pairs for command in pair]


def joined(replies: Sequence[object]) -> bytes | None:
    """Return the generations as a value keeps them, or None if one is not to be had."""
    found = [reply for reply in replies if isinstance(reply, bytes) and len(reply) == GENERATION_BYTES]
    return b"".join(found) if len(found) == len(replies) else None
