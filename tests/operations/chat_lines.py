"""Conversations of the chat format to test with."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Content = dict[str, Any]


def dump(content: Any) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def conversation(number: int, messages: int = 6) -> Content:
    """Return a conversation; each number another one, of another length."""
    count = 1 + (number * 7) % (2 * messages)
    return {
        "conversation_id": f"talk-{number:05d}",
        "metadata": {"number": number, "kind": ["sale", "help"][number % 2]},
        "messages": [
            {"role": ["user", "assistant"][turn % 2], "content": f"{number}/{turn}: " + "word " * (1 + turn % 5)}
            for turn in range(count)
        ],
    }


def write_file(path: Path, contents: Iterable[Content]) -> Path:
    path.write_bytes(b"".join(dump(content) + b"\n" for content in contents))
    return path


def message_count(contents: Iterable[Content]) -> int:
    return sum(len(content["messages"]) for content in contents)
