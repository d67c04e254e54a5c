"""GGUF files: what is said in them, and their tensors as views of the file.

A reader of our own: a header is a stranger's claim, so every length is held against the bytes that are left before
anything is read or reserved. The `gguf` package trusts them (an array said to be 2**60 long never ends), and takes four
seconds for a vocabulary. It still dequantises, and its writer and reader judge ours in the tests.

Left out on purpose: big-endian files, versions before 2, models split over several files.

Source: GGUF specification, version 3 (ggml, docs/gguf.md).
"""

import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from edgeagents.errors import ModelFileError, NotFoundError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_KEYS = 10_000
MAX_TENSORS = 100_000
MAX_DIMENSIONS = 4
MAX_DEPTH = 2  # arrays of arrays; no known file nests deeper
DEFAULT_ALIGNMENT = 32

# Value types of the specification that have one size; 8 is a string, 9 an array.
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9

Bytes = npt.NDArray[np.uint8]


class Tensor(NamedTuple):
    """One tensor of a file.

    Args:
        kind: how its numbers are stored.
        shape: outermost dimension first, as numpy has it; a matrix is (rows, columns).
        data: its bytes, shape (rows, bytes a row); for a vector one row.
    """

    kind: GGMLQuantizationType
    shape: tuple[int, ...]
    data: Bytes


@dataclass(frozen=True)
class GgufFile:
    """What a file says of itself, and its tensors by name."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]


def read_gguf(path: Path) -> GgufFile:
    """Return metadata and tensors of a GGUF file; tensors are views of the mapped file, nothing is copied.

    Raises:
        NotFoundError: there is no such file.
        ModelFileError: it is not GGUF, is cut short, or claims what cannot be.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise NotFoundError(f"no model file {path}: is the path right?") from error
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise ModelFileError(f"{path} cannot be read as a model: {error}") from error
    try:
        return _Cursor(content).file()
    except (_BadFile, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} is damaged or no GGUF model: {error}; fetch it again") from error


class _BadFile(Exception):
    """What is wrong, without the name of the file."""


class _Cursor:
    """Reads on from where it stands; never beyond the end of the content."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content
        self.at = 0

    def file(self) -> GgufFile:
        if self.content[:4] != MAGIC:
            raise _BadFile(f"it begins with {self.content[:4]!r} and not with {MAGIC!r}")
        self.at = 4
        version = self.scalar("<I")
        if version not in VERSIONS:
            raise _BadFile(f"version {version} is none of {VERSIONS}")
        tensor_count = self.count("tensors", MAX_TENSORS)
        key_count = self.count("keys", MAX_KEYS)
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self.string()
            if key in metadata:
                raise _BadFile(f"key {key!r} is there twice")
            metadata[key] = self.value(self.scalar("<I"), 0)
        return GgufFile(metadata, self.tensors(tensor_count, _alignment(metadata)))

    def tensors(self, count: int, alignment: int) -> dict[str, Tensor]:
        heads: dict[str, tuple[GGMLQuantizationType, tuple[int, ...], int]] = {}
        for _ in range(count):
            name = self.string()
            if name in heads:
                raise _BadFile(f"tensor {name!r} is there twice")
            heads[name] = self.head(name)
        start = -(-self.at // alignment) * alignment
        found = {name: self.tensor(name, *head, start, alignment) for name, head in heads.items()}
        places = sorted((head[2], head[2] + found[name].data.nbytes, name) for name, head in heads.items())
        for (_, end, name), (begin, _, other) in pairwise(places):
            if begin < end:
                raise _BadFile(f"tensors {name!r} and {other!r} lie over each other")
        return found

    def head(self, name: str) -> tuple[GGMLQuantizationType, tuple[int, ...], int]:
        dimensions = self.scalar("<I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise _BadFile(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self.scalar("<Q") for _ in range(dimensions))[::-1]
        number, offset = self.scalar("<I"), self.scalar("<Q")
        try:
            return GGMLQuantizationType(number), shape, offset
        except ValueError as error:
            raise _BadFile(f"tensor {name!r} has the unknown type {number}") from error

    def tensor(
        self, name: str, kind: GGMLQuantizationType, shape: tuple[int, ...], offset: int, start: int, alignment: int
    ) -> Tensor:
        block, block_bytes = GGML_QUANT_SIZES.get(kind, (1, 0))
        if not block_bytes or min(shape) < 1 or shape[-1] % block:
            raise _BadFile(f"tensor {name!r} of type {kind.name} cannot have the shape {shape}")
        rows, row_bytes = prod(shape[:-1]), shape[-1] // block * block_bytes
        begin, end = start + offset, start + offset + rows * row_bytes
        if offset % alignment or end > len(self.content):
            raise _BadFile(f"tensor {name!r} ends at byte {end} of {len(self.content)}: the file is cut short")
        data = np.frombuffer(self.content, np.uint8, rows * row_bytes, begin).reshape(rows, row_bytes)
        return Tensor(kind, shape, data)

    def value(self, kind: int, depth: int) -> Any:
        if kind in SCALARS:
            return self.scalar(SCALARS[kind])
        if kind == STRING:
            return self.string()
        if kind != ARRAY or depth >= MAX_DEPTH:
            raise _BadFile(f"value type {kind} at byte {self.at} is unknown")
        item, length = self.scalar("<I"), self.scalar("<Q")
        size = struct.calcsize(SCALARS[item]) if item in SCALARS else 8  # strings and arrays begin with a length
        self.need(length * size)
        if item in SCALARS:
            return list(struct.unpack(f"<{length}{SCALARS[item][1]}", self.take(length * size)))
        return [self.value(item, depth + 1) for _ in range(length)]

    def count(self, what: str, most: int) -> int:
        number = int(self.scalar("<Q"))
        if number > most:
            raise _BadFile(f"{number} {what} are more than the {most} that a model may have")
        return number

    def string(self) -> str:
        return self.take(self.scalar("<Q")).decode()

    def scalar(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def take(self, size: int) -> bytes:
        self.need(size)
        self.at += size
        return self.content[self.at - size : self.at]

    def need(self, size: int) -> None:
        if size > len(self.content) - self.at:
            raise _BadFile(f"{size} bytes are needed at byte {self.at}, {len(self.content) - self.at} are left")


def _alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise _BadFile(f"an alignment of {alignment!r} bytes is no power of two")
    return alignment
