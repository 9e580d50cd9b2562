"""The driver's bulk of updates as bare commands, for those that may be repeated.

The driver numbers the statements of its own bulks, so that it can send them again and the server knows what it has
done; the server's books of that are a quarter of what an update costs it. Whoever calls this repeats it himself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

_TOGETHER = 1_000  # statements in a command; the server takes 100,000


async def update_all(
    collection: AsyncCollection[dict[str, Any]],
    statements: Sequence[Mapping[str, Any]],
    session: AsyncClientSession | None,
) -> int:
    """Make updates in any order; return how many documents they matched.

    Args:
        collection: where, and under which write concern.
        statements: as the server takes them: ``q``, ``u``.
        session: of this call.

    Raises:
        BulkWriteError: one of them was refused, or the write concern was not met.
    """
    matched = 0
    for start in range(0, len(statements), _TOGETHER):
        matched += await _update(collection, statements[start : start + _TOGETHER], session)
    return matched


async def _update(
    collection: AsyncCollection[dict[str, Any]],
    statements: Sequence[Mapping[str, Any]],
    session: AsyncClientSession | None,
) -> int:
    command: dict[str, Any] = {"update": collection.name, "updates": statements, "ordered": False}
    if concern := collection.write_concern.document:
        command["writeConcern"] = concern
    answer = await collection.database.command(command, session=session)
    unmet = answer.get("writeConcernError")
    if unmet or answer.get("writeErrors"):
        details = {"writeErrors": answer.get("writeErrors", []), "writeConcernErrors": [unmet] if unmet else []}
        raise BulkWriteError(details)
    return int(answer["n"])
