"""A kept piece as bytes: the same floats for its own model, a refusal for all else."""

import hashlib
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.errors import InvalidInputError
from edgeagents.inference.kept_bytes import MAGIC, from_bytes, model_name, name_of, to_bytes
from edgeagents.inference.prefix import KeptPiece

SHAPE = (2, 2, 1, 3)
MODEL = "a" * 64


def piece(*path: tuple[int, ...]) -> KeptPiece:
    layers, two, heads, width = SHAPE
    block = np.random.default_rng(1).normal(size=(layers, two, heads, len(path[-1]), width)).astype(np.float32)
    return KeptPiece(path, block)


def sealed(header: Any, floats: bytes) -> bytes:
    """Return bytes as somebody writes them who knows the form."""
    text = json.dumps(header).encode()
    body = MAGIC + struct.pack("<Q", len(text)) + text + floats
    return body + hashlib.sha256(body).digest()


def test_what_was_written_is_read_bit_for_bit() -> None:
    put = piece((1, 2), (3, 4, 5))
    got = from_bytes(to_bytes(put, MODEL), MODEL, SHAPE)
    assert got.path == put.path
    assert got.block.tobytes() == put.block.tobytes()


def test_names_tell_pieces_and_models_apart() -> None:
    names = {
        name_of(path, model) for path in (((1, 2), (3,)), ((1,), (2, 3)), ((1, 2),)) for model in (MODEL, "b" * 64)
    }
    assert len(names) == 6
    assert sum(name.startswith(model_name(MODEL)) for name in names) == 3
    deep = tuple((number,) for number in range(12))
    assert sorted([name_of(deep, MODEL), name_of(deep[:2], MODEL)])[0] == name_of(deep[:2], MODEL), "those above first"


def test_bytes_of_another_model_or_shape_or_changed_ones_are_refused() -> None:
    data = to_bytes(piece((1, 2), (3,)), MODEL)
    with pytest.raises(InvalidInputError, match="another model"):
        from_bytes(data, "b" * 64, SHAPE)
    with pytest.raises(InvalidInputError, match="another shape"):
        from_bytes(data, MODEL, (2, 2, 1, 4))
    for changed in (data[:-1], data[:60] + b"x" + data[61:], b"", MAGIC, data[:-40]):
        with pytest.raises(InvalidInputError, match="changed or not whole"):
            from_bytes(changed, MODEL, SHAPE)


@pytest.mark.parametrize(
    "header",
    [
        {}, [], 7, {"model": MODEL}, {"model": MODEL, "path": []}, {"model": MODEL, "path": [[]]},
        {"model": MODEL, "path": [[1], 5]}, {"model": MODEL, "path": [["1"]]}, {"model": MODEL, "path": [[True]]},
        {"model": MODEL, "path": [[-1]]}, {"model": MODEL, "path": {"0": [1]}}, {"model": MODEL, "path": [[1, 2]]},
    ],
)  # fmt: skip
def test_whole_bytes_that_make_no_sense_are_refused(header: Any) -> None:
    with pytest.raises(InvalidInputError):
        from_bytes(sealed(header, bytes(48)), MODEL, SHAPE)


def test_what_is_no_number_is_refused() -> None:
    floats = np.full(12, np.nan, "<f4").tobytes()
    with pytest.raises(InvalidInputError, match="numbers"):
        from_bytes(sealed({"model": MODEL, "path": [[1]]}, floats), MODEL, SHAPE)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_with_our_own_error(data: bytes) -> None:
    for whole in (data, sealed({"model": MODEL}, data), MAGIC + data + hashlib.sha256(MAGIC + data).digest()):
        with pytest.raises(InvalidInputError):
            from_bytes(whole, MODEL, SHAPE)
