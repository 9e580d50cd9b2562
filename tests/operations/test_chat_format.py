"""A line comes back as it was, and a stored conversation as it is stored."""

import json
import string
from datetime import UTC, datetime, timedelta

import pytest
from bson import encode
from chat_lines import dump
from hypothesis import given, settings
from hypothesis import strategies as st

from convostore import ConversationDocument, MessageDocument, TokenUsage, ValidationError
from convostore.models.types import ChannelType, ConversationStatus, DeliveryStatus, MessageRole
from convostore.operations.chat_format import ChatLine, write_line
from convostore.operations.chat_message import Frame, PlainEntry, _read_any, is_plain, read_entry, read_plain

AT = datetime(2026, 5, 4, 3, 2, 1, 7000, UTC)
OWN_MESSAGE_FIELDS = ("message_id", "created_at", "external_id", "idempotency_key", "delivery_status", "usage")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.text(string.ascii_letters + "äß☃ -.:%{}$", min_size=1, max_size=8)
keys = st.one_of(
    words.filter(lambda key: "\0" not in key),
    st.sampled_from(["payload", "name", "tool_calls", "$ref", "%x", "content", "role", *OWN_MESSAGE_FIELDS]),
)
plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        texts,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - hypothesis wants them naive
    lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000, tzinfo=UTC)
)
written_moments = moments.map(lambda m: m.isoformat(timespec="milliseconds").replace("+00:00", "Z"))
parts = st.lists(st.one_of(texts, st.dictionaries(st.sampled_from(["type", "text", "image"]), texts)), max_size=3)


def optional(**fields):
    return st.fixed_dictionaries({}, optional=fields)


foreign_fields = st.dictionaries(
    st.one_of(words, st.sampled_from(["payload", "name", "tool_calls"])), plain, max_size=3
).map(lambda fields: {k: v for k, v in fields.items() if k not in {"role", "content", *OWN_MESSAGE_FIELDS}})
own_message_fields = optional(
    message_id=words,
    external_id=words,
    delivery_status=st.sampled_from([str(s) for s in DeliveryStatus]),
    usage=st.fixed_dictionaries({"input_tokens": st.integers(0, 99), "output_tokens": st.integers(0, 99)}),
    created_at=written_moments,
    edited_at=written_moments,
)
null_fields = optional(message_id=st.none(), usage=st.none(), created_at=st.none())
roles = st.sampled_from([str(role) for role in MessageRole])
entries = st.builds(
    lambda base, own, nulls, others: {
        **dict(sorted(base.items(), reverse=True)),
        **own,
        **{k: v for k, v in nulls.items() if k not in own},
        **others,
    },
    st.one_of(
        st.fixed_dictionaries({"role": roles, "content": st.one_of(texts, st.none(), parts)}),
        st.fixed_dictionaries({"role": roles}),
    ),
    own_message_fields,
    null_fields,
    foreign_fields,
)
lines = st.builds(
    lambda first, messages, own, others: {**dict(sorted(first.items())), "messages": messages, **own, **others},
    optional(conversation_id=st.one_of(words, st.none()), metadata=st.one_of(st.none(), st.dictionaries(keys, plain))),
    st.lists(entries, max_size=5),
    optional(
        user_id=st.one_of(words, st.just("imported"), st.none()),
        channel=st.sampled_from([str(c) for c in ChannelType]),
        status=st.sampled_from([str(s) for s in ConversationStatus]),
        title=st.one_of(texts, st.none()),
        tags=st.lists(words, max_size=3),
        assignee=st.one_of(words, st.none()),
        created_at=written_moments,
        started_at=written_moments,
        updated_at=written_moments,
        completed_at=st.one_of(written_moments, st.none()),
    ),
    st.dictionaries(words.map("x_{}".format), plain, max_size=2),
)


def there_and_back(content, at=AT):
    read = ChatLine.parse(dump(content)).read(at)
    return json.loads(write_line(read.stored(), read.slots))


