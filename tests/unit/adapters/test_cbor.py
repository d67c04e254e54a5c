"""CBOR in: what EdgeX writes, or a refusal by its cause; bombs cost neither memory nor time."""

import base64
import contextlib
import math
import struct
import time
import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.adapters import cbor
from edgeagents.errors import InvalidInputError, MalformedMessageError

MIB = 1 << 20

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def refused(data: bytes) -> str:
    """Return the cause for which bytes are refused."""
    with pytest.raises(MalformedMessageError) as caught:
        cbor.loads(data)
    assert len(str(caught.value)) <= 500
    return caught.value.cause_kind


@given(plain)
def test_what_we_write_is_read_again(value: Any) -> None:
    assert cbor.loads(cbor.dumps(value)) == value


@given(st.binary(max_size=200) | plain.map(cbor2.dumps))
def test_any_bytes_are_a_value_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(MalformedMessageError):
        value = cbor.loads(data)
        assert cbor.loads(cbor.dumps(value)) == value


def heads() -> st.SearchStrategy[bytes]:
    """Draw the first bytes of an item of any kind and any declared length."""
    extra = st.integers(0, 31)
    long = st.sampled_from([0, 1, 23, 24, 255, 2**16, 2**31, 2**32, 2**63, 2**64 - 1])
    width = {24: "B", 25: ">H", 26: ">I", 27: ">Q"}

    def head(major: int, size: int, number: int) -> bytes:
        first = bytes([major << 5 | size])
        return first + (struct.pack(width[size], number % 2 ** (8 << (size - 24))) if size in width else b"")

    return st.builds(head, st.integers(0, 7), extra, long)


@given(st.lists(heads() | st.binary(max_size=4), max_size=30).map(b"".join))
def test_any_heads_in_any_order_are_a_value_or_a_refusal(data: bytes) -> None:
    with contextlib.suppress(MalformedMessageError):
        cbor.loads(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x41\xff", base64.b64encode(b"\xff").decode()),
        (b"\xf7", None),  # undefined
        (b"\x9f\x01\xff", [1]),  # a length that is not told beforehand
        (b"\x7f\x61a\x61b\xff", "ab"),
        (b"\xf9\x3c\x00", 1.0),
        (b"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", 2**64 - 1),
        (b"\xa1\x61a\xa1\x61b\x82\x41\x00\xf6", {"a": {"b": ["AA==", None]}}),
    ],
)
def test_what_go_may_write_is_read_in_json_s_terms(data: bytes, value: Any) -> None:
    assert cbor.loads(data) == value


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "not-cbor"),
        (b"\x1c", "not-cbor"),
        (b"\x61\xff", "not-cbor"),  # no UTF-8
        (b"\x63\xed\xa0\x80", "not-cbor"),  # a lone surrogate
        (b"\xf9\x7e\x00", "not-cbor"),  # NaN
        (b"\xfa\x7f\x80\x00\x00", "not-cbor"),  # infinity
        (b"\xf8\xff", "not-cbor"),  # a simple value of no meaning
        (b"\xa1\x01\x02", "not-cbor"),
        (b"\xa1\x41\x01\x02", "not-cbor"),
        (b"\xa1\x80\x02", "not-cbor"),
        (b"\xff", "not-cbor"),
        (b"\x00\x00", "trailing-bytes"),
        (b"\xa2\x61a\x01\x61a\x02", "duplicate-key"),
        (b"\x81" * 65 + b"\x00", "too-deep"),
        (b"\x81" * 100_000, "too-deep"),
        (b"\x9f" * 100_000, "too-deep"),
        (b"\x5f" * 100_000, "not-cbor"),
        (cbor2.dumps(2**80), "cbor-tag"),
        (cbor2.dumps(cbor2.CBORTag(35, "(a+)+$")), "cbor-tag"),
        (cbor2.dumps(cbor2.CBORTag(55799, 1)), "cbor-tag"),
        (cbor2.dumps(cbor2.CBORTag(4711, {"a": 1})), "cbor-tag"),
        (b"\xd8\x1c\x82\x01\xd8\x1d\x00", "cbor-tag"),  # a list that holds itself
        (b"\xc5\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01", "cbor-tag"),  # 2 to the power of 2**63
        (b"\xc1" * 100_000, "too-deep"),
    ],
)
def test_what_edgex_never_writes_is_refused_by_its_cause(data: bytes, cause: str) -> None:
    assert refused(data) == cause


@pytest.mark.parametrize("first", [b"\x5b", b"\x7b", b"\x9b", b"\xbb"])
@pytest.mark.parametrize("size", [2**20, 2**31, 2**40, 2**63 - 1, 2**64 - 1])
def test_a_length_that_is_only_declared_costs_nothing(first: bytes, size: int) -> None:
    for filling in (b"", b"\x00" * 100, b"\x00" * 20_000):
        assert peak(first + struct.pack(">Q", size) + filling) < MIB


@pytest.mark.parametrize(
    "data",
    [
        b"\x9a\x00\x40\x00\x00" + b"\x80" * 0x400000,  # empty lists: 64 bytes each when built
        b"\x9f" + b"\xa0" * 0x400000 + b"\xff",
        b"\x9a\x00\x40\x00\x00" + b"\xfb" + b"\x00" * 0x400000,
        b"\x9a\x00\x10\x00\x00" + b"\x61a" * 0x100000,
        b"\x7f" + b"\x61a" * 0x100000 + b"\xff",
    ],
)
def test_millions_of_items_are_refused_before_they_are_built(data: bytes) -> None:
    began = time.perf_counter()
    assert peak(data) < 2 * MIB
    assert time.perf_counter() - began < 5  # seconds; a tenth of one where nothing else runs


def peak(data: bytes) -> int:
    """Return the most memory that refusing some bytes took."""
    tracemalloc.start()
    try:
        refused(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_large_binary_value_is_one_item() -> None:
    image = bytes(range(256)) * 40_000
    found = cbor.loads(cbor.dumps({"binaryValue": image, "n": [1] * 1000}))
    assert base64.b64decode(found["binaryValue"]) == image
    assert found["n"] == [1] * 1000


@pytest.mark.parametrize("value", [math.nan, [math.inf], {"a": 2**64}, -(2**64) - 1, {1: 2}, {"a": object()}, "\ud800"])
def test_what_edgex_cannot_read_is_not_written(value: Any) -> None:
    with pytest.raises(InvalidInputError, match="cannot be written as CBOR"):
        cbor.dumps(value)
