"""A model is taken when its numbers and its tensors agree, and refused with their names when they do not."""

from pathlib import Path

import numpy as np
import pytest

from edgeagents.errors import ModelFileError
from tests import tiny_llama
from toolchain.gguf_file import read_gguf
from toolchain.llama_shape import LlamaShape, llama_shape


def test_the_shape_is_what_the_file_says(tmp_path: Path) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf")
    found = llama_shape(read_gguf(path))
    assert found == LlamaShape(
        layers=2, width=64, feed_forward=96, heads=4, kv_heads=2, head_dim=16, vocab=len(tiny_llama.tokens()),
        context=128, rope_base=10_000.0, norm_epsilon=float(np.float32(1e-5)),
    )  # fmt: skip
    assert found.qkv_rows == 128


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("general.architecture", "mamba"),
        ("general.architecture", None),
        ("llama.block_count", -1),
        ("llama.block_count", 10**9),
        ("llama.block_count", "2"),
        ("llama.block_count", 3),
        ("llama.embedding_length", 0),
        ("llama.embedding_length", 32),
        ("llama.attention.head_count", None),
        ("llama.attention.head_count", True),
        ("llama.attention.head_count_kv", 3),
        ("llama.attention.key_length", 12),
        ("llama.rope.dimension_count", 8),
        ("llama.context_length", 1 << 40),
        ("llama.rope.freq_base", -1.0),
        ("llama.rope.freq_base", float("nan")),
        ("llama.rope.scaling.type", "yarn"),
        ("llama.rope.scaling.factor", 4.0),
        ("llama.rope.scaling.factor", float("nan")),
        ("llama.rope.scaling.factor", "4"),
        ("llama.rope.scaling.attn_factor", 1.5),
        ("llama.rope.scale_linear", 2.0),
        ("llama.rope.scale_linear", 2),
        ("llama.expert_count", 8),
        ("llama.attention.layer_norm_rms_epsilon", float("inf")),
        ("llama.vocab_size", 10),
    ],
)
def test_metadata_that_cannot_be_or_does_not_fit_is_refused(tmp_path: Path, key: str, value: object) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf", changes={key: value})
    with pytest.raises(ModelFileError):
        llama_shape(read_gguf(path))


@pytest.mark.parametrize("key", ["llama.rope.scaling.factor", "llama.rope.scale_linear"])
@pytest.mark.parametrize("value", [0.0, 1.0, 1])
def test_a_scale_that_changes_nothing_is_none(tmp_path: Path, key: str, value: float) -> None:
    path = tiny_llama.write(tmp_path / "tiny.gguf", changes={key: value, "llama.rope.scaling.type": "none"})
    assert llama_shape(read_gguf(path)).layers == tiny_llama.LAYERS


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("blk.1.ffn_up.weight", None, "missing: .'blk.1.ffn_up.weight'"),
        ("blk.0.attn_q.bias", (64,), "unknown: .'blk.0.attn_q.bias'"),
        ("rope_freqs.weight", (8,), "unknown: .'rope_freqs.weight'"),
        ("blk.0.ffn_down.weight", (96, 64), r"shape \(96, 64\), \(64, 96\) is needed"),
        ("output.weight", (5, 64), "output.weight"),
    ],
)
def test_tensors_that_are_missing_unknown_or_misshapen_are_named(
    tmp_path: Path, name: str, shape: tuple[int, ...] | None, text: str
) -> None:
    made = tiny_llama.weights()
    if shape is None:
        del made[name]
    else:
        made[name] = np.zeros(shape, np.float32)
    with pytest.raises(ModelFileError, match=text):
        llama_shape(read_gguf(tiny_llama.write(tmp_path / "tiny.gguf", made=made)))
