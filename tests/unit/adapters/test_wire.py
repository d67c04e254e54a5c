"""Our messages as bytes: protobuf and JSON, older and newer peers, hostile input."""

import json
import math
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Le, MinLen
from hypothesis import given
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from edgeagents.adapters import wire
from edgeagents.errors import MalformedMessageError
from edgeagents.model import message as model
from edgeagents.pb import guard_pb2

CLASSES = sorted(wire.PB_CLASSES, key=lambda cls: cls.__name__)
CONTENT_TYPES = [wire.PROTOBUF, wire.JSON]
COMMAND = model.Command(
    id=model.CommandId("c-1"),
    device="radiator-1",
    resource="Setpoint",
    value="2.1e+01",
    incarnation="i-1",
    epoch=model.Epoch(generation=2, revision=7),
    ttl_s=10.0,
    cause=model.Cause(stream="edgex-events", sequence=9, event_id="e", origin_ns=1_764_000_000_000_000_000),
    decided_on="",
)
words = st.text("azAZ09._:-", min_size=1, max_size=20)
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    str: text,
    int: st.integers(0, 2**63 - 1),
    float: st.floats(0.001, 86_000),
    bool: st.booleans(),
}


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Return what a field of this type may hold."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of(*(values(part) for part in parts))
    if annotation is type(None):
        return st.none()
    if origin is Literal:
        return st.sampled_from(parts)
    if origin is Annotated:
        return words if any(getattr(item, "pattern", None) for item in parts[1].metadata) else values(parts[0])
    if origin is tuple:
        return st.lists(values(parts[0]), max_size=3).map(tuple)
    plain = getattr(annotation, "__supertype__", annotation)
    return messages(plain) if issubclass(plain, model.Message) else FIELDS[plain]


def messages(cls: type[model.Message]) -> st.SearchStrategy[model.Message]:
    """Return any message of a class."""
    return st.builds(cls, **{name: field(info) for name, info in cls.model_fields.items()})


def field(info: FieldInfo) -> st.SearchStrategy[Any]:
    """Return what a field may hold, within its bounds."""
    most = next((item.le for item in info.metadata if isinstance(item, Le)), None)
    if info.annotation is float and isinstance(most, int | float):
        return st.floats(0.001, min(86_000, most))
    if get_origin(info.annotation) is tuple:
        least = max((item.min_length for item in info.metadata if isinstance(item, MinLen)), default=0)
        return st.lists(values(get_args(info.annotation)[0]), min_size=least, max_size=3).map(tuple)
    return words if is_word(info) else values(info.annotation)


def is_word(field: FieldInfo) -> bool:
    """Say whether a field's text must fit a pattern."""
    return any(getattr(item, "pattern", None) for item in field.metadata)


@given(st.sampled_from(CLASSES).flatmap(messages), st.sampled_from(CONTENT_TYPES))
def test_every_message_survives_both_encodings(message: model.Message, content_type: str) -> None:
    assert wire.decode(type(message), wire.encode(message, content_type), content_type) == message


@given(st.sampled_from(CLASSES), st.binary(max_size=200), st.sampled_from([*CONTENT_TYPES, "", "text/plain"]))
def test_any_bytes_are_a_message_or_a_rejection(cls: type[model.Message], data: bytes, content_type: str) -> None:
    try:
        message = wire.decode(cls, data, content_type)
    except MalformedMessageError:
        return
    assert type(message) is cls


any_text = st.text(st.characters(), max_size=8)  # lone surrogates too
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.just(10**400) | st.just(1e308),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)


@given(st.data())
def test_any_json_in_any_field_is_a_message_or_a_rejection(data: st.DataObject) -> None:
    cls = data.draw(st.sampled_from(CLASSES))
    names = st.sampled_from([*cls.model_fields, "another"])
    body = data.draw(st.dictionaries(names, json_values) | json_values)
    try:
        message = wire.decode(cls, json.dumps(body).encode(errors="surrogatepass"), wire.JSON)
    except MalformedMessageError:
        return
    assert type(message) is cls


@given(st.data())
def test_a_command_with_flipped_bytes_is_a_message_or_a_rejection(data: st.DataObject) -> None:
    content_type = data.draw(st.sampled_from(CONTENT_TYPES))
    raw = bytearray(wire.encode(COMMAND, content_type))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        wire.decode(model.Command, bytes(raw), content_type)
    except MalformedMessageError:
        return


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("id", "", "Command.id: String should have at least 1 character"),
        ("ttlS", 0, "Command.ttl_s: Input should be greater than 0"),
        ("ttlS", "NaN", "Command.ttl_s: Input should be a finite number"),
        ("ttlS", "Infinity", "Command.ttl_s: "),
        ("ttlS", 86_401, "Command.ttl_s: Input should be less than or equal to 86400"),
        ("epoch", None, "Command.epoch: Field required"),
        ("epoch", {"generation": -1}, "Command.epoch.generation: Input should be greater than or equal to 0"),
        ("value", "x" * 16_385, "Command.value: String should have at most 16384 characters"),
        ("incarnation", "i" * 65, "Command.incarnation: String should have at most 64 characters"),
        ("dataOriginNs", 2**63, "not a Command in application/json"),
        ("device", 5, "not a Command in application/json"),
        ("device", "\ud800", "not a Command in application/json"),
    ],
)
def test_a_command_outside_the_contract_is_refused_by_field(field: str, value: Any, complaint: str) -> None:
    body = json.loads(wire.encode(COMMAND, wire.JSON))
    if field == "ttlS":
        del body["ttl_s"]
    body |= {field: value}
    with pytest.raises(MalformedMessageError) as caught:
        wire.decode(model.Command, json.dumps(body).encode(), "application/json; charset=utf-8")
    assert str(caught.value).startswith(complaint)


