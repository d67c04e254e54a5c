"""Weights in blocks of 32 along a row: what GGUF stores, as what onnxruntime's MatMulNBits multiplies.

A weight is `(value - zero) * scale + offset`, zero being 8 for four bits and 128 for eight; each block has its scale
and, where the source has a minimum, its offset. Q4_1's `d * q + m` becomes `(q - 8) * d + (m + 8 * d)`: the same real
number, and the sum is checked to need no rounding. Matrix products do the offset part with block sums
(`llama_graph.py`).

Why not zero points: an integer one is not exact, and with a real one the kernel of onnxruntime 1.32 unpacks all weights
at every call.

Source: ggml-quants (block_q4_0, block_q4_1, block_q8_0); ONNX contrib operator MatMulNBits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from edgeagents.errors import ModelFileError
from toolchain.gguf_file import Tensor

BLOCK = 32
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Quantise = Literal["exact", "q4", "q8", "f32"]


@dataclass(frozen=True)
class BlockMatrix:
    """A matrix of (rows, columns) in blocks.

    Args:
        bits: 4 or 8.
        values: one unsigned number a weight, shape (rows, columns), uint8; packed only when written.
        scales: shape (rows, columns / 32), float32.
        offsets: like `scales`; None where all are 0.
    """

    bits: int
    values: Bytes
    scales: Floats
    offsets: Floats | None = None

    def packed(self) -> Bytes:
        """Return the weights as MatMulNBits and GatherBlockQuantized want them: shape (rows, columns * bits / 8).

        Of two weights of four bits, the first is in the lower half of its byte.
        """
        if self.bits == 8:
            return self.values
        return self.values[:, 0::2] | (self.values[:, 1::2] << np.uint8(4))

    def real(self) -> npt.NDArray[np.float64]:
        """Return the real numbers that the weights stand for, shape (rows, columns), without rounding."""
        blocks = self.values.astype(np.float64).reshape(*self.scales.shape, BLOCK) - (1 << (self.bits - 1))
        real = blocks * self.scales[..., None].astype(np.float64)
        if self.offsets is not None:
            real += self.offsets[..., None].astype(np.float64)
        return real.reshape(self.values.shape)

    def rows(self, order: npt.NDArray[np.intp]) -> "BlockMatrix":
        """Return the matrix with its rows in another order."""
        offsets = None if self.offsets is None else self.offsets[order]
        return BlockMatrix(self.bits, self.values[order], self.scales[order], offsets)


Matrix = BlockMatrix | Floats


def matrix_of(tensor: Tensor, name: str, quantise: Quantise) -> Matrix:
    """Return a tensor's matrix in the wanted form; exact means: each weight is the same real number as in the file.

    Raises:
        ModelFileError: the tensor's type has no exact form here, or its scales are no numbers.
    """
    if quantise == "exact":
        matrix = _exact(tensor, name)
        _check_finite(matrix.scales if isinstance(matrix, BlockMatrix) else matrix, name)
        if isinstance(matrix, BlockMatrix) and matrix.offsets is not None:
            _check_finite(matrix.offsets, name)
        return matrix
    dense = dense_of(tensor, name)
    if quantise == "f32":
        return dense
    if dense.shape[1] % BLOCK:
        raise ModelFileError(f"tensor {name!r} has rows of {dense.shape[1]} weights, no multiple of {BLOCK}")
    return quantised(dense, 4 if quantise == "q4" else 8)


def dense_of(tensor: Tensor, name: str) -> Floats:
    """Return a tensor's weights as float32, shaped like the tensor; ModelFileError when its type is not known."""
    try:
        dense = np.asarray(dequantize(tensor.data, tensor.kind), np.float32).reshape(tensor.shape)
    except NotImplementedError as error:
        raise ModelFileError(f"tensor {name!r} has the type {tensor.kind.name}, which cannot be read") from error
    _check_finite(dense, name)
    return dense


