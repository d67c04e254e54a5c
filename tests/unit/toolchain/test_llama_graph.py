"""The graphs answer what a plain numpy Llama answers, however a prompt is cut and whoever shares its batch."""

from pathlib import Path

import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Kind

from tests import tiny_llama
from tests.llama_steps import Steps
from toolchain.block_matrix import Quantise, quantised
from toolchain.export import Activations, Form, export

PROMPT = [5, 80, 33, 200, 7, 7, 250, 61, 100, 3, 0, 91]
OTHER = [9, 40, 260, 11, 2]


def folder_of(path: Path, quantise: Quantise = "exact", activations: Activations = "float32") -> Path:
    """Return a folder with the model of a GGUF file."""
    export(path, path.parent / "model", Form(quantise, activations))
    return path.parent / "model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the usual model with exact weights and exact activations."""
    return folder_of(tiny_llama.write(tmp_path / "tiny.gguf"))


@pytest.mark.parametrize("quantise", ["exact", "f32"])
@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1, Kind.Q8_0, Kind.F32, Kind.F16])
def test_logits_are_those_of_a_plain_llama_with_the_files_weights(
    tmp_path: Path, kind: Kind, quantise: Quantise
) -> None:
    kinds = {name: kind for name, weight in tiny_llama.weights().items() if weight.ndim > 1 and "blk" in name}
    path = tiny_llama.write(tmp_path / "tiny.gguf", kinds=kinds)
    logits = Steps(folder_of(path, quantise)).step(PROMPT)[0]
    expected = tiny_llama.reference_logits(tiny_llama.dequantised(path), PROMPT)
    assert expected.std() > 0.5
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_layers_of_mixed_kinds_and_a_head_of_its_own_are_exact_too(tmp_path: Path) -> None:
    kinds = {"blk.0.attn_v.weight": Kind.Q8_0, "blk.1.ffn_up.weight": Kind.Q4_0, "token_embd.weight": Kind.F16}
    made = tiny_llama.weights(tied=False)
    path = tiny_llama.write(tmp_path / "tiny.gguf", kinds=kinds, made=made)
    logits = Steps(folder_of(path)).step(PROMPT)[0]
    expected = tiny_llama.reference_logits(tiny_llama.dequantised(path), PROMPT)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize(("quantise", "bits"), [("q4", 4), ("q8", 8)])
def test_a_second_quantisation_answers_as_its_own_weights_do(tmp_path: Path, quantise: Quantise, bits: int) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf")
    logits = Steps(folder_of(path, quantise)).step(PROMPT)[0]
    made = tiny_llama.dequantised(path)
    rounded = {n: quantised(w, bits).real() if w.ndim > 1 and "blk" in n else w for n, w in made.items()}
    np.testing.assert_allclose(logits, tiny_llama.reference_logits(rounded, PROMPT), atol=0.01 if bits == 8 else 1e-4)
    assert np.abs(logits - tiny_llama.reference_logits(made, PROMPT)).max() > 0.01


def test_activations_of_eight_bits_stay_close(tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf")
    logits = Steps(folder_of(path, activations="int8")).step(PROMPT)[0]
    expected = tiny_llama.reference_logits(tiny_llama.dequantised(path), PROMPT)
    error = np.sqrt(((logits - expected) ** 2).mean()) / expected.std()
    assert 0.001 < error < 0.05


def test_a_prompt_in_chunks_gives_what_it_gives_in_one_piece(folder: Path) -> None:
    whole, chunked = Steps(folder).step(PROMPT)[0], Steps(folder)
    pieces = [chunked.step(piece)[0] for piece in (PROMPT[:5], PROMPT[5:6], PROMPT[6:])]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=1e-5)


def test_rows_of_different_lengths_give_what_each_gives_alone(folder: Path) -> None:
    together, alone, other = Steps(folder, rows=2), Steps(folder), Steps(folder)
    for mine, theirs in ((PROMPT[:4], OTHER[:2]), (PROMPT[4:5], OTHER[2:]), (PROMPT[5:], [])):
        logits = together.step(mine, theirs)
        np.testing.assert_allclose(logits[0, : len(mine)], alone.step(mine)[0], atol=1e-5)
        if theirs:
            np.testing.assert_allclose(logits[1, : len(theirs)], other.step(theirs)[0], atol=1e-5)
    np.testing.assert_allclose(together.step([], [17])[1, 0], other.step([17])[0, 0], atol=1e-5)


def test_the_graph_of_one_position_gives_the_logits_of_the_last_token_of_each_row(folder: Path) -> None:
    every, last = Steps(folder, rows=2), Steps(folder, "model.onnx", rows=2)
    for rows in ((PROMPT, OTHER), ([8], [9])):
        logits, wanted = every.step(*rows), last.step(*rows)
        assert wanted.shape == (2, 1, len(tiny_llama.tokens()))
        expected = np.stack([logits[row, [len(ids) - 1]] for row, ids in enumerate(rows)])
        np.testing.assert_allclose(wanted, expected, atol=1e-5)
