"""Tool calls and their results, recognised in the payloads of the common message formats.

OpenAI chat completions (``tool_calls`` / ``tool_call_id``), OpenAI responses (``call_id`` of items whose type ends in
``_call`` / ``_call_output``), Anthropic's content blocks (``tool_use`` / ``tool_result``), the AI SDK's parts
(``tool-call`` / ``tool-result``) and Gemini's (``functionCall`` / ``functionResponse``, by id or else by name).
"""

from collections.abc import Iterator
from typing import Any

_CALLS = {"tool_use": "id", "tool-call": "toolCallId"}
_RESULTS = {"tool_result": "tool_use_id", "tool-result": "toolCallId"}


def calls_made(payload: dict[str, Any] | None) -> frozenset[str]:
    """Return the ids of the tool calls that a message makes."""
    if not payload:
        return frozenset()
    listed = (call.get("id") for call in _dicts(payload.get("tool_calls")))
    return _texts([*listed, *(_named(item, _CALLS, "_call", "functionCall") for item in _items(payload))])


def calls_answered(payload: dict[str, Any] | None) -> frozenset[str]:
    """Return the ids of the tool calls whose results a message holds."""
    if not payload:
        return frozenset()
    items = (_named(item, _RESULTS, "_call_output", "functionResponse") for item in _items(payload))
    return _texts([payload.get("tool_call_id"), *items])


def _named(item: dict[str, Any], kinds: dict[str, str], ending: str, function: str) -> Any:
    kind = item.get("type")
    if isinstance(kind, str):
        return item.get(kinds.get(kind, "call_id" if kind.endswith(ending) else ""))
    called = item.get(function)
    return (called.get("id") or called.get("name")) if isinstance(called, dict) else None


def _items(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield payload
    for key in ("content", "parts", "items"):
        yield from _dicts(payload.get(key))


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _texts(values: list[Any]) -> frozenset[str]:
    return frozenset(value for value in values if isinstance(value, str) and value)
