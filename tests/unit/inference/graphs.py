"""Small ONNX models in folders, made for one test."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgeagents.inference.folder import write_manifest


def linear(folder: Path, *, external: str = "", outputs: Mapping[str, Any] | None = None) -> Path:
    """Write a model that doubles three numbers and also returns them as bytes; its weight may lie in another file."""
    weight = numpy_helper.from_array(np.eye(3, dtype=np.float32) * 2, "weight")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "scale", "zero"], ["z"]),
    ]
    constants = [
        weight, numpy_helper.from_array(np.float32(0.5), "scale"), numpy_helper.from_array(np.uint8(3), "zero"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "linear", [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3]),
         helper.make_tensor_value_info("z", TensorProto.UINT8, ["batch", 3])], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    if external:
        tensor = model.graph.initializer[0]
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", external), ("offset", "0"), ("length", str(len(raw)))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        (folder / "weights.bin").write_bytes(raw)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_manifest(folder, "linear", None, {"outputs": outputs or {}})
    return folder


def constant_inside(external: str) -> bytes:
    """Return a serialised model whose tensor lies in a branch of a node, and its data elsewhere."""
    tensor = onnx.TensorProto(name="c", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", external
    branch = helper.make_graph(
        [helper.make_node("Constant", [], ["v"], value=tensor)], "branch", [],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    node = helper.make_node("If", ["is"], ["v"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph(
        [node], "outer", [helper.make_tensor_value_info("is", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    found: bytes = helper.make_model(graph).SerializeToString()
    return found
