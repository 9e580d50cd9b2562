"""Every class, method and parameter that the specification names for steps 5 and 6 is there, under the same name."""

import ast
import copy
import importlib
import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from convostore.repositories import exceptions

SPECIFICATION = Path(__file__).parents[2] / "../shared/spec/phase-3-database-layer.md"
MODULES = ("base_repository", "conversation_repository", "exceptions", "session_repository", "rate_limit_repository")
FILES = (
    "base_repository",
    "mongo_repository",
    "conversation_repository",
    "message_repository",
    "exceptions",
    "redis_repository",
    "session_repository",
    "rate_limit_repository",
    "cache_repository",
)

# What the specification says, as ``signatures`` reads it: parameters without self and cls, ``async`` in front where
# it is; the fields of a data class are the parameters of its constructor.
KEPT: dict[str, dict[str, list[str]]] = {
    "base_repository": {
        "Pagination.__init__": ["page", "page_size", "sort_by", "sort_order"],
        "Pagination.offset": [],
        "Pagination.validate": [],
        "PaginatedResult.__init__": ["items", "total", "page", "page_size", "has_next", "has_previous"],
        "PaginatedResult.create": ["items", "total", "pagination"],
        "BaseRepository.__init__": [],
        "BaseRepository.create": ["async", "entity"],
        "BaseRepository.get_by_id": ["async", "entity_id"],
        "BaseRepository.update": ["async", "entity"],
        "BaseRepository.delete": ["async", "entity_id"],
        "BaseRepository.list": ["async", "filters", "pagination"],
        "BaseRepository.exists": ["async", "entity_id"],
        "BaseRepository.count": ["async", "filters"],
        "BaseRepository._build_sort_criteria": ["pagination"],
        "BaseRepository._log_operation": ["operation", "**kwargs"],
    },
    "conversation_repository": {
        "ConversationRepository.__init__": ["database"],
        "ConversationRepository.create": ["async", "conversation"],
        "ConversationRepository.get_by_id": ["async", "conversation_id"],
        "ConversationRepository.update": ["async", "conversation"],
        "ConversationRepository.delete": ["async", "conversation_id"],
        "ConversationRepository.list": ["async", "filters", "pagination"],
        "ConversationRepository.exists": ["async", "conversation_id"],
        "ConversationRepository.count": ["async", "filters"],
        "ConversationRepository.get_active_conversations": ["async", "tenant_id", "user_id", "limit"],
        "ConversationRepository.update_conversation_status": ["async", "conversation_id", "status", "completed_at"],
        "ConversationRepository.get_conversations_by_tenant": ["async", "tenant_id", "filters", "pagination"],
        "ConversationRepository._build_query": ["filters"],
        "get_conversation_repository": ["async"],
    },
    "exceptions": {
        "RepositoryError.__init__": ["message", "original_error"],
        "EntityNotFoundError.__init__": ["entity_type", "entity_id"],
        "DuplicateEntityError.__init__": ["entity_type", "entity_id"],
        "ValidationError.__init__": ["message", "field"],
        "ConnectionError.__init__": ["database_type", "original_error"],
        "TransactionError.__init__": ["message", "operation"],
    },
    "session_repository": {
        "SessionRepository.__init__": ["redis_client"],
        "SessionRepository.create_session": ["async", "session_data"],
        "SessionRepository.get_session": ["async", "tenant_id", "session_id"],
        "SessionRepository.update_session": ["async", "session_data"],
        "SessionRepository.delete_session": ["async", "tenant_id", "session_id"],
        "SessionRepository.extend_session": ["async", "tenant_id", "session_id", "hours"],
        "SessionRepository.get_user_sessions": ["async", "tenant_id", "user_id"],
        "SessionRepository.cleanup_expired_sessions": ["async"],
        "SessionRepository._add_to_user_sessions_index": ["async", "tenant_id", "user_id", "session_id"],
        "SessionRepository._remove_from_user_sessions_index": ["async", "tenant_id", "user_id", "session_id"],
        "get_session_repository": ["async"],
    },
    "rate_limit_repository": {
        "RateLimitRepository.__init__": ["redis_client"],
        "RateLimitRepository.check_rate_limit": ["async", "tenant_id", "identifier", "limit", "window_seconds"],
        "RateLimitRepository.increment_counter": ["async", "tenant_id", "identifier", "window_seconds"],
        "RateLimitRepository.get_remaining_quota": ["async", "tenant_id", "identifier", "limit", "window_seconds"],
        "RateLimitRepository.reset_rate_limit": ["async", "tenant_id", "identifier"],
        "RateLimitRepository.get_rate_limit_info": ["async", "tenant_id", "identifier", "limit", "window_seconds"],
        "get_rate_limit_repository": ["async"],
    },
}

