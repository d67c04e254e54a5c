"""A safetensors folder gives the very model that a GGUF file of the same weights gives, or is refused by name."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Kind

from edgeagents.errors import ModelFileError, NotFoundError
from edgeagents.inference.folder import open_folder
from edgeagents.inference.language import LanguageModel
from tests import tiny_llama
from tests.llama_steps import Steps
from toolchain import safetensors_folder
from toolchain.export import Form, export
from toolchain.safetensors_folder import read_folder

IDS = [5, 70, 99, 12, 33, 200, 7]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """Return a folder as hubs publish it, weights as float32."""
    return tiny_llama.write_hub_folder(tmp_path / "hub-tiny")


@pytest.mark.parametrize("form", [Form("f32", "float32"), Form("exact", "float32"), Form("q8"), Form("q4")])
@pytest.mark.parametrize("kind", [Kind.F32, Kind.F16])
def test_both_sources_of_one_model_give_the_same_bytes_of_weights(tmp_path: Path, kind: Kind, form: Form) -> None:
    dtype = np.float32 if kind is Kind.F32 else np.float16
    made = {name: weight.astype(dtype).astype(np.float32) for name, weight in tiny_llama.weights().items()}
    stored = {name: weight.astype(dtype if weight.ndim > 1 else np.float32) for name, weight in made.items()}
    kinds = {name: kind for name, weight in made.items() if weight.ndim > 1}
    gguf = export(tiny_llama.write(tmp_path / "a.gguf", made=made, kinds=kinds), tmp_path / "a", form)
    hub = export(tiny_llama.write_hub_folder(tmp_path / "hub", made=stored), tmp_path / "b", form)
    for name in ("model.onnx", "model-all.onnx", "model.onnx.data"):
        assert hub["files"][name] == gguf["files"][name], name


def test_its_logits_are_those_of_a_plain_llama_and_of_the_gguf_file(hub: Path, tmp_path: Path) -> None:
    form = Form("f32", "float32")
    export(hub, tmp_path / "model", form)
    kinds = {name: Kind.F32 for name, weight in tiny_llama.weights().items() if weight.ndim > 1}
    export(tiny_llama.write(tmp_path / "tiny.gguf", kinds=kinds), tmp_path / "other", form)
    found = Steps(tmp_path / "model").step(IDS)[0]
    np.testing.assert_array_equal(found, Steps(tmp_path / "other").step(IDS)[0])
    np.testing.assert_allclose(found, tiny_llama.reference_logits(tiny_llama.weights(), IDS), atol=2e-3)


def test_bfloat16_is_read_as_the_numbers_it_stands_for(tmp_path: Path) -> None:
    folder = tiny_llama.write_hub_folder(tmp_path / "hub")
    _rewritten(folder / "model.safetensors", "F32", "BF16")
    file, _ = read_folder(folder)
    tensor = file.tensors["blk.0.attn_v.weight"]
    whole = tiny_llama.weights()["blk.0.attn_v.weight"]
    assert tensor.kind is Kind.BF16
    bits = tensor.data.view(np.uint16).astype(np.uint32) << np.uint32(16)
    np.testing.assert_allclose(bits.view(np.float32).reshape(whole.shape), whole, rtol=2**-7)
    export(folder, tmp_path / "model", Form("q8"))


def test_a_head_of_its_own_is_taken_unless_the_model_says_that_it_is_tied(tmp_path: Path) -> None:
    made = tiny_llama.weights(tied=False)
    folder = tiny_llama.write_hub_folder(tmp_path / "untied", made=made, config={"tie_word_embeddings": False})
    export(folder, tmp_path / "model", Form("f32", "float32"))
    expected = tiny_llama.reference_logits(made, IDS)
    np.testing.assert_allclose(Steps(tmp_path / "model").step(IDS)[0], expected, atol=2e-3)
    tied = tiny_llama.write_hub_folder(tmp_path / "tied", made=made)
    assert "output.weight" not in read_folder(tied)[0].tensors


def test_words_ends_and_template_come_along_and_the_model_loads(hub: Path, tmp_path: Path) -> None:
    manifest = export(hub, tmp_path / "model", Form("q8"))
    assert manifest["source"]["file"] == "model.safetensors"
    assert manifest["name"] == "hub-tiny"
    chat = json.loads((tmp_path / "model/chat_template.json").read_text())
    assert (chat["template"], chat["eos_ids"], chat["bos_id"]) == (tiny_llama.TEMPLATE, [2, 0], None)
    assert chat["special_tokens"] == {word: number for number, word in enumerate(tiny_llama.SPECIAL)}
    model = LanguageModel.load(open_folder(tmp_path / "model"), rows=1, length=64, threads=1)
    text = "the 12 in 你 🔥"
    assert model.vocabulary.decode(model.vocabulary.encode(text)) == text
    other = tiny_llama.write(tmp_path / "tiny.gguf")
    export(other, tmp_path / "gguf", Form("q8"))
    same = LanguageModel.load(open_folder(tmp_path / "gguf"), rows=1, length=64, threads=1)
    assert same.vocabulary.encode(text) == model.vocabulary.encode(text)


def test_newer_and_older_ways_to_say_the_same_are_understood(tmp_path: Path) -> None:
    rope = {"rope_theta": tiny_llama.ROPE_BASE, "rope_type": "default"}
    older = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32)}
    folder = tiny_llama.write_hub_folder(
        tmp_path / "hub", config={"rope_theta": None, "rope_parameters": rope}, more=older
    )
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    file, vocabulary = read_folder(folder)
    assert file.metadata["llama.rope.freq_base"] == tiny_llama.ROPE_BASE
    assert vocabulary.template == "{{ messages }}"


@pytest.mark.parametrize(
    ("own", "bos", "eos"),
    [
        ({}, "<|im_start|>", "<|im_end|>"),
        ({"bos_token": None, "eos_token": "<|endoftext|>"}, "", "<|endoftext|>"),
        ({"bos_token": {"content": "<|endoftext|>"}}, "<|endoftext|>", "<|im_end|>"),
        ({"bos_token": "<s>"}, "", "<|im_end|>"),
    ],
)
def test_the_template_is_given_the_tokens_that_the_tokenizer_names(
    hub: Path, own: dict[str, Any], bos: str, eos: str
) -> None:
    (hub / "tokenizer_config.json").write_text(json.dumps({"chat_template": tiny_llama.TEMPLATE} | own))
    chat = read_folder(hub)[1].chat()
    assert (chat["bos_id"], chat["bos_token"], chat["eos_token"]) == (None, bos, eos)
    (hub / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ bos_token }}", "bos_token": "<s>"}))
    with pytest.raises(ModelFileError, match="'<s>', which is no special token"):
        read_folder(hub)
    (hub / "tokenizer_config.json").write_text(json.dumps({"bos_token": 7}))
    with pytest.raises(ModelFileError, match="bos_token is no text"):
        read_folder(hub)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"model_type": "mistral"}, "'mistral' is not supported"),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, "scaled rotary"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "scaled rotary"),
        ({"rope_parameters": {"type": "linear", "factor": 2.0}}, "scaled rotary"),
        ({"rope_parameters": {"factor": 2.0}}, "scaled rotary"),
        ({"attention_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"num_attention_heads": "4"}, "head_count"),
        ({"num_attention_heads": 7}, "heads"),
        ({"num_attention_heads": 0}, "head_count"),
        ({"num_attention_heads": True}, "head_count"),
        ({"num_key_value_heads": "2"}, "head_count_kv"),
        ({"num_key_value_heads": 2.0}, "head_count_kv"),
        ({"num_key_value_heads": [2]}, "head_count_kv"),
        ({"num_key_value_heads": True}, "head_count_kv"),
        ({"rope_parameters": [1]}, "rope_parameters"),
        ({"rope_parameters": "x"}, "rope_parameters"),
        ({"rope_parameters": {"rope_type": []}}, "scaled rotary"),
        ({"rope_theta": 10**400}, "freq_base"),
        ({"rope_theta": True}, "freq_base"),
        ({"num_hidden_layers": 3}, "missing"),
        ({"num_hidden_layers": 1}, "unknown"),
        ({"hidden_size": 32}, "a head a multiple of 16"),
        ({"hidden_size": 128}, "shape"),
        ({"partial_rotary_factor": 0.5}, "rotated in part"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rotated in part"),
        ({"sliding_window": 4096}, "nearest tokens"),
        ({"eos_token_id": None}, "eos_token_id"),
        ({"eos_token_id": 10**9}, "none of the"),
        ({"eos_token_id": True}, "none of the"),
        ({"rms_norm_eps": "small"}, "layer_norm_rms_epsilon"),
        ({"vocab_size": 7}, "shape"),
    ],
    ids=str,
)
def test_a_configuration_that_is_no_plain_llama_is_refused(tmp_path: Path, config: dict[str, Any], text: str) -> None:
    folder = tiny_llama.write_hub_folder(tmp_path / "hub", config=config)
    with pytest.raises(ModelFileError, match=text):
        export(folder, tmp_path / "model", Form("q8"))
    assert not (tmp_path / "model").exists()


def test_weights_that_are_damaged_cut_short_or_of_another_kind_are_refused(hub: Path, tmp_path: Path) -> None:
    weights = hub / "model.safetensors"
    whole = weights.read_bytes()
    for content in (b"", whole[:7], whole[:200], whole[:-1], struct.pack("<Q", 2**62) + whole[8:], b"GGUF" * 100):
        weights.write_bytes(content)
        with pytest.raises(ModelFileError, match="fetch it again"):
            read_folder(hub)
    weights.write_bytes(whole)
    _rewritten(weights, "F32", "I32")
    with pytest.raises(ModelFileError, match="F32, F16, BF16 are read"):
        read_folder(hub)
    strange = tiny_llama.write_hub_folder(tmp_path / "b", more={"model.layers.0.self_attn.q_proj.bias": np.ones(64)})
    with pytest.raises(ModelFileError, match=r"q_proj\.bias"):
        export(strange, tmp_path / "model", Form("q8"))


@pytest.mark.parametrize(
    "name", ["blk.0.attn_v.weight", "model.layers.00.self_attn.v_proj.weight", "output.weight", "token_embd.weight"]
)
def test_no_tensor_stands_for_another_one(tmp_path: Path, name: str) -> None:
    more = {name: np.ones((32, 64), np.float32)}
    folder = tiny_llama.write_hub_folder(tmp_path / "hub", more=more)
    with pytest.raises(ModelFileError, match=name.replace(".", r"\.")):
        read_folder(folder)


def test_weights_that_no_gateway_could_hold_are_refused_before_they_are_read(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safetensors_folder, "MOST_WEIGHTS_BYTES", 1 << 10)
    with pytest.raises(ModelFileError, match="fits no gateway"):
        read_folder(hub)


def test_what_is_missing_or_split_is_named(hub: Path) -> None:
    for name in ("tokenizer_config.json", "tokenizer.json", "model.safetensors", "config.json"):
        (hub / name).unlink()
        with pytest.raises(NotFoundError, match=name):
            read_folder(hub)
    (hub / "config.json").write_text(json.dumps(tiny_llama.HUB_CONFIG))
    (hub / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ModelFileError, match="several files"):
        read_folder(hub)


def test_a_tokenizer_of_another_model_or_kind_is_refused(hub: Path) -> None:
    path = hub / "tokenizer.json"
    whole = json.loads(path.read_text())
    path.write_text(json.dumps(whole | {"decoder": {"type": "Metaspace"}}))
    with pytest.raises(ModelFileError, match="byte-level"):
        read_folder(hub)
    path.write_text(json.dumps(whole | {"added_tokens": whole["added_tokens"] + [
        {"id": 999, "content": "<more>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}]}))  # fmt: skip
    with pytest.raises(ModelFileError, match="of the model"):
        read_folder(hub)
    model = {**whole["model"], "vocab": {**whole["model"]["vocab"], "z": 99_999}}
    path.write_text(json.dumps(whole | {"model": model}))  # as many as there should be, one of them out of the table
    with pytest.raises(ModelFileError, match="of the model"):
        read_folder(hub)
    for decoder in (["ByteLevel"], "ByteLevel", None):
        path.write_text(json.dumps(whole | {"decoder": decoder}))
        with pytest.raises(ModelFileError, match="byte-level"):
            read_folder(hub)
    for content in ("[]", "{", '{"decoder": {"type": "ByteLevel"}}'):
        path.write_text(content)
        with pytest.raises(ModelFileError):
            read_folder(hub)


def _rewritten(path: Path, old: str, new: str) -> None:
    """Say of all tensors of a file that they are of another type; for BF16 their numbers are cut to it."""
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    made, at = bytearray(), 0
    for name in sorted((name for name in header if name != "__metadata__"), key=lambda n: header[n]["data_offsets"]):
        begin, end = header[name]["data_offsets"]
        data = body[begin:end]
        if new == "BF16":
            data = np.frombuffer(data, np.uint16)[1::2].tobytes()
        made += data
        assert header[name]["dtype"] == old
        header[name] |= {"dtype": new, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(made))
