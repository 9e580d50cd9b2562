"""The window: the newest messages that fit, in order, and no tool result without its call."""

from typing import Any

import pytest

from convostore import ConversationDocument, MessageDocument, TenantStore, TokenUsage

CONVERSATION = "c"


def message(text: str, payload: dict[str, Any] | None = None) -> MessageDocument:
    return MessageDocument.user(text, payload=payload)


FORMATS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat completions": (
        {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"tool_call_id": "1"},
    ),
    "responses": (
        {"items": [{"type": "function_call", "call_id": "1", "name": "f"}]},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
    ),
    "ai sdk": (
        {"parts": [{"type": "tool-call", "toolCallId": "1", "toolName": "f"}]},
        {"parts": [{"type": "tool-result", "toolCallId": "1", "toolName": "f"}]},
    ),
    "gemini": (
        {"parts": [{"functionCall": {"name": "f", "args": {}}}]},
        {"parts": [{"functionResponse": {"name": "f", "response": {}}}]},
    ),
    "content blocks": (
        {"content": [{"type": "text", "text": "x"}, {"type": "tool_use", "id": "1", "name": "f"}]},
        {"content": [{"type": "tool_result", "tool_use_id": "1", "content": "x"}]},
    ),
}


async def _window(acme: TenantStore, messages: list[MessageDocument], **budget: Any) -> list[int]:
    await acme.conversations.create(ConversationDocument.start("user", conversation_id=CONVERSATION))
    await acme.messages.append_many(CONVERSATION, messages)
    return [found.sequence for found in await acme.messages.window(CONVERSATION, **budget)]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7])
async def test_a_tool_result_is_never_without_its_call(acme: TenantStore, name: str, size: int) -> None:
    call, result = FORMATS[name]
    messages = [
        message("1"),
        message("2 calls", call),
        message("3 between"),
        message("4 answers", result),
        message("5"),
        message("6 calls nobody", {"tool_calls": [{"id": "open"}]}),
    ]
    expected = {1: [6], 2: [5, 6], 3: [5, 6], 4: [3, 5, 6], 5: [2, 3, 4, 5, 6], 6: [1, 2, 3, 4, 5, 6]}
    assert await _window(acme, messages, max_messages=size) == expected[min(size, 6)]


async def test_several_calls_of_one_message_stay_with_all_their_results(acme: TenantStore) -> None:
    calls = {"tool_calls": [{"id": "a"}, {"id": "b"}]}
    messages = [
        message("0"),
        message("calls", calls),
        message("a", {"tool_call_id": "a"}),
        message("b", {"tool_call_id": "b"}),
    ]
    assert await _window(acme, messages, max_messages=3) == [2, 3, 4]
    for size in (1, 2):
        assert await acme.messages.window(CONVERSATION, max_messages=size) == []


async def test_a_window_holds_no_more_tokens_than_asked(acme: TenantStore) -> None:
    messages = [message("x" * 40), message("y" * 20), MessageDocument.assistant("", usage=TokenUsage(output_tokens=7))]
    assert await _window(acme, messages, max_tokens=12) == [2, 3]
    for budget, expected in (
        ({"max_tokens": 6}, []),
        ({"max_tokens": 7}, [3]),
        ({"max_tokens": 11}, [3]),
        ({"max_tokens": 22}, [1, 2, 3]),
        ({"max_tokens": 1000, "max_messages": 1}, [3]),
        ({"max_tokens": 3, "count_tokens": lambda _: 1}, [1, 2, 3]),
        ({"max_tokens": 2, "count_tokens": lambda _: 1}, [2, 3]),
    ):
        found = await acme.messages.window(CONVERSATION, **budget)  # type: ignore[arg-type]
        assert [one.sequence for one in found] == expected


@pytest.mark.parametrize("size", [199, 200, 201, 400, 401, 450, 1000])
async def test_a_window_larger_than_one_read_is_whole(acme: TenantStore, size: int) -> None:
    assert await _window(acme, [message("x")] * 450, max_messages=size) == list(range(max(0, 450 - size) + 1, 451))


async def test_a_window_leaves_out_what_was_deleted_and_the_result_of_a_deleted_call(acme: TenantStore) -> None:
    call, result = FORMATS["chat completions"]
    messages = [message("1"), message("calls", call), message("answers", result), message("4"), message("5")]
    assert await _window(acme, messages, max_messages=3) == [4, 5]
    await acme.messages.delete(MessageDocument.identify(CONVERSATION, 4))
    assert [one.sequence for one in await acme.messages.window(CONVERSATION, max_messages=3)] == [2, 3, 5]
    await acme.messages.delete(MessageDocument.identify(CONVERSATION, 2))
    assert [one.sequence for one in await acme.messages.window(CONVERSATION, max_messages=3)] == [1, 5]


async def test_the_window_of_nothing_is_empty(acme: TenantStore) -> None:
    assert await acme.messages.window("unknown", max_messages=5) == []


@pytest.mark.parametrize(
    "payload",
    [
        {"tool_calls": 5},
        {"tool_calls": [5, None, {"id": 5}, {}]},
        {"content": "x"},
        {"tool_call_id": None},
        {"type": 5},
    ],
)
async def test_a_payload_of_another_shape_is_no_tool_call(acme: TenantStore, payload: dict[str, Any]) -> None:
    assert await _window(acme, [message("1", payload), message("2", payload)], max_messages=5) == [1, 2]