@settings(max_examples=200, deadline=None)
@given(lines)
def test_a_line_comes_back_with_the_same_fields_and_values(content):
    back = there_and_back(content)
    assert back == content
    first = list(content)[: list(content).index("messages") + 1]
    assert list(back)[: len(first)] == first
    for entry in back["messages"]:
        assert list(entry)[: 1 + ("content" in entry)] == ["role", "content"][: 1 + ("content" in entry)]


@pytest.mark.parametrize(
    "line",
    [
        '{"conversation_id":"a","metadata":{"b":1},"messages":[{"role":"user","content":"hi"}]}',
        '{"messages":[]}',
        '{"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]}]}',
        '{"messages":[{"role":"tool","content":[{"type":"text","text":"ä"}],"tool_call_id":"1","name":"n"}]}',
        '{"conversation_id":"a","metadata":{},"messages":[],"tags":["x"],"completed_at":"2024-01-01T00:00:00.000Z"}',
        '{"messages":[{"role":"user","content":"","payload":{"role":"x"}}]}',
    ],
)
def test_a_line_in_our_order_comes_back_byte_for_byte(line):
    read = ChatLine.parse(line.encode()).read(AT)
    assert write_line(read.stored(), read.slots).decode() == line


api_messages = st.builds(
    lambda role, content, payload, fields: MessageDocument(role=role, content=content, payload=payload, **fields),
    st.sampled_from(MessageRole),
    texts,
    st.one_of(st.none(), st.dictionaries(keys, plain, max_size=3), st.builds(lambda p: {"content": p}, parts)),
    optional(
        usage=st.builds(TokenUsage, input_tokens=st.integers(0, 9), output_tokens=st.integers(0, 9)),
        external_id=words,
        delivery_status=st.sampled_from(DeliveryStatus),
        created_at=moments,
        edited_at=moments,
    ),
)
api_conversations = st.builds(
    lambda fields, messages, keyed: (
        ConversationDocument(user_id="u", channel=ChannelType.WEB, **fields),
        [
            message.evolve(
                conversation_id=fields["conversation_id"],
                sequence=n,
                idempotency_key=f"key {n}" if n in keyed else None,
            )
            for n, message in enumerate(messages, 1)
        ],
    ),
    st.fixed_dictionaries(
        {"conversation_id": words},
        optional={
            "title": texts,
            "metadata": st.dictionaries(keys, plain, max_size=3),
            "tags": st.lists(words, max_size=2).map(tuple),
            "status": st.sampled_from(ConversationStatus),
            "created_at": moments,
            "started_at": moments,
            "completed_at": moments,
        },
    ),
    st.lists(api_messages, max_size=4),
    st.sets(st.integers(1, 4)),
)


@settings(max_examples=150, deadline=None)
@given(api_conversations)
def test_a_stored_conversation_is_read_back_the_same(given_documents):
    conversation, messages = given_documents
    line = write_line(conversation.to_dict(), [message.to_dict() for message in messages])
    read = ChatLine.parse(line).read(AT)
    activity = {"message_count": 0, "last_message": None, "last_activity_at": conversation.last_activity_at}
    assert read.conversation.evolve(**activity) == conversation.evolve(title=conversation.title or None) or (
        read.conversation.evolve(**activity, title=conversation.title) == conversation
    )
    assert read.messages == messages
    assert write_line(read.stored(), read.slots) == line


@given(roles, texts, st.integers(1, 9))
def test_the_short_way_reads_a_plain_entry_as_the_long_way_does(role, content, sequence):
    entry, frame = {"role": role, "content": content}, Frame("c", AT)
    assert is_plain(entry) == bool(content)
    if content:
        short, long = read_entry(entry, sequence, frame), _read_any(entry, sequence, frame)
        assert encode(short) == encode(long)
        assert short == read_plain([PlainEntry(content, role)], frame, sequence)[0]


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"role": "user"},
        {"role": "user", "content": ""},
        {"role": "user", "content": None},
        {"role": "user", "content": ["a"]},
        {"role": ["user"], "content": "a"},
        {"role": "boss", "content": "a"},
        {"role": "user", "content": "a", "name": "b"},
        {"role": "user", "content": "a\ud800"},
        {"role": "user", "content": "a" * 100_001},
    ],
    ids=lambda entry: str(entry)[:40].encode("ascii", "replace").decode(),
)
def test_an_entry_that_is_not_plain_is_told_from_those_that_are(entry):
    assert is_plain({"role": "user", "content": "a" * 100_000})
    assert not is_plain(entry)


