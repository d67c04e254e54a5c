"""A model's weights, joined as the graph multiplies them and written to its file.

Query, key and value are one matrix, gate and up are another: one product reads the activations once.

Source: llama.cpp, convert_hf_to_gguf.py (LlamaModel.permute).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgeagents.errors import ModelFileError
from toolchain.block_matrix import BLOCK, BlockMatrix, Floats, Matrix, Quantise, dense_of, joined, matrix_of
from toolchain.gguf_file import GgufFile
from toolchain.llama_shape import LlamaShape
from toolchain.weights_file import WeightsFile


@dataclass(frozen=True)
class Stored:
    """A matrix in the file of weights: the names of its tensors there; `bits` is 32 for plain float32."""

    bits: int
    rows: int
    columns: int
    values: str
    scales: str = ""
    offsets: str = ""


@dataclass(frozen=True)
class StoredLayer:
    """One layer: names of the norms' weights and the four matrices."""

    attention_norm: str
    qkv: Stored
    output: Stored
    feed_forward_norm: str
    gate_up: Stored
    down: Stored


@dataclass(frozen=True)
class StoredModel:
    """All that a graph needs. `embedding.values` is (vocab, bytes a row); a tied head names the very same bytes."""

    shape: LlamaShape
    embedding: Stored
    layers: tuple[StoredLayer, ...]
    norm: str
    head: Stored
    cosines: str
    sines: str


def store(
    file: GgufFile, shape: LlamaShape, quantise: Quantise, weights: WeightsFile, told: Callable[[float], None]
) -> StoredModel:
    """Write all weights and return where they are; `told` hears the share that is done, from 0 to 1.

    Raises:
        ModelFileError: a tensor cannot be had in the wanted form.
    """
    writer = _Writer(file, shape, quantise, weights)
    embedding, head = writer.embedding()
    layers = []
    for layer in range(shape.layers):
        layers.append(writer.layer(layer))
        told((layer + 1) / shape.layers)
    cosines, sines = rotations(shape)
    return StoredModel(
        shape, embedding, tuple(layers), writer.vector("output_norm.weight"), head,
        weights.add("rope.cosines", cosines), weights.add("rope.sines", sines),
    )  # fmt: skip


def rotations(shape: LlamaShape) -> tuple[Floats, Floats]:
    """Return cosines and sines of the rotary embedding, each (context, head_dim / 2), float32, computed in float64.

    Source: Su et al. 2021 (arXiv 2104.09864), equation 15.
    """
    frequencies = shape.rope_base ** (-2.0 * np.arange(shape.head_dim // 2) / shape.head_dim)
    angles = np.outer(np.arange(shape.context), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def halves_first(heads: int, head_dim: int) -> npt.NDArray[np.intp]:
    """Return the order of rows in which a head's first halves of rotated pairs stand before the second halves.

    GGUF has the two numbers of a pair beside each other; the attention kernel is quicker with halves.
    """
    rows = np.arange(heads * head_dim, dtype=np.intp)
    return rows.reshape(heads, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)


def head_form(quantise: Quantise) -> Quantise:
    """Return the form of embedding and head: with four-bit layers they stay as they are, as llama.cpp leaves them."""
    return "exact" if quantise == "q4" else quantise


@dataclass(frozen=True)
class _Writer:
    file: GgufFile
    shape: LlamaShape
    quantise: Quantise
    weights: WeightsFile

    def embedding(self) -> tuple[Stored, Stored]:
        table = self.read("token_embd.weight", head_form(self.quantise))
        if isinstance(table, BlockMatrix) and table.offsets is not None:
            raise ModelFileError("an embedding with minimums (Q4_1) has no exact form here: try --quantise q8")
        stored = self.matrix("embedding", table, flat=True)
        if "output.weight" in self.file.tensors:
            return stored, self.matrix("head", self.read("output.weight", head_form(self.quantise)))
        if stored.bits == 32:  # (vocab, width), as looked up: the graph multiplies by its transpose
            return stored, stored
        blocks = (stored.rows, stored.columns // BLOCK, BLOCK * stored.bits // 8)
        values = self.weights.share("head.values", stored.values, blocks)
        return stored, Stored(stored.bits, stored.rows, stored.columns, values, stored.scales)

    def layer(self, number: int) -> StoredLayer:
        def read(*names: str) -> list[Matrix]:
            return [self.read(f"blk.{number}.{name}.weight", self.quantise) for name in names]

        shape, prefix = self.shape, f"layers.{number}"
        query, key, value = read("attn_q", "attn_k", "attn_v")
        query = _reordered(query, halves_first(shape.heads, shape.head_dim))
        key = _reordered(key, halves_first(shape.kv_heads, shape.head_dim))
        return StoredLayer(
            attention_norm=self.vector(f"blk.{number}.attn_norm.weight"),
            qkv=self.matrix(f"{prefix}.qkv", joined([query, key, value], f"{prefix}.qkv")),
            output=self.matrix(f"{prefix}.output", *read("attn_output")),
            feed_forward_norm=self.vector(f"blk.{number}.ffn_norm.weight"),
            gate_up=self.matrix(f"{prefix}.gate_up", joined(read("ffn_gate", "ffn_up"), f"{prefix}.gate_up")),
            down=self.matrix(f"{prefix}.down", *read("ffn_down")),
        )

    def read(self, name: str, quantise: Quantise) -> Matrix:
        return matrix_of(self.file.tensors[name], name, quantise)

    def vector(self, name: str) -> str:
        return self.weights.add(name, dense_of(self.file.tensors[name], name))

    def matrix(self, name: str, matrix: Matrix, *, flat: bool = False) -> Stored:
        """Write a matrix: blocks as (rows, blocks, bytes), or (rows, bytes) when flat; float32 as (rows, columns)."""
        if not isinstance(matrix, BlockMatrix):
            return Stored(32, matrix.shape[0], matrix.shape[1], self.weights.add(f"{name}.values", matrix))
        rows, columns = matrix.values.shape
        packed = matrix.packed() if flat else matrix.packed().reshape(rows, columns // BLOCK, -1)
        offsets = ""
        if matrix.offsets is not None:  # transposed: the right side of a product with block sums
            offsets = self.weights.add(f"{name}.offsets", np.ascontiguousarray(matrix.offsets.T))
        values = self.weights.add(f"{name}.values", packed)
        return Stored(matrix.bits, rows, columns, values, self.weights.add(f"{name}.scales", matrix.scales), offsets)


def _reordered(matrix: Matrix, order: npt.NDArray[np.intp]) -> Matrix:
    return matrix.rows(order) if isinstance(matrix, BlockMatrix) else matrix[order]