def quantised(dense: Floats, bits: int) -> BlockMatrix:
    """Return a matrix rounded to blocks without offsets, shape kept; the largest weight of a block is kept exactly.

    Each weight is within half a scale of the original, but for four bits at the positive end: one scale.

    Source: ggml-quants quantize_row_q4_0_ref (the largest weight becomes -8), quantize_row_q8_0_ref.
    """
    blocks = dense.reshape(dense.shape[0], -1, BLOCK)
    if bits == 4:
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
        scales = largest / np.float32(-8)
    else:
        scales = np.abs(blocks).max(-1, keepdims=True) / np.float32(127)
    steps = np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales != 0)
    zero = 1 << (bits - 1)
    values = np.clip(np.rint(steps) + zero, 0, 2 * zero - 1).astype(np.uint8)
    return BlockMatrix(bits, values.reshape(dense.shape), np.ascontiguousarray(scales[..., 0], np.float32))


def joined(parts: Sequence[Matrix], name: str) -> Matrix:
    """Return matrices of the same columns as one, rows below rows; four bits among eight become eight, exactly.

    Raises:
        ModelFileError: some are in blocks and some are not.
    """
    blocks = [part for part in parts if isinstance(part, BlockMatrix)]
    if not blocks:
        return np.concatenate([part for part in parts if not isinstance(part, BlockMatrix)])
    if len(blocks) != len(parts):
        raise ModelFileError(f"{name}: some of its tensors are quantised, some are not; try --quantise q8")
    bits = max(part.bits for part in blocks)
    values = [part.values + np.uint8((1 << (bits - 1)) - (1 << (part.bits - 1))) for part in blocks]
    offsets = None
    if any(part.offsets is not None for part in blocks):
        offsets = np.concatenate([np.zeros_like(p.scales) if p.offsets is None else p.offsets for p in blocks])
    return BlockMatrix(bits, np.concatenate(values), np.concatenate([part.scales for part in blocks]), offsets)


def _exact(tensor: Tensor, name: str) -> Matrix:
    match tensor.kind:
        case Kind.Q4_0:
            scales, body = _blocks(tensor, halves=1)
            return BlockMatrix(4, _nibbles(body), scales[..., 0])
        case Kind.Q4_1:
            scales, body = _blocks(tensor, halves=2)
            return BlockMatrix(4, _nibbles(body), scales[..., 0], _offsets(scales, name))
        case Kind.Q8_0:
            scales, body = _blocks(tensor, halves=1)
            values = (body ^ np.uint8(128)).reshape(body.shape[0], -1)  # int8 q as the unsigned q + 128
            return BlockMatrix(8, values, scales[..., 0])
        case Kind.F32 | Kind.F16 | Kind.BF16:
            return dense_of(tensor, name)
    raise ModelFileError(f"tensor {name!r} of type {tensor.kind.name} has no exact form here: try --quantise q8")


def _blocks(tensor: Tensor, halves: int) -> tuple[Floats, Bytes]:
    """Return a block's leading half-precision numbers, (rows, blocks, halves) float32, and its other bytes."""
    rows, columns = tensor.shape
    raw = tensor.data.reshape(rows, columns // BLOCK, -1)
    head = np.ascontiguousarray(raw[..., : 2 * halves]).view("<f2")
    return head.astype(np.float32), raw[..., 2 * halves :]


def _nibbles(body: Bytes) -> Bytes:
    """Return the weights of (rows, blocks, 16) bytes; a block's first half is in the lower halves of its bytes."""
    return np.concatenate([body & np.uint8(15), body >> np.uint8(4)], axis=-1).reshape(body.shape[0], -1)


def _offsets(scales: Floats, name: str) -> Floats:
    real = scales[..., 1].astype(np.float64) + 8 * scales[..., 0].astype(np.float64)
    offsets = real.astype(np.float32)
    if not np.array_equal(offsets, real):
        raise ModelFileError(f"tensor {name!r}: a minimum is too far from its scale to be exact; try --quantise q8")
    return offsets


def _check_finite(numbers: Floats, name: str) -> None:
    if not np.isfinite(numbers).all():
        raise ModelFileError(f"tensor {name!r} holds numbers that are none: the file is damaged")