def test_the_same_content_is_the_same_conversation_however_it_is_spelled():
    one = ChatLine.parse(b'{"messages":[{"role":"user","content":"x"}],"title":"t"}')
    other = ChatLine.parse(b' { "title" : "t", "messages": [ {"content":"\\u0078", "role":"user"} ] } ')
    assert one.conversation_id == other.conversation_id
    assert one.conversation_id != ChatLine.parse(b'{"messages":[]}').conversation_id


def test_times_and_token_counts_come_back_in_one_spelling():
    content = {
        "conversation_id": "c",
        "messages": [
            {"role": "user", "content": "x", "created_at": "2024-05-01T02:00:00+02:00", "usage": {"input_tokens": 1}}
        ],
    }
    back = there_and_back(content)
    assert back["messages"][0]["created_at"] == "2024-05-01T00:00:00.000Z"
    assert back["messages"][0]["usage"] == {"input_tokens": 1, "output_tokens": 0}
    assert there_and_back(back) == back
    assert ChatLine.parse(dump(back)).digest == ChatLine.parse(dump(content)).digest


def test_a_changed_conversation_is_written_as_it_is_now():
    read = ChatLine.parse(b'{"messages":[{"role":"user","content":"x"}],"status":"active"}').read(AT)
    later = AT + timedelta(hours=1)
    changed = {**read.stored(), "status": "completed", "updated_at": later}
    edited = {**read.slots[0], "content": "y", "edited_at": later}
    content = json.loads(write_line(changed, [edited]))
    assert content["conversation_id"] == read.conversation.conversation_id  # it is no longer that of the content
    assert content["status"] == "completed"
    assert content["messages"] == [{"role": "user", "content": "y", "edited_at": "2026-05-04T04:02:01.007Z"}]


def test_a_deleted_message_and_a_gap_keep_their_places():
    conversation = ConversationDocument.start(user_id="u", created_at=AT - timedelta(days=1))
    place = {"conversation_id": conversation.conversation_id}
    messages = [MessageDocument.user(str(n), sequence=n, **place) for n in (1, 2, 3)]
    slots = [messages[0].to_dict(), messages[1].blank().to_dict(), None]
    line = write_line(conversation.to_dict(), slots)
    read = ChatLine.parse(line).read(AT)
    assert [(m.sequence, m.content, m.is_deleted) for m in read.messages] == [
        (1, "1", False),
        (2, "", True),
        (3, "", True),
    ]
    assert write_line(read.stored(), read.slots) == line


