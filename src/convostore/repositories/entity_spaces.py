"""Entity spaces: under which names the cache keeps what MongoDB holds, and what a version is in each.

Whoever reads through the cache and whoever invalidates it go by these.
"""

from operator import attrgetter

from convostore.models.mongo.conversation_model import ConversationDocument
from convostore.repositories.cache_codec import DocumentCodec
from convostore.repositories.cache_space import CacheSpace
from convostore.repositories.newest_slots import NewestCodec, NewestSlots

CONVERSATION: CacheSpace[ConversationDocument] = CacheSpace(
    "conversation", DocumentCodec(ConversationDocument), version_of=attrgetter("version")
)
"""Conversations by their id, at the version of their state."""

NEWEST: CacheSpace[NewestSlots] = CacheSpace("newest", NewestCodec(), version_of=attrgetter("sequence"))
"""The newest slots of a conversation's log by its id, at the sequence of the last of them. An edit of a message raises
no sequence, so it makes the cache forget them."""
