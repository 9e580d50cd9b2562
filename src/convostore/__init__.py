"""convostore: conversations and messages for many tenants."""

from convostore.database.settings import MongoSettings
from convostore.models.mongo.conversation_model import ConversationDocument, LastMessage
from convostore.models.mongo.message_model import MessageDocument, TokenUsage
from convostore.models.types import ChannelType, ConversationStatus, DeliveryStatus, MessageRole
from convostore.repositories.base_repository import PaginatedResult, Pagination
from convostore.repositories.conversation_repository import ConversationRepository, get_conversation_repository
from convostore.repositories.exceptions import (
    ConcurrencyError,
    ConnectionError,  # noqa: A004 - the name is the specification's
    CorruptDocumentError,
    DeadlineExceededError,
    DuplicateEntityError,
    EntityNotFoundError,
    IdempotencyConflictError,
    LocalServerError,
    Outcome,
    RepositoryError,
    TenantMismatchError,
    TransactionAbortedError,
    TransactionConflictError,
    TransactionError,
    ValidationError,
)
from convostore.repositories.keyset import KeysetPage
from convostore.repositories.message_reader import HistoryPage
from convostore.repositories.message_repository import MessageRepository, get_message_repository
from convostore.repositories.unit_of_work import UnitOfWork
from convostore.store import ConvoStore, TenantStore

__all__ = [
    "ChannelType",
    "ConcurrencyError",
    "ConnectionError",
    "ConversationDocument",
    "ConversationRepository",
    "ConversationStatus",
    "ConvoStore",
    "CorruptDocumentError",
    "DeadlineExceededError",
    "DeliveryStatus",
    "DuplicateEntityError",
    "EntityNotFoundError",
    "HistoryPage",
    "IdempotencyConflictError",
    "KeysetPage",
    "LastMessage",
    "LocalServerError",
    "MessageDocument",
    "MessageRepository",
    "MessageRole",
    "MongoSettings",
    "Outcome",
    "PaginatedResult",
    "Pagination",
    "RepositoryError",
    "TenantMismatchError",
    "TenantStore",
    "TokenUsage",
    "TransactionAbortedError",
    "TransactionConflictError",
    "TransactionError",
    "UnitOfWork",
    "ValidationError",
    "get_conversation_repository",
    "get_message_repository",
]
