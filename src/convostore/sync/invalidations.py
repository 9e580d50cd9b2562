"""Invalidations: what events mean for the cache, many events of one entity as one."""

from collections.abc import Iterable

from convostore.repositories.cache_forgetting import CacheForgetting, Place
from convostore.repositories.entity_spaces import CONVERSATION, NEWEST
from convostore.sync.events import (
    ChangeEvent,
    ConversationChanged,
    ConversationCreated,
    ConversationDeleted,
    ConversationEvent,
    HistoryLost,
    MessageAppended,
)


class Invalidations:
    """What is to be invalidated.

    Attributes:
        everything: whether all is to be forgotten, since it is not known what has changed.
    """

    def __init__(self, events: Iterable[ChangeEvent] = (), *, everything: bool = False) -> None:
        self.everything = everything
        self._versions: dict[Place, int] = {}
        self._unknown: set[Place] = set()
        for event in events:
            self.add(event)

    def __len__(self) -> int:
        return len(self._versions) + len(self._unknown)

    def add(self, event: ChangeEvent) -> None:
        """Take in an event."""
        if isinstance(event, HistoryLost):
            self.everything = True
        elif isinstance(event, ConversationCreated | ConversationChanged):
            self._outdated(event, CONVERSATION.name, event.version)
        elif isinstance(event, ConversationDeleted):
            self._outdated(event, CONVERSATION.name, event.version)
            self._outdated(event, NEWEST.name, None)
        elif isinstance(event, MessageAppended):
            self._outdated(event, NEWEST.name, event.sequence)
        elif isinstance(event, ConversationEvent):
            self._outdated(event, NEWEST.name, None)

    def _outdated(self, event: ConversationEvent, space: str, version: int | None) -> None:
        place = Place(event.tenant_id, space, event.conversation_id)
        if version is None:
            self._unknown.add(place)
        else:
            self._versions[place] = max(version, self._versions.get(place, 0))

    async def apply(self, cache: CacheForgetting) -> int:
        """Carry them out; may be repeated. Return how many values the cache has forgotten.

        Raises:
            RepositoryError: some of it may not have been carried out.
        """
        if self.everything:
            return await cache.forget_everything()
        forgotten = await cache.forget(self._unknown)
        return forgotten + await cache.invalidate(self._versions)
