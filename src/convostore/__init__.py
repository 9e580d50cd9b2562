"""convostore: conversations, messages, sessions, rate limits and a cache for many tenants."""

from convostore.database.settings import MongoSettings, RedisSettings
from convostore.gateways.change_stream import Loss
from convostore.models.mongo.conversation_model import ConversationDocument, LastMessage
from convostore.models.mongo.message_model import MessageDocument, TokenUsage
from convostore.models.redis.cached_value import CachedValue
from convostore.models.redis.rate_limit_result import RateLimitResult
from convostore.models.redis.rate_limits import WHOLE_TENANT, AbuseGuard, RateLimitPolicy, WhenUnavailable
from convostore.models.redis.reservation import Reservation
from convostore.models.redis.session_cache import SessionData
from convostore.models.types import ChannelType, ConversationStatus, DeliveryStatus, MessageRole
from convostore.operations.erasing import Erasure, ErasureCounts, ErasureReport
from convostore.operations.retention import Retention
from convostore.repositories.base_repository import PaginatedResult, Pagination
from convostore.repositories.cache_repository import CacheRepository
from convostore.repositories.cache_space import CacheSpace
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
from convostore.repositories.rate_limit_repository import RateLimitRepository, get_rate_limit_repository
from convostore.repositories.session_policy import SessionLimitError, SessionPolicy
from convostore.repositories.session_repository import SessionRepository, get_session_repository
from convostore.repositories.unit_of_work import UnitOfWork
from convostore.store import ConvoStore
from convostore.sync.changes import Changes
from convostore.sync.dispatcher import Dispatcher
from convostore.sync.events import (
    ChangeEvent,
    ConversationChanged,
    ConversationCreated,
    ConversationDeleted,
    ConversationEvent,
    DeliveryChanged,
    HistoryLost,
    MessageAppended,
    MessageDeleted,
    MessageEdited,
    MessageEvent,
)
from convostore.sync.outbox import Effect, Outbox, OutboxEntry
from convostore.sync.synchronizer import Synchronizer, SyncStatus
from convostore.sync.users import Users
from convostore.tenant_store import TenantStore

__all__ = [
    "WHOLE_TENANT",
    "AbuseGuard",
    "CacheRepository",
    "CacheSpace",
    "CachedValue",
    "ChangeEvent",
    "Changes",
    "ChannelType",
    "ConcurrencyError",
    "ConnectionError",
    "ConversationChanged",
    "ConversationCreated",
    "ConversationDeleted",
    "ConversationDocument",
    "ConversationEvent",
    "ConversationRepository",
    "ConversationStatus",
    "ConvoStore",
    "CorruptDocumentError",
    "DeadlineExceededError",
    "DeliveryChanged",
    "DeliveryStatus",
    "Dispatcher",
    "DuplicateEntityError",
    "Effect",
    "EntityNotFoundError",
    "Erasure",
    "ErasureCounts",
    "ErasureReport",
    "HistoryLost",
    "HistoryPage",
    "IdempotencyConflictError",
    "KeysetPage",
    "LastMessage",
    "LocalServerError",
    "Loss",
    "MessageAppended",
    "MessageDeleted",
    "MessageDocument",
    "MessageEdited",
    "MessageEvent",
    "MessageRepository",
    "MessageRole",
    "MongoSettings",
    "Outbox",
    "OutboxEntry",
    "Outcome",
    "PaginatedResult",
    "Pagination",
    "RateLimitPolicy",
    "RateLimitRepository",
    "RateLimitResult",
    "RedisSettings",
    "RepositoryError",
    "Reservation",
    "Retention",
    "SessionData",
    "SessionLimitError",
    "SessionPolicy",
    "SessionRepository",
    "SyncStatus",
    "Synchronizer",
    "TenantMismatchError",
    "TenantStore",
    "TokenUsage",
    "TransactionAbortedError",
    "TransactionConflictError",
    "TransactionError",
    "UnitOfWork",
    "Users",
    "ValidationError",
    "WhenUnavailable",
    "get_conversation_repository",
    "get_message_repository",
    "get_rate_limit_repository",
    "get_session_repository",
]
