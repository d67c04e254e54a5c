"""Any bytes are a model's file or are refused with a word; our reader says what the `gguf` package says."""

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeagents.errors import ModelFileError, NotFoundError
from tests import tiny_llama
from toolchain.gguf_file import read_gguf
from toolchain.llama_shape import llama_shape
from toolchain.tokenizer import vocabulary_of


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of the usual model."""
    return tiny_llama.write(tmp_path_factory.mktemp("content") / "tiny.gguf").read_bytes()


def read_all(path: Path) -> None:
    """Read all that an import reads before it writes."""
    file = read_gguf(path)
    vocabulary_of(file.metadata, llama_shape(file).vocab)


def headed(*parts: bytes, tensors: int = 0, keys: int = 1, version: int = 3) -> bytes:
    """Return a file of a header and parts."""
    return b"".join([b"GGUF", struct.pack("<IQQ", version, tensors, keys), *parts])


def text(value: str) -> bytes:
    """Return a string as the format has it."""
    return struct.pack("<Q", len(value)) + value.encode()


def head(name: str, *dims: int, kind: int = 0, offset: int = 0) -> bytes:
    """Return what stands in a file for one tensor before its bytes."""
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def test_metadata_and_tensors_are_those_that_the_gguf_package_reads(tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf")
    ours, theirs = read_gguf(path), gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == fields
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        found = ours.tensors[tensor.name]
        assert (found.kind, found.shape) == (tensor.tensor_type, tuple(tensor.shape[::-1]))
        assert found.data.tobytes() == np.asarray(tensor.data).tobytes()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"nothing\.gguf"):
        read_gguf(tmp_path / "nothing.gguf")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b"", "cannot be read"),
        (b"PK\3\4" + bytes(60), "begins with"),
        (b"GGUF\3\0", "4 bytes are needed|8 bytes are needed"),
        (headed(version=1), "version 1"),
        (headed(keys=1 << 60), "more than"),
        (headed(tensors=1 << 60), "more than"),
        (headed(struct.pack("<Q", 1 << 62)), "bytes are needed"),
        (headed(text("k"), struct.pack("<I", 99)), "value type 99"),
        (headed(text("k"), struct.pack("<IIQ", 9, 0, 1 << 60)), "bytes are needed"),
        (headed(text("k"), struct.pack("<IIQ", 9, 9, 1 << 60)), "bytes are needed"),
        (headed(text("k"), *[struct.pack("<IIQ", 9, 9, 1)] * 1, struct.pack("<IQIQ", 9, 1, 9, 1)), "value type 9"),
        (headed(text("k"), struct.pack("<IB", 0, 1), text("k"), struct.pack("<IB", 0, 1), keys=2), "twice"),
        (headed(text("general.alignment"), struct.pack("<II", 4, 3)), "alignment"),
        (headed(text("k"), struct.pack("<IQ", 8, 2), b"\xff\xfe"), "damaged"),
        (headed(head("w", 1, 1, 1, 1, 1), tensors=1, keys=0), "5 dimensions"),
        (headed(head("w", 4, kind=77), tensors=1, keys=0), "unknown type 77"),
        (headed(head("w", 33, 2, kind=3), bytes(999), tensors=1, keys=0), "cannot have the shape"),
        (headed(head("w", 0), bytes(999), tensors=1, keys=0), "cannot have the shape"),
        (headed(head("w", 1 << 40, 1 << 40), bytes(999), tensors=1, keys=0), "cut short"),
        (headed(head("w", 4, offset=1 << 63), bytes(999), tensors=1, keys=0), "cut short"),
        (headed(head("w", 4), head("w", 4), bytes(999), tensors=2, keys=0), "twice"),
        (
            headed(head("w", 40), head("v", 4, offset=32), bytes(999), tensors=2, keys=0),
            "lie over each other",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, bad: bytes, words: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(bad)
    with pytest.raises(ModelFileError, match=words):
        read_gguf(tmp_path / "bad.gguf")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.1, 0.3, 0.6, 0.9, 0.999])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, content: bytes, share: float) -> None:
    (tmp_path / "short.gguf").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelFileError):
        read_gguf(tmp_path / "short.gguf")


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_is_refused_or_does_not_matter(tmp_path: Path, content: bytes, data: Any) -> None:
    header = content.index(b"output_norm.weight")
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, header + 3000))] = data.draw(st.integers(0, 255))
    (tmp_path / "damaged.gguf").write_bytes(damaged)
    with suppress(ModelFileError):  # and nothing else
        read_all(tmp_path / "damaged.gguf")
