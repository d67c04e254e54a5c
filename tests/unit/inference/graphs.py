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


def _saved(folder: Path, name: str, graph: onnx.GraphProto, outputs: Mapping[str, Any] | None = None) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    write_manifest(folder, name, None, {"outputs": outputs or {}})
    return folder


def _value(name: str, kind: int, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def image_classifier(folder: Path, kernels: np.ndarray[Any, Any], head: np.ndarray[Any, Any]) -> Path:
    """Write a model of images of bytes: to real numbers, convolution, rectifier, mean of all places, classes.

    Args:
        folder: for the model.
        kernels: (channels out, 3, 3, 3), float32.
        head: (channels out, classes), float32.
    """
    classes = head.shape[1]
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["real", "to_one"], ["small"]),
        helper.make_node("Conv", ["small", "kernels"], ["seen"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["seen"], ["lit"]),
        helper.make_node("GlobalAveragePool", ["lit"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("MatMul", ["features", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
        helper.make_node("QuantizeLinear", ["scores", "scale", "zero"], ["rough"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(1 / 255), "to_one"), numpy_helper.from_array(kernels, "kernels"),
        numpy_helper.from_array(head, "head"), numpy_helper.from_array(np.float32(1 / 255), "scale"),
        numpy_helper.from_array(np.uint8(0), "zero"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "image", [_value("image", TensorProto.UINT8, ["batch", 3, "height", "width"])],
        [_value("scores", TensorProto.FLOAT, ["batch", classes]),
         _value("rough", TensorProto.UINT8, ["batch", classes])],
        constants,
    )  # fmt: skip
    return _saved(folder, "image", graph, {"rough": {"scale": 1 / 255, "zero_point": 0}})


def sound_classifier(folder: Path, window: int, step: int) -> Path:
    """Write a model of sound: short-time spectrum, energy of each band, loudest band; samples are float32, -1 to 1."""
    nodes = [
        helper.make_node("Unsqueeze", ["samples", "last"], ["signal"]),
        helper.make_node("STFT", ["signal", "step", "window"], ["spectrum"], onesided=1),
        helper.make_node("ReduceSumSquare", ["spectrum", "last"], ["power"], keepdims=0),
        helper.make_node("ReduceMean", ["power", "frames"], ["energy"], keepdims=0),
        helper.make_node("ArgMax", ["energy"], ["band"], axis=1, keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(np.array([-1], np.int64), "last"), numpy_helper.from_array(np.int64(step), "step"),
        numpy_helper.from_array(np.hanning(window).astype(np.float32), "window"),
        numpy_helper.from_array(np.array([1], np.int64), "frames"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "sound", [_value("samples", TensorProto.FLOAT, ["batch", "length"])],
        [_value("energy", TensorProto.FLOAT, ["batch", window // 2 + 1]), _value("band", TensorProto.INT64, ["batch"])],
        constants,
    )  # fmt: skip
    return _saved(folder, "sound", graph)


def embedder(folder: Path, table: np.ndarray[Any, Any]) -> Path:
    """Write a model that turns token ids into one direction of length 1: the mean of their rows of a table."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "places"], ["mean"], keepdims=0),
        helper.make_node("LpNormalization", ["mean"], ["embedding"], axis=1, p=2),
    ]
    constants = [
        numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1], np.int64), "places"),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "embedder", [_value("ids", TensorProto.INT64, ["batch", "length"])],
        [_value("embedding", TensorProto.FLOAT, ["batch", table.shape[1]])], constants,
    )  # fmt: skip
    return _saved(folder, "embedder", graph)
