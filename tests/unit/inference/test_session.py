"""Any ONNX model: named inputs and outputs, checked, and real numbers where the manifest says how."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeagents.errors import InvalidInputError, UnavailableError
from edgeagents.inference import machine
from edgeagents.inference import session as session_module
from edgeagents.inference.folder import MANIFEST, ModelFolder, entry_of, open_folder, write_manifest
from edgeagents.inference.session import Port, Session
from tests.unit.inference.graphs import linear

THREE = np.array([[1.0, 2.0, 3.0]], np.float32)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(open_folder(linear(tmp_path, external="weights.bin")), threads=1)


def test_outputs_are_what_the_model_computes(session: Session) -> None:
    found = session.run({"x": THREE})
    assert found["y"].tolist() == [[2.0, 4.0, 6.0]]
    assert (found["z"].dtype, found["z"].tolist()) == (np.uint8, [[7, 11, 15]])


def test_outputs_with_a_scale_come_as_real_numbers(tmp_path: Path) -> None:
    folder = linear(tmp_path, outputs={"z": {"scale": 0.5, "zero_point": 3}})
    found = Session(open_folder(folder), threads=1).run({"x": THREE})["z"]
    assert (found.dtype, found.tolist()) == (np.float32, [[2.0, 4.0, 6.0]])


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"y": {"scale": 0.5}}, "'y', no output of integers"),
        ({"other": {"scale": 0.5}}, "'other', no output of integers"),
        ({"z": {"scale": 0.5, "zero_point": 10**30}}, "not a manifest"),
    ],
)
def test_a_scale_of_no_integers_is_refused(tmp_path: Path, outputs: dict[str, Any], text: str) -> None:
    manifest = linear(tmp_path) / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"outputs": outputs}))
    with pytest.raises(InvalidInputError, match=text):
        Session(open_folder(tmp_path), threads=1)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "input x float32.* is missing"),
        ({"x": THREE, "w": THREE}, "no input 'w'"),
        ({"x": THREE.astype(np.float64)}, "got float64"),
        ({"x": THREE[0]}, "got 1 dimensions"),
        ({"x": THREE[:, :2]}, "3 is"),
        ({"x": [["a", "b", "c"]]}, "got str"),
        ({"x": np.zeros((30_000_000, 3), np.float32)}, "in one call"),
    ],
)
def test_inputs_that_are_not_the_models_are_named(session: Session, inputs: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInputError, match=text):
        session.run(inputs)


def test_a_graph_with_other_names_or_shapes_than_expected_is_refused(session: Session) -> None:
    real, small = np.dtype(np.float32), np.dtype(np.uint8)
    x, y, z = Port("x", real, ("n", 3)), Port("y", real, ("n", 3)), Port("z", small, ("n", 3))
    session.expect([x], [y, z])
    for inputs, outputs, text in (
        ([Port("x", real, ("n", 4))], [y, z], r"no input x float32\[n, 4\]"),
        ([Port("q", real, ("n", 3))], [y, z], "no input q"),
        ([x], [y], "unexpected output 'z'"),
        ([x], [Port("y", small, ("n", 3)), z], "no output y uint8"),
        ([Port("x", real, (1, 3))], [y, z], "no input x"),
    ):
        with pytest.raises(InvalidInputError, match=text):
            session.expect(inputs, outputs)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a")  # an IR version and nothing more
    write_manifest(tmp_path, "none", None)
    with pytest.raises(InvalidInputError, match="cannot be loaded"):
        Session(open_folder(tmp_path), threads=1)


def test_a_model_that_does_not_fit_into_memory_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(linear(tmp_path))
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 10.0)
    with pytest.raises(UnavailableError, match="0 MiB are free"):
        Session(folder)
    assert entry_of(tmp_path / "model.onnx").size_bytes > 10


def test_a_graph_is_not_looked_at_before_there_is_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = open_folder(linear(tmp_path))
    monkeypatch.setattr(machine, "free_memory_bytes", lambda: 10.0)
    monkeypatch.setattr(ModelFolder, "graph", lambda self, name: pytest.fail("it was read"))
    with pytest.raises(UnavailableError):
        Session(folder)


def test_sizes_without_a_name_may_differ(tmp_path: Path) -> None:
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph(
        [node], "same", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, None, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, None, 3])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    write_manifest(tmp_path, "same", None)
    session = Session(open_folder(tmp_path), threads=1)
    assert session.run({"x": np.ones((2, 5, 3), np.float32)})["y"].shape == (2, 5, 3)
    with pytest.raises(InvalidInputError, match="3 is"):
        session.run({"x": np.ones((2, 5, 4), np.float32)})


def test_threads_are_those_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module.machine, "cpus", lambda: 1)
    assert Session(open_folder(linear(tmp_path))).threads == 1
