"""`proto/` and the messages in `edgeagents/model` say the same, field by field."""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from google.protobuf.descriptor import FieldDescriptor

from edgeagents.adapters.wire import PB_CLASSES
from edgeagents.model import message as model
from edgeagents.pb import audit_pb2, cooperation_pb2, guard_pb2

SCALARS: dict[type, set[int]] = {
    str: {FieldDescriptor.TYPE_STRING},
    bool: {FieldDescriptor.TYPE_BOOL},
    int: {FieldDescriptor.TYPE_INT64},
    float: {FieldDescriptor.TYPE_DOUBLE},
}
NAMES = {cls.__name__: cls for cls in PB_CLASSES}


def without_none(annotation: Any) -> tuple[Any, bool]:
    """Return a type without its None, and whether there was one."""
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        assert len(rest) == 1, annotation
        return rest[0], True
    return annotation, False


def scalar(annotation: Any) -> type:
    """Return the plain type that a NewType, a bounded type or a Literal of text stands for."""
    if get_origin(annotation) is Annotated:
        return scalar(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return str
    found: type = getattr(annotation, "__supertype__", annotation)
    return found


def all_messages(base: type[model.Message] = model.Message) -> set[type[model.Message]]:
    """Return every message class."""
    return {one for cls in base.__subclasses__() for one in {cls} | all_messages(cls)}


def test_every_message_is_in_proto_and_the_other_way_round() -> None:
    files = (guard_pb2, audit_pb2, cooperation_pb2)
    declared = {name for file in files for name in file.DESCRIPTOR.message_types_by_name}
    assert {cls.__name__ for cls in all_messages()} == declared == set(NAMES)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_fields_have_the_same_names_and_types(name: str) -> None:
    cls = NAMES[name]
    fields = {field.name: field for field in PB_CLASSES[cls]().DESCRIPTOR.fields}
    assert set(fields) == set(cls.model_fields)
    for field_name, info in cls.model_fields.items():
        field = fields[field_name]
        annotation, is_optional = without_none(info.annotation)
        if field.is_repeated:
            assert get_origin(annotation) is tuple, field_name
            annotation = get_args(annotation)[0]
        if field.message_type is not None:
            assert annotation.__name__ == field.message_type.name, field_name
            assert is_optional or info.is_required() or field.is_repeated, field_name
        else:
            assert field.type in SCALARS[scalar(annotation)], field_name
            assert is_optional == field.has_presence, f"{field_name}: `optional` in proto is `| None` here"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_default_here_is_the_default_of_proto3(name: str) -> None:
    """Otherwise a field that nobody set would change its value on the way."""
    cls = NAMES[name]
    pb = PB_CLASSES[cls]()
    for field in pb.DESCRIPTOR.fields:
        info = cls.model_fields[field.name]
        if info.is_required() or field.has_presence or field.is_repeated:
            continue
        if (cls, field.name) == (model.SessionWelcome, "mode"):
            continue  # absent means observe, the safe one
        assert info.default == field.default_value, field.name
