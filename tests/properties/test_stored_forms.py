"""The two ways from a stored form to a document, the fast one and pydantic's, say the same."""

import copy
from datetime import UTC, datetime
from typing import Any

import pytest
from bson.int64 import Int64
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import garbage

from convostore import ConversationDocument, CorruptDocumentError, LastMessage, MessageDocument, TokenUsage
from convostore.models.document import Document
from convostore.models.stored_form import stored_form

NOW = datetime(2026, 2, 3, 4, 5, 6, 789000, UTC)
BASES: list[Document] = [
    ConversationDocument.start("u"),
    ConversationDocument.start(
        "u",
        tags=["a"],
        metadata={"$x": 1},
        completed_at=NOW,
        last_message=LastMessage(sequence=3, version=1, role="user", preview="p", created_at=NOW),
    ),
    MessageDocument.user("text"),
    MessageDocument.assistant("text", payload={"%": [1]}, usage=TokenUsage(input_tokens=3), delivery_status="sent"),
]
odd: st.SearchStrategy[Any] = st.one_of(
    garbage,
    st.sampled_from(
        [0, -1, 1, 2**40, 2**63 - 1, 1.0, True, "", "x" * 300, "a\nb", Int64(3), [], ["a"], ["a"] * 101, {}, NOW]
    ),
    st.sampled_from([NOW.replace(tzinfo=None), {"sequence": 1}, {"input_tokens": -1}, {"output_tokens": 2, "new": 1}]),
)


def _validated(stored: dict[str, Any], kind: type[Document]) -> Document | CorruptDocumentError:
    try:
        return kind._validated(stored)
    except CorruptDocumentError as error:
        return error


@given(st.sampled_from(BASES), st.data())
@settings(max_examples=2000, deadline=None)
def test_a_stored_form_is_read_as_pydantic_reads_it(base: Document, data: st.DataObject) -> None:
    kind = type(base)
    stored = {"_id": "x", "of a later release": 1, **base.to_dict()}
    names = st.sampled_from([*sorted(kind.model_fields.keys() - kind.transient_fields), "escaped"])
    for name in data.draw(st.lists(names, max_size=2)):
        if data.draw(st.booleans()):
            stored[name] = data.draw(odd)
        else:
            stored.pop(name, None)
    before = copy.deepcopy(stored)
    fast = stored_form(kind).read([stored])
    assert repr(stored) == repr(before)
    slow = _validated(stored, kind)
    if isinstance(slow, Document):
        assert kind.from_dict(stored) == slow or _made_up(slow, stored)
        assert fast is None or fast == [slow]
    elif fast is not None:
        assert type(stored[str(slow.field)]) is str, "only the characters of a text are looked at less closely"
    else:
        with pytest.raises(CorruptDocumentError):
            kind.from_dict(stored)


def _made_up(document: Document, stored: dict[str, Any]) -> bool:
    """Say whether a field was missing that is then given a new value each time."""
    return any(
        field.default_factory not in (None, dict) and name not in stored
        for name, field in type(document).model_fields.items()
    )


def test_what_is_stored_is_read_the_fast_way() -> None:
    for base in BASES:
        assert stored_form(type(base)).read([base.to_dict()]) == [base]