# Named in the prose above the code ("Methods:"), with their arguments; the code block leaves some out.
IN_PROSE = {
    "create_conversation": ["conversation"],
    "get_by_conversation_id": ["conversation_id"],
    "get_active_conversations": ["tenant_id", "user_id"],
    "update_conversation_status": ["conversation_id", "status"],
    "get_conversations_by_tenant": ["tenant_id", "filters", "pagination"],
}

# What the repositories of step 6 call on the model of a session, which an earlier step of the specification defines.
SESSION_DATA = {
    "get_cache_key": ["tenant_id", "session_id"],
    "to_redis_hash": [],
    "from_redis_hash": ["hash_data"],
    "update_activity": [],
    "is_expired": [],
    "extend_session": ["hours"],
}

# Where the behaviour behind a name is another one, and why.
DEVIATIONS = {
    "ConversationRepository.__init__": "takes a tenant's handle, not the driver's database: no query without a tenant",
    "ConversationRepository.create": "raises DuplicateEntityError with type and id, as the class of the spec asks",
    "ConversationRepository.update": "guarded by the version; sets only what an editor owns; returns the successor",
    "ConversationRepository.delete": "leaves a tombstone, so that a deleted document never comes back",
    "ConversationRepository.exists": "raises where the spec answers False: 'could not look' is another answer",
    "ConversationRepository.list": "a wrong page number is a ValidationError; unknown filters are refused",
    "ConversationRepository.update_conversation_status": "True if the conversation exists, also if nothing changed",
    "ConversationRepository.get_conversations_by_tenant": "another tenant than the bound one: TenantMismatchError",
    "ConversationRepository._build_query": "values are parsed to scalars: a dict cannot become an operator",
    "BaseRepository._build_sort_criteria": "only known fields; ties broken by identity, so that pages never overlap",
    "BaseRepository._log_operation": "the gateway logs each call; this is for what goes beyond one",
    "Pagination.validate": "raises ValidationError, which is also the ValueError of the spec",
}


