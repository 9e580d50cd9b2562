"""MongoDBChatMessageHistory of langchain-mongodb, which is synchronous: its asynchronous methods use threads."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_mongodb import MongoDBChatMessageHistory
from pymongo import MongoClient

from benchmarks.peers import CONVERSATION_IDS, Calls, conversation_calls
from benchmarks.repositories import MESSAGES, ONE, READ, TEXT
from convostore import MongoSettings


@asynccontextmanager
async def langchain(settings: MongoSettings) -> AsyncIterator[Calls]:
    """Open a history a conversation, all on one client of the driver."""
    uri = settings.mongodb_uri.get_secret_value()
    with MongoClient[dict[str, Any]](uri, **settings.client_options()) as client:
        options = {"client": client, "database_name": f"{settings.database_name}_l", "history_size": 50}
        histories = {
            one: MongoDBChatMessageHistory(None, one, create_index=one == ONE, **options) for one in CONVERSATION_IDS
        }
        for _ in range(MESSAGES):
            histories[READ].add_message(HumanMessage(TEXT))
        yield conversation_calls(
            lambda conversation_id: histories[conversation_id].aadd_messages([HumanMessage(TEXT)]),
            histories[READ].aget_messages,
        )
