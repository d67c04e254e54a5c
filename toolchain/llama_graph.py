"""The ONNX graph of a Llama-type model: one step of any number of tokens, for a batch of rows.

Inputs:
    input_ids (batch, tokens) int64, padded at the right.
    query_seqlens (batch,) int32: how many of a row's tokens are real; 0 for a row that is idle.
    seqlens_k (batch,) int32: how many tokens the row's cache holds after the step, minus one.
    total_sequence_length () int32: at least `tokens`, and what any row's cache holds after the step; or more.
    last (batch,) int64: the token of each row whose logits are wanted; not in the graph that gives all.
    past_key_values.N.key, .value (batch, kv_heads, capacity, head_dim) float32; past + tokens <= capacity for each row.

Outputs:
    logits (batch, 1 or tokens, vocab) float32.
    present.N.key, .value: to be bound to the very buffers of the past.

Tokens are rows of a plain matrix everywhere but in attention: then a matrix with offsets costs three nodes more, block
sums (Reshape, ReduceSum) and a Gemm that adds their product to MatMulNBits's. That was the quickest of three exact ways
(docs/decisions/0016).

Source: ONNX contrib operators GroupQueryAttention, MatMulNBits, GatherBlockQuantized, SkipSimplifiedLayerNormalization.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from toolchain.block_matrix import BLOCK
from toolchain.llama_weights import Stored, StoredLayer, StoredModel
from toolchain.weights_file import WeightsFile

OPSET, CONTRIB_OPSET, IR_VERSION = 21, 1, 10
CONTRIB = "com.microsoft"
INT8_ACTIVATIONS, FLOAT_ACTIVATIONS = 4, 1  # accuracy levels of MatMulNBits


def llama_graph(
    model: StoredModel, weights: WeightsFile, *, all_positions: bool, accuracy_level: int = INT8_ACTIVATIONS
) -> ModelProto:
    """Return the graph, its weights named in the file of weights; `logits` of all positions or of `last` alone."""
    return _Graph(model, accuracy_level).build(weights, all_positions=all_positions)


class _Graph:
    """Collects nodes; each method returns the name of what it computed."""

    def __init__(self, model: StoredModel, accuracy_level: int) -> None:
        self.model, self.shape, self.accuracy_level = model, model.shape, accuracy_level
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}

    def build(self, weights: WeightsFile, *, all_positions: bool) -> ModelProto:
        self.step(all_positions=all_positions)
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes, "llama", self.inputs(all_positions=all_positions), self.outputs(all_positions=all_positions),
            [*self.constants.values(), *weights.tensors(used)],
        )  # fmt: skip
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, CONTRIB_OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="edgeagents")

    def step(self, *, all_positions: bool) -> None:
        rows = self.node("Shape", ["input_ids"])
        self.by_row = self.node("Concat", [rows, self.ints("minus_one", [-1])], axis=0)
        stream = self.embedded()
        normed = self.node("SimplifiedLayerNormalization", [stream, self.model.layers[0].attention_norm], **self.norm())
        for number, layer in enumerate(self.model.layers):
            attended = self.attention(number, self.linear(normed, layer.qkv))
            if number == self.shape.layers - 1 and not all_positions:  # nothing reads the other positions any more
                attended, stream = self.last(attended), self.last(self.node("Reshape", [stream, self.by_row]))
            else:
                attended = self.node(
                    "Reshape", [attended, self.ints("tokens", [-1, self.shape.heads * self.shape.head_dim])]
                )
            normed, stream = self.add_norm(self.linear(attended, layer.output), stream, layer.feed_forward_norm)
            after = self.model.norm if layer is self.model.layers[-1] else self.model.layers[number + 1].attention_norm
            normed, stream = self.add_norm(self.feed_forward(normed, layer), stream, after)
        logits = self.linear(normed, self.model.head)
        if all_positions:
            self.node("Reshape", [logits, self.by_row], outputs=["logits"])
        else:
            self.node("Unsqueeze", [logits, self.ints("one", [1])], outputs=["logits"])

    def embedded(self) -> str:
        """Return the tokens' embeddings, (batch * tokens, width), from the very table that the head multiplies with."""
        table, ids = self.model.embedding, self.node("Reshape", ["input_ids", self.ints("minus_one", [-1])])
        if table.bits == 32:
            return self.node("Gather", [table.values, ids], axis=0)
        return self.node(
            "GatherBlockQuantized", [table.values, ids, table.scales], domain=CONTRIB,
            bits=table.bits, block_size=BLOCK, gather_axis=0, quantize_axis=1,
        )  # fmt: skip

    def attention(self, number: int, qkv: str) -> str:
        """Return what the heads read, (batch, tokens, heads * head_dim); the step's keys and values join the cache."""
        past = [f"past_key_values.{number}.{kind}" for kind in ("key", "value")]
        present = [f"present.{number}.{kind}" for kind in ("key", "value")]
        packed = self.node("Reshape", [qkv, self.by_row])
        lengths = ["seqlens_k", "total_sequence_length", self.model.cosines, self.model.sines]
        unused = [""] * 7  # positions, bias, sinks, scales and norms of other models
        return self.node(
            "GroupQueryAttention", [packed, "", "", *past, *lengths, *unused, "query_seqlens"], domain=CONTRIB,
            outputs=[f"attention.{number}", *present], num_heads=self.shape.heads, kv_num_heads=self.shape.kv_heads,
            do_rotary=1, rotary_interleaved=0,
        )  # fmt: skip

    def feed_forward(self, normed: str, layer: StoredLayer) -> str:
        both = self.linear(normed, layer.gate_up)
        gate, up = self.fresh("gate"), self.fresh("up")
        self.node("Split", [both], outputs=[gate, up], axis=-1, num_outputs=2)
        swish = self.node("QuickGelu", [gate], domain=CONTRIB, alpha=1.0)  # x * sigmoid(1.0 * x), in one pass
        return self.linear(self.node("Mul", [swish, up]), layer.down)

    def linear(self, name: str, matrix: Stored) -> str:
        """Return a (tokens, columns) matrix times the transpose of a stored one, (tokens, rows)."""
        if matrix.bits == 32:
            return self.node("Gemm", [name, matrix.values], transB=1)
        product = self.node(
            "MatMulNBits", [name, matrix.values, matrix.scales], domain=CONTRIB, K=matrix.columns, N=matrix.rows,
            bits=matrix.bits, block_size=BLOCK, accuracy_level=self.accuracy_level,
        )  # fmt: skip
        if not matrix.offsets:
            return product
        blocks = self.node(
            "Reshape", [name, self.ints(f"blocks.{matrix.columns}", [-1, matrix.columns // BLOCK, BLOCK])]
        )
        sums = self.node("ReduceSum", [blocks, self.ints("minus_one", [-1])], keepdims=0)
        return self.node("Gemm", [sums, matrix.offsets, product])

    def add_norm(self, addend: str, stream: str, weight: str) -> tuple[str, str]:
        """Return the normed sum and the sum itself."""
        normed, total = self.fresh("normed"), self.fresh("stream")
        self.node(
            "SkipSimplifiedLayerNormalization", [addend, stream, weight], domain=CONTRIB,
            outputs=[normed, "", "", total], epsilon=self.shape.norm_epsilon,
        )  # fmt: skip
        return normed, total

    def last(self, name: str) -> str:
        """Return the wanted position of each row of a (batch, tokens, width) tensor, (batch, width)."""
        index = self.node("Unsqueeze", ["last", self.ints("one", [1])])
        return self.node("GatherND", [name, index], batch_dims=1)

    def norm(self) -> dict[str, Any]:
        return {"axis": -1, "epsilon": self.shape.norm_epsilon, "stash_type": 1}

    def node(
        self, kind: str, inputs: Sequence[str], *, outputs: Sequence[str] = (), domain: str = "", **attributes: Any
    ) -> str:
        outputs = outputs or [self.fresh(kind)]
        self.nodes.append(
            helper.make_node(kind, inputs, outputs, name=f"{kind}.{len(self.nodes)}", domain=domain, **attributes)
        )
        return outputs[0]

    def fresh(self, word: str) -> str:
        return f"{word}.{len(self.nodes)}"

    def ints(self, name: str, values: Sequence[int]) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def inputs(self, *, all_positions: bool) -> list[Any]:
        int32, int64 = TensorProto.INT32, TensorProto.INT64
        described = [
            helper.make_tensor_value_info("input_ids", int64, ["batch", "tokens"]),
            helper.make_tensor_value_info("query_seqlens", int32, ["batch"]),
            helper.make_tensor_value_info("seqlens_k", int32, ["batch"]),
            helper.make_tensor_value_info("total_sequence_length", int32, []),
        ]
        if not all_positions:
            described.append(helper.make_tensor_value_info("last", int64, ["batch"]))
        return described + self.caches("past_key_values")

    def outputs(self, *, all_positions: bool) -> list[Any]:
        positions: str | int = "tokens" if all_positions else 1
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", positions, self.shape.vocab])
        return [logits, *self.caches("present")]

    def caches(self, prefix: str) -> list[Any]:
        dims: list[str | int] = ["batch", self.shape.kv_heads, "capacity", self.shape.head_dim]
        return [
            helper.make_tensor_value_info(f"{prefix}.{number}.{kind}", TensorProto.FLOAT, dims)
            for number in range(self.shape.layers)
            for kind in ("key", "value")
        ]
