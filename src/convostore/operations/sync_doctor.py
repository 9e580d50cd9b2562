"""Looks how far those who synchronize have come, and what waits for them; changes nothing."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from convostore.gateways.change_stream import moment_of
from convostore.gateways.checkpoints import CURSOR, Checkpoints
from convostore.gateways.mongo_gateway import MongoGateway
from convostore.gateways.outbox_entries import OutboxEntries, Waiting
from convostore.operations.doctor import Finding, Level
from convostore.repositories.exceptions import RepositoryError

_SILENT = 60.0  # seconds; it keeps how far it has come every ten
_BEHIND = 60.0


class SyncDoctor:
    """Examines the checkpoints and the outbox of a database.

    Args:
        gateway: the way to it.
    """

    def __init__(self, gateway: MongoGateway) -> None:
        self._gateway = gateway

    async def examine(self) -> AsyncIterator[Finding]:
        """Iterate over the findings; a server that is away is left to the doctor of the database."""
        try:
            kept = await Checkpoints(self._gateway).all()
            answer = await self._gateway.administration.command({"hello": 1})
            waiting = await OutboxEntries(self._gateway).waiting()
        except RepositoryError:
            return
        now = answer["localTime"].replace(tzinfo=UTC)
        for checkpoint in kept:
            yield _finding(f"sync {checkpoint['_id']}", checkpoint[CURSOR], checkpoint["saved_at"], now)
        if not kept:
            text = "never run: what other programs change stays in the cache until it ends by itself"
            yield Finding("sync", Level.OK, text)
        yield _told_of(waiting)


def _told_of(waiting: Waiting) -> Finding:
    if not waiting.failed:
        return Finding("outbox", Level.OK, f"{waiting.entries} waiting")
    text = f"{waiting.failed} of {waiting.entries} are tried again: is Redis away? `convostore sync` carries them out"
    return Finding("outbox", Level.WARNING, text)


def _finding(check: str, cursor: str, saved_at: datetime, now: datetime) -> Finding:
    try:
        place = moment_of(cursor)
    except (ValueError, TypeError):
        return Finding(check, Level.WARNING, "leads nowhere: the cache will forget everything, once")
    age, lag = (now - place).total_seconds(), (saved_at - place).total_seconds()
    silent = (now - saved_at).total_seconds()
    figures = f"lag {max(0, lag):.0f} s, token {max(0, age):.0f} s old"
    if silent > _SILENT:
        text = f"not heard of for {silent:.0f} s ({figures}): `convostore sync` goes on from there"
        return Finding(check, Level.WARNING, text)
    if lag > _BEHIND:
        return Finding(check, Level.WARNING, f"runs behind: {figures}")
    return Finding(check, Level.OK, figures)