def test_json_may_use_the_names_of_proto_or_of_its_json_mapping() -> None:
    original = wire.encode(COMMAND, wire.JSON)
    assert b'"data_origin_ns"' not in original  # not set
    assert b'"ttl_s"' in original
    camel = original.replace(b'"ttl_s"', b'"ttlS"').replace(b'"event_id"', b'"eventId"')
    assert wire.decode(model.Command, camel, "Application/JSON") == COMMAND


def test_a_newer_writer_is_understood() -> None:
    newer = wire.encode(COMMAND) + b"\xfa\x3e\x03new"  # field 1007, a string
    assert wire.decode(model.Command, newer) == COMMAND
    body = json.loads(wire.encode(COMMAND, wire.JSON)) | {"mood": "calm", "nested": {"a": [1]}}
    assert wire.decode(model.Command, json.dumps(body).encode(), wire.JSON) == COMMAND
    assert model.Command.model_validate({**COMMAND.model_dump(), "mood": "calm"}) == COMMAND


def test_an_older_writer_is_understood() -> None:
    older = guard_pb2.SessionWelcome(generation=3, mode="act").SerializeToString()
    assert wire.decode(model.SessionWelcome, older) == model.SessionWelcome(generation=3, mode="act")
    silent = guard_pb2.SessionWelcome(generation=3).SerializeToString()
    assert wire.decode(model.SessionWelcome, silent).mode == "observe"
    command = guard_pb2.Command(
        id="c", device="d", resource="r", value="1", incarnation="i", ttl_s=1, epoch=guard_pb2.Epoch(),
        cause=guard_pb2.Cause(),
    )  # fmt: skip
    found = wire.decode(model.Command, command.SerializeToString())
    assert (found.decided_on, found.because, found.epoch.generation) == (None, "", 0)


def test_empty_and_absent_are_told_apart_where_it_matters() -> None:
    for content_type in CONTENT_TYPES:
        assert wire.decode(model.Command, wire.encode(COMMAND, content_type), content_type).decided_on == ""
        absent = COMMAND.model_copy(update={"decided_on": None})
        assert wire.decode(model.Command, wire.encode(absent, content_type), content_type).decided_on is None


def test_too_many_bytes_are_refused_before_they_are_read() -> None:
    with pytest.raises(MalformedMessageError, match="at most 262144") as caught:
        wire.decode(model.Command, b"{" * (wire.MAX_MESSAGE_BYTES + 1), wire.JSON)
    assert caught.value.cause_kind == "too-large"


@pytest.mark.parametrize("depth", [50, 900, 50_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    body = b'{"a":' * depth + b"1" + b"}" * depth
    for data, content_type in ((body, wire.JSON), (b"[" * depth, wire.JSON), (b"\x32\xff" * depth, wire.PROTOBUF)):
        with pytest.raises(MalformedMessageError):
            wire.decode(model.Command, data, content_type)


def test_epochs_compare_by_generation_then_revision() -> None:
    epochs = [model.Epoch(generation=g, revision=r) for g, r in ((10, 1), (2, 3), (1, 9), (2, 0))]
    assert [str(epoch) for epoch in sorted(epochs)] == ["1.9", "2.0", "2.3", "10.1"]


def test_no_number_that_is_none_comes_through() -> None:
    for reply in (b'{"retry_after_s": "NaN"}', b'{"retry_after_s": "-Infinity"}', b'{"retry_after_s": -1}'):
        with pytest.raises(MalformedMessageError, match="retry_after_s"):
            wire.decode(model.LeaseReply, reply, wire.JSON)
    pb = guard_pb2.LeaseReply(retry_after_s=math.nan).SerializeToString()
    with pytest.raises(MalformedMessageError, match="retry_after_s"):
        wire.decode(model.LeaseReply, pb)


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_an_outcome_of_a_former_guard_names_no_cause_and_the_word_of_a_newer_one_is_kept(content_type: str) -> None:
    plain = model.Outcome(command_id=model.CommandId("c"), device="lamp", resource="On", status="refused")
    written = wire.encode(plain, content_type)
    assert wire.decode(model.Outcome, written, content_type).cause_kind == ""
    newer = plain.model_copy(update={"cause_kind": "solar-flare"})
    assert wire.decode(model.Outcome, wire.encode(newer, content_type), content_type) == newer
