"""Commands that show conversations and messages."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from convostore.cli.drawing import cell, chat, conversation_head, safe, standard_output, table
from convostore.cli.options import AsJson, DatabaseName, DataDirectory, MongoUri, Tenant, Where, open_tenant
from convostore.cli.reporting import print_json, run
from convostore.models.identity import check_identifier
from convostore.models.mongo.conversation_model import ConversationDocument
from convostore.models.mongo.message_model import MessageDocument
from convostore.repositories.exceptions import EntityNotFoundError
from convostore.repositories.message_reader import HistoryPage

_AROUND = 60  # characters shown on each side of the first word found

ConversationId = Annotated[str, typer.Argument(metavar="CONVERSATION_ID", help="Which conversation.")]
Words = Annotated[list[str], typer.Argument(metavar="WORDS", help="Words that the message must all contain.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="At most so many messages.")]
Inside = Annotated[str | None, typer.Option("--in", metavar="CONVERSATION_ID", help="Only in this conversation.")]

Shown = tuple[ConversationDocument, HistoryPage]


def show_command(
    conversation_id: ConversationId,
    *,
    tenant: Tenant,
    limit: Limit = 50,
    as_json: AsJson = False,
    mongodb_uri: MongoUri = None,
    database: DatabaseName = None,
    data: DataDirectory = None,
) -> None:
    """Show the newest messages of a conversation as a chat.

    Example: convostore show order-4711 --tenant acme --limit 20
    """
    conversation, page = run(_show(Where(mongodb_uri, database, data), tenant, conversation_id, limit))
    if as_json:
        messages = [_plain(message) for message in page.items]
        print_json({**_plain(conversation), "messages": messages, "has_earlier": page.has_earlier})
        return
    console = standard_output()
    console.print(conversation_head(conversation))
    if page.has_earlier:
        console.print(cell(f"There are older messages than these {len(page.items)}: --limit shows more", "dim"))
    console.print(chat(page.items, console.width))


async def _show(where: Where, tenant: str, conversation_id: str, limit: int) -> Shown:
    check_identifier(conversation_id, "conversation_id")
    async with open_tenant(where, tenant) as opened:
        conversation = await opened.conversations.get_by_id(conversation_id)
        if conversation is None:
            raise EntityNotFoundError(ConversationDocument.entity_type, conversation_id)
        return conversation, await opened.messages.history(conversation_id, limit)


def search_command(
    words: Words,
    *,
    tenant: Tenant,
    limit: Limit = 20,
    inside: Inside = None,
    as_json: AsJson = False,
    mongodb_uri: MongoUri = None,
    database: DatabaseName = None,
    data: DataDirectory = None,
) -> None:
    """Find the messages that contain every word, in any case.

    Example: convostore search refund invoice --tenant acme
    """
    found = run(_search(Where(mongodb_uri, database, data), tenant, " ".join(words), limit, inside))
    if as_json:
        print_json([_plain(message) for message in found])
    else:
        print_found(found, words)


async def _search(where: Where, tenant: str, text: str, limit: int, inside: str | None) -> Sequence[MessageDocument]:
    async with open_tenant(where, tenant) as opened:
        return (await opened.messages.search(text, inside, limit)).items


def print_found(found: Sequence[MessageDocument], words: Sequence[str]) -> None:
    """Print messages as a table with the words that were looked for highlighted."""
    drawn = table(f"{len(found)} messages", "conversation", "sequence", "role", "text")
    parts = [part for word in words for part in word.split()]
    for message in found:
        text = cell(_excerpt(message.content, parts))
        text.highlight_words([safe(part) for part in parts], "bold yellow", case_sensitive=False)
        drawn.add_row(cell(message.conversation_id), cell(message.sequence), cell(message.role), text)
    standard_output().print(drawn)


def _excerpt(content: str, words: Sequence[str]) -> str:
    places = [place for word in words if (place := content.lower().find(word.lower())) >= 0]
    start = max(0, min(places, default=0) - _AROUND)
    end = start + 3 * _AROUND
    return ("…" if start else "") + content[start:end] + ("…" if end < len(content) else "")


def _plain(document: ConversationDocument | MessageDocument) -> dict[str, Any]:
    return document.model_dump(mode="json", exclude_none=True, exclude={"replayed"})