QUOTED = "sesame"
DEEP = "[" * 200 + "]" * 200
BAD_LINES = [
    (b"{", "line: not JSON"),
    (b"sesame", "line: not JSON"),
    (b"[1]", "line: must be an object"),
    (b'"sesame"', "line: must be an object"),
    (b'\xff{"messages":[]}', "line: not UTF-8"),
    (b"[" * 100_000, "line: nested too deep"),
    (b'{"messages":[],"x":NaN}', "line: not JSON"),
    (b'{"messages":[],"x":1e999}', "line: not JSON"),
    (b'{"messages":[],"x":' + b"9" * 5000 + b"}", "line: not JSON"),
    (b'{"messages":[],"x":9223372036854775808}', "line.x: integers must fit into 64 bits"),
    (b"{}", "messages: must be a list"),
    (b'{"messages":null}', "messages: must be a list"),
    (b'{"messages":{"sesame":1}}', "messages: must be a list"),
    (b'{"messages":[' + b"1," * 100_000 + b"1]}", "messages: more than 100000"),
    (b'{"messages":["sesame"]}', "messages[0]: must be an object"),
    (b'{"messages":[{"content":"sesame"}]}', "messages[0].role: "),
    (b'{"messages":[{"role":"user","content":"x"},{"role":"sesame","content":"x"}]}', "messages[1].role: "),
    (b'{"messages":[{"role":["sesame"],"content":"x"}]}', "messages[0].role: "),
    (b'{"messages":[{"role":"user","content":7}]}', "messages[0].content: must be text, null or a list"),
    (b'{"messages":[{"role":"user","content":{"sesame":1}}]}', "messages[0].content: must be text, null or a list"),
    (b'{"messages":[{"role":"user","content":"sesame\\ud800"}]}', "messages[0].content: must not contain lone"),
    (
        b'{"messages":[{"role":"user","content":"x","name":"\\udc00"}]}',
        "messages[0].payload.name: must not contain lone",
    ),
    (
        f'{{"messages":[{{"role":"user","content":"x","sesame_":{DEEP}}}]}}'.encode(),
        "messages[0].payload: nested deeper",
    ),
    (f'{{"messages":[],"metadata":{{"m":{DEEP}}}}}'.encode(), "metadata: nested deeper than 100"),
    (b'{"messages":[],"metadata":["sesame"]}', "metadata: "),
    (b'{"messages":[],"metadata":{"a\\u0000":1}}', "metadata: keys must not contain NUL"),
    (b'{"messages":[],"conversation_id":7}', "conversation_id: "),
    (b'{"messages":[],"conversation_id":""}', "conversation_id: "),
    (b'{"messages":[],"conversation_id":"sesame\\n"}', "conversation_id: "),
    (b'{"messages":[],"status":"sesame"}', "status: "),
    (b'{"messages":[],"tags":"sesame"}', "tags: "),
    (b'{"messages":[],"created_at":"sesame"}', "created_at: must be an ISO 8601 time"),
    (b'{"messages":[],"created_at":1700000000}', "created_at: must be an ISO 8601 time"),
    (b'{"messages":[],"created_at":"2024-01-01T00:00:00"}', "created_at: must have a time zone"),
    (
        b'{"messages":[{"role":"user","content":"x","created_at":"0001-01-01T00:00:00+02:00"}]}',
        "messages[0].created_at: ",
    ),
    (b'{"messages":[{"role":"user","content":"x","usage":7}]}', "messages[0].usage: must be an object"),
    (b'{"messages":[{"role":"user","content":"x","usage":{"sesame_":7}}]}', "messages[0].usage."),
    (b'{"messages":[{"role":"user","content":"x","delivery_status":"sesame"}]}', "messages[0].delivery_status: "),
    (
        b'{"messages":[{"role":"user","content":"sesame","deleted_at":"2024-01-01T00:00:00Z"}]}',
        "messages[0].deleted_at: ",
    ),
    (
        b'{"messages":[{"role":"user","idempotency_key":"k"},{"role":"user","idempotency_key":"k"}]}',
        "messages[1].idempotency_key: used by an earlier message",
    ),
    (b'{"messages":[{"role":"user","content":"a","idempotency_digest":"abc"}]}', "messages[0].idempotency_digest: "),
]


@pytest.mark.parametrize(
    ("line", "reason"), BAD_LINES, ids=[f"{n} {reason[:40]}" for n, (_, reason) in enumerate(BAD_LINES)]
)
def test_a_bad_line_is_refused_by_the_name_of_the_field(line, reason):
    with pytest.raises(ValidationError) as caught:
        ChatLine.parse(line).read(AT)
    assert str(caught.value).startswith(reason)
    assert QUOTED not in str(caught.value).replace("sesame_", "")


def test_an_entry_is_never_changed_by_reading_it():
    entry = {"role": "user", "content": ["a"], "name": "n"}
    before = json.dumps(entry)
    read_entry(entry, 1, Frame("c", AT))
    assert json.dumps(entry) == before