def signatures(source: str) -> dict[str, list[str]]:
    """Return the parameters of each function and method of a module."""
    found: dict[str, list[str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = _parameters(node)
        elif isinstance(node, ast.ClassDef):
            fields = [item.target.id for item in node.body if isinstance(item, ast.AnnAssign)]
            if fields:
                found[f"{node.name}.__init__"] = fields
            for item in node.body:
                if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                    found[f"{node.name}.{item.name}"] = _parameters(item)
    return found


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    names = [argument.arg for argument in node.args.args if argument.arg not in ("self", "cls")]
    names += [f"**{node.args.kwarg.arg}"] if node.args.kwarg else []
    return ["async", *names] if isinstance(node, ast.AsyncFunctionDef) else names


def block_of(module: str, text: str) -> str:
    """Return the Python block below the heading of a file."""
    heading = re.search(
        rf"^#### `src/repositories/{module}\.py`$.*?^```python$(.*?)^```$", text, re.DOTALL | re.MULTILINE
    )
    assert heading is not None
    return heading[1]


NAMES = [(module, name) for module, members in KEPT.items() for name in members]


@pytest.mark.parametrize("module", MODULES)
def test_the_kept_list_is_what_the_specification_says(module: str) -> None:
    if not SPECIFICATION.is_file():
        pytest.skip("the specification is not beside the project")
    text = SPECIFICATION.read_text(encoding="utf-8")
    assert signatures(block_of(module, text)) == KEPT[module]
    for name in IN_PROSE:
        assert f"**{name}(" in text


@pytest.mark.parametrize("module", FILES)
def test_every_file_that_the_specification_names_is_there(module: str) -> None:
    importlib.import_module(f"convostore.repositories.{module}")


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_name_of_the_specification_is_there_with_its_parameters_in_their_order(module: str, name: str) -> None:
    wanted = KEPT[module][name]
    member = _member(importlib.import_module(f"convostore.repositories.{module}"), name)
    if isinstance(member, property):
        assert wanted == []
        return
    assert inspect.iscoroutinefunction(member) is (wanted[:1] == ["async"])
    wanted = [parameter for parameter in wanted if parameter != "async"]
    parameters = [p for p in inspect.signature(member).parameters.values() if p.name not in ("self", "cls")]
    spelled = [f"**{p.name}" if p.kind is p.VAR_KEYWORD else p.name for p in parameters]
    assert spelled[: len(wanted)] == wanted
    assert all(p.default is not p.empty for p in parameters[len(wanted) :])


@pytest.mark.parametrize("name", IN_PROSE)
def test_a_method_of_the_prose_is_there_with_its_parameters(name: str) -> None:
    member = _member(
        importlib.import_module("convostore.repositories.conversation_repository"), f"ConversationRepository.{name}"
    )
    assert list(inspect.signature(member).parameters)[1:][: len(IN_PROSE[name])] == IN_PROSE[name]


@pytest.mark.parametrize("name", SESSION_DATA)
def test_a_method_that_the_repositories_call_on_a_session_is_there(name: str) -> None:
    member = _member(importlib.import_module("convostore.models.redis.session_cache"), f"SessionData.{name}")
    wanted = SESSION_DATA[name]
    parameters = [p for p in inspect.signature(member).parameters if p != "self"]
    assert parameters[: len(wanted)] == wanted
    if SPECIFICATION.is_file():
        assert re.search(rf"(SessionData|session_data)\.{name}\(", SPECIFICATION.read_text(encoding="utf-8"))


def test_a_deviation_concerns_a_name_of_the_specification() -> None:
    assert DEVIATIONS.keys() <= {name for _, name in NAMES}


CAUSE = OSError("cause")


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (exceptions.RepositoryError("text", CAUSE), {"original_error": CAUSE}),
        (exceptions.RepositoryError("text"), {"original_error": None}),
        (exceptions.EntityNotFoundError("Thing", "id-1"), {"entity_type": "Thing", "entity_id": "id-1"}),
        (exceptions.DuplicateEntityError("Thing", "id-1"), {"entity_type": "Thing", "entity_id": "id-1"}),
        (exceptions.ValidationError("text", "field-1"), {"field": "field-1"}),
        (exceptions.ValidationError("text"), {"field": None}),
        (exceptions.ConnectionError("MongoDB", CAUSE), {"database_type": "MongoDB", "original_error": CAUSE}),
        (exceptions.TransactionError("text", "commit"), {"operation": "commit"}),
        (exceptions.TransactionError("text"), {"operation": None}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_has_the_attributes_and_the_text_of_the_specification(
    error: exceptions.RepositoryError, attributes: dict[str, Any]
) -> None:
    texts = {
        exceptions.EntityNotFoundError: "Thing with ID 'id-1' not found",
        exceptions.DuplicateEntityError: "Thing with ID 'id-1' already exists",
        exceptions.ConnectionError: "Failed to connect to MongoDB",
    }
    assert isinstance(error, exceptions.RepositoryError)
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert str(error) == texts.get(type(error), "text")


EVERY_ERROR = [
    exceptions.RepositoryError("text", CAUSE, outcome=exceptions.Outcome.UNKNOWN),
    exceptions.EntityNotFoundError("Thing", "id-1"),
    exceptions.DuplicateEntityError("Thing", "id-1"),
    exceptions.IdempotencyConflictError("Thing", "key-1"),
    exceptions.ConcurrencyError(1, 2, "Thing", "id-1"),
    exceptions.CorruptDocumentError("Thing", "id-1", "field-1"),
    exceptions.ValidationError("text", "field-1"),
    exceptions.TenantMismatchError("acme", "rival"),
    exceptions.ConnectionError("MongoDB", CAUSE, message="text"),
    exceptions.DeadlineExceededError("MongoDB", message="text"),
    exceptions.LocalServerError("servers", message="text"),
    exceptions.TransactionError("text", "commit"),
    exceptions.TransactionConflictError("text", "commit"),
    exceptions.TransactionAbortedError("text", "commit"),
]


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, lambda error: pickle.loads(pickle.dumps(error))],  # noqa: S301
    ids=["copy", "pickle"],
)
def test_an_error_can_be_copied_and_sent_to_another_process(error: Any, duplicate: Any) -> None:
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert (str(twin), twin.args) == (str(error), error.args)
    assert {name: str(value) for name, value in vars(twin).items()} == {
        name: str(value) for name, value in vars(error).items()
    }


def test_the_reader_of_the_specification_notices_a_changed_parameter() -> None:
    changed = signatures("class A:\n    async def list(self, pagination, filters): ...\n")
    assert changed == {"A.list": ["async", "pagination", "filters"]}


def _member(module: Any, name: str) -> Any:
    owner, _, method = name.rpartition(".")
    return (
        inspect.getattr_static(getattr(module, owner), method)
        if _is_property(module, owner, method)
        else (getattr(getattr(module, owner), method) if owner else getattr(module, method))
    )


def _is_property(module: Any, owner: str, method: str) -> bool:
    return bool(owner) and isinstance(inspect.getattr_static(getattr(module, owner), method, None), property)
