"""Where an ONNX file says its weights lie, read from its bytes alone, before any library opens what it names.

An ONNX file may name other files for its tensors, by paths of its maker's choice. Only the few fields on the way to
these names are looked at; everything else is skipped by its length, so the cost is that of walking the graph's nodes.

Source: onnx.proto (ONNX IR 10), TensorProto.external_data; protobuf encoding.
"""

from collections.abc import Iterator
from mmap import mmap
from typing import Final

from edgeagents.errors import MalformedMessageError

# Fields that lead to tensors: `tensor` marks one, a string the message that follows.
_MODEL: Final = {7: "graph", 20: "training", 25: "function"}
_WAYS: Final[dict[str, dict[int, str]]] = {
    "model": _MODEL,
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_VARINT, _LONG, _BYTES, _SHORT = 0, 1, 2, 5
_MOST_TAG: Final = 0xFFFFFFFF  # readers keep 32 bits of a longer one, and would find another field than was found here
MOST_DEPTH: Final = 64


def external_files(data: bytes | mmap) -> set[str]:
    """Return the names of all files that hold tensors of a serialised ONNX model, as it writes them.

    Raises:
        MalformedMessageError: it is no protobuf, or nests too deeply.
    """
    return set(_locations(memoryview(data), "model", 0))


def _locations(view: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > MOST_DEPTH:
        raise MalformedMessageError(f"the ONNX file nests more than {MOST_DEPTH} deep", "too-deep")
    ways = _WAYS[kind]
    for number, found in _fields(view):
        way = ways.get(number)
        if way == "entry":
            pair = {name: bytes(value) for name, value in _fields(found)}
            if pair.get(1) == b"location":
                yield pair.get(2, b"").decode(errors="backslashreplace")
        elif way is not None:
            yield from _locations(found, way, depth + 1)


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield number and bytes of each field of a message that has a length; others are passed over."""
    at = 0
    while at < len(view):
        tag, at = _varint(view, at)
        number, kind = tag >> 3, tag & 7
        if tag > _MOST_TAG or number == 0:
            raise MalformedMessageError("the file is no ONNX model: a field has no number of one", "not-onnx")
        if kind == _VARINT:
            _, at = _varint(view, at)
        elif kind == _BYTES:
            size, at = _varint(view, at)
            if size > len(view) - at:
                raise MalformedMessageError(f"the ONNX file ends inside field {number}: is it whole?", "truncated")
            yield number, view[at : at + size]
            at += size
        elif kind in (_LONG, _SHORT):
            at += 8 if kind == _LONG else 4
        else:
            raise MalformedMessageError("the file is no ONNX model: it is no protobuf", "not-onnx")
    if at > len(view):
        raise MalformedMessageError("the ONNX file ends inside a number: is it whole?", "truncated")


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(view) and shift < 70:
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise MalformedMessageError("the file is no ONNX model, or not whole: a number has no end", "truncated")
