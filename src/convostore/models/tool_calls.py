"""Tool calls and their results, recognised in the payloads of the common message formats.

OpenAI chat completions (``tool_calls`` / ``tool_call_id``), OpenAI responses (``call_id`` of items whose type ends in
``call`` / ``call_output``), and content blocks as Anthropic's messages hold them (``tool_use`` / ``tool_result``).
"""

from collections.abc import Iterator
from typing import Any


def calls_made(payload: dict[str, Any] | None) -> frozenset[str]:
    """Return the ids of the tool calls that a message makes."""
    return frozenset(_texts(_calls(payload))) if payload else frozenset()


def calls_answered(payload: dict[str, Any] | None) -> frozenset[str]:
    """Return the ids of the tool calls whose results a message holds."""
    return frozenset(_texts(_answers(payload))) if payload else frozenset()


def _calls(payload: dict[str, Any]) -> Iterator[Any]:
    yield from (call.get("id") for call in _dicts(payload.get("tool_calls")))
    for item in _items(payload):
        kind = item.get("type")
        if kind == "tool_use":
            yield item.get("id")
        elif isinstance(kind, str) and kind.endswith("_call"):
            yield item.get("call_id")


def _answers(payload: dict[str, Any]) -> Iterator[Any]:
    yield payload.get("tool_call_id")
    for item in _items(payload):
        kind = item.get("type")
        if kind == "tool_result":
            yield item.get("tool_use_id")
        elif isinstance(kind, str) and kind.endswith("_call_output"):
            yield item.get("call_id")


def _items(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield payload
    for key in ("content", "parts", "items"):
        yield from _dicts(payload.get(key))


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in value if isinstance(item, dict)) if isinstance(value, list) else iter(())


def _texts(values: Iterator[Any]) -> Iterator[str]:
    return (value for value in values if isinstance(value, str) and value)
