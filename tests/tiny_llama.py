"""A Llama of two small layers as a GGUF file, written by the `gguf` package; what it must answer, by plain numpy."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf.constants import GGMLQuantizationType as Kind
from safetensors.numpy import save_file

from toolchain.tokenizer import vocabulary_of

LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD_DIM, CONTEXT = 2, 64, 96, 4, 2, 16, 128
ROPE_BASE, EPSILON = 10_000.0, 1e-5
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"

Array = npt.NDArray[Any]


def byte_letters() -> list[str]:
    """Return the letter that stands for each byte in byte-level vocabularies (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def letters_of(text: str) -> str:
    """Return a text's bytes as letters of the vocabulary."""
    letters = byte_letters()
    return "".join(letters[byte] for byte in text.encode())


def merges() -> list[tuple[str, str]]:
    """Return pairs that are joined, first things first; digits are among them, though `smollm` never lets them meet."""
    chinese, emoji = letters_of("你"), letters_of("🔥")
    return [
        ("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("Ġ", "in"), ("1", "2"), ("Ġ", "1"), ("'", "s"),
        (chinese[0], chinese[1]), (chinese[:2], chinese[2]), (emoji[0], emoji[1]), (emoji[:2], emoji[2]),
        ("<", "|"), ("i", "m"), ("Ġ", "Ġ"), ("a", "n"), ("an", "d"), ("Ġ", "and"),
    ]  # fmt: skip


def tokens() -> list[str]:
    """Return the vocabulary: special tokens, bytes, then what merges make."""
    return [*SPECIAL, *byte_letters(), *("".join(pair) for pair in merges())]


def metadata() -> dict[str, Any]:
    """Return what the file says of itself; a value None leaves its key out."""
    vocabulary = tokens()
    return {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.context_length": CONTEXT,
        "llama.rope.freq_base": ROPE_BASE,
        "llama.attention.layer_norm_rms_epsilon": EPSILON,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": vocabulary,
        "tokenizer.ggml.token_type": [3] * len(SPECIAL) + [1] * (len(vocabulary) - len(SPECIAL)),
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges()],
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": TEMPLATE,
    }


def weights(seed: int = 7, *, tied: bool = True) -> dict[str, Array]:
    """Return float32 weights by GGUF name, large enough that every part of the model matters."""
    random, vocab = np.random.default_rng(seed), len(tokens())
    shapes = {"token_embd": (vocab, WIDTH), "output_norm": (WIDTH,)} | ({} if tied else {"output": (vocab, WIDTH)})
    for layer in range(LAYERS):
        shapes |= {
            f"blk.{layer}.{name}": shape
            for name, shape in {
                "attn_norm": (WIDTH,), "attn_q": (HEADS * HEAD_DIM, WIDTH), "attn_k": (KV_HEADS * HEAD_DIM, WIDTH),
                "attn_v": (KV_HEADS * HEAD_DIM, WIDTH), "attn_output": (WIDTH, HEADS * HEAD_DIM), "ffn_norm": (WIDTH,),
                "ffn_gate": (FEED_FORWARD, WIDTH), "ffn_up": (FEED_FORWARD, WIDTH), "ffn_down": (WIDTH, FEED_FORWARD),
            }.items()
        }  # fmt: skip
    made = {f"{name}.weight": random.standard_normal(shape) for name, shape in shapes.items()}
    return {n: (0.25 * w if w.ndim > 1 else 1 + 0.1 * w).astype(np.float32) for n, w in made.items()}


def write(
    path: Path, *, changes: Mapping[str, Any] | None = None, kinds: Mapping[str, Kind] | None = None,
    made: Mapping[str, Array] | None = None,
) -> Path:  # fmt: skip
    """Write a model and return its path: layers as Q4_1, the embedding as Q8_0, unless `kinds` names others."""
    writer = gguf.GGUFWriter(path, "unused")
    writer.kv_data[0].clear()
    for key, value in {**metadata(), **(changes or {})}.items():
        _add(writer, key, value)
    for name, weight in (weights() if made is None else made).items():
        kind = (kinds or {}).get(name, (Kind.Q8_0 if "blk" not in name else Kind.Q4_1) if weight.ndim > 1 else Kind.F32)
        writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    match value:
        case None:
            return
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_int64(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def dequantised(path: Path) -> dict[str, Array]:
    """Return a file's weights as float32, by the `gguf` package alone."""
    reader = gguf.GGUFReader(path)
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}


def reference_logits(
    made: Mapping[str, Array], ids: Sequence[int], *, layers: int = LAYERS, heads: int = HEADS,
    kv_heads: int = KV_HEADS, rope_base: float = ROPE_BASE, epsilon: float = EPSILON,
) -> Array:  # fmt: skip
    """Return logits (tokens, vocab) of a Llama in float64; GGUF's weights rotate neighbouring numbers.

    Source: Touvron et al. 2023 (arXiv 2302.13971); ggml's GGML_ROPE_TYPE_NORMAL.
    """
    real = {name: weight.astype(np.float64) for name, weight in made.items()}
    stream = real["token_embd.weight"][list(ids)]
    for layer in range(layers):
        part = {name.split(".")[2]: w for name, w in real.items() if name.startswith(f"blk.{layer}.")}
        normed = _normed(stream, part["attn_norm"], epsilon)
        query, key, value = (
            (normed @ part[name].T).reshape(len(ids), count, -1).swapaxes(0, 1)
            for name, count in (("attn_q", heads), ("attn_k", kv_heads), ("attn_v", kv_heads))
        )
        query, key = _rotated(query, rope_base), _rotated(key, rope_base)
        key, value = (np.repeat(x, heads // kv_heads, axis=0) for x in (key, value))
        scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
        scores[:, np.triu(np.ones((len(ids), len(ids)), bool), 1)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        read = (shares / shares.sum(-1, keepdims=True)) @ value
        stream = stream + read.swapaxes(0, 1).reshape(len(ids), -1) @ part["attn_output"].T
        normed = _normed(stream, part["ffn_norm"], epsilon)
        gate = normed @ part["ffn_gate"].T
        stream = stream + (gate / (1 + np.exp(-gate)) * (normed @ part["ffn_up"].T)) @ part["ffn_down"].T
    head = real.get("output.weight", real["token_embd.weight"])
    logits: Array = _normed(stream, real["output_norm.weight"], epsilon) @ head.T
    return logits


def _normed(stream: Array, weight: Array, epsilon: float) -> Array:
    normed: Array = stream / np.sqrt((stream**2).mean(-1, keepdims=True) + epsilon) * weight
    return normed


def _rotated(heads: Array, base: float) -> Array:
    """Return (heads, tokens, dim) turned by their position, each even number with the odd one behind it."""
    half = heads.shape[-1] // 2
    angles = np.outer(np.arange(heads.shape[1]), base ** (-np.arange(half) / half))
    pairs = (heads[..., 0::2] + 1j * heads[..., 1::2]) * np.exp(1j * angles)
    return np.stack([pairs.real, pairs.imag], -1).reshape(heads.shape)


HUB_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
HUB_CONFIG: dict[str, Any] = {
    "model_type": "llama", "num_hidden_layers": LAYERS, "hidden_size": WIDTH, "intermediate_size": FEED_FORWARD,
    "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "max_position_embeddings": CONTEXT,
    "rms_norm_eps": EPSILON, "rope_theta": ROPE_BASE, "hidden_act": "silu", "tie_word_embeddings": True,
    "vocab_size": len(tokens()), "eos_token_id": [2, 0], "bos_token_id": 1,
}  # fmt: skip


def hub_weights(made: Mapping[str, Array]) -> dict[str, Array]:
    """Return weights under the names of a model hub, where what is rotated together lies half a head apart."""
    found = {}
    for name, weight in made.items():
        parts = name.split(".")
        if parts[0] != "blk":
            found[{"token_embd": "model.embed_tokens", "output_norm": "model.norm"}.get(parts[0], "lm_head")] = weight
            continue
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(parts[2])
        if heads:
            pairs = weight.reshape(heads, HEAD_DIM // 2, 2, -1)
            weight = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)
        found[f"model.layers.{parts[1]}.{HUB_NAMES[parts[2]]}"] = weight
    return {f"{name}.weight": weight for name, weight in found.items()}


def write_hub_folder(
    folder: Path, *, made: Mapping[str, Array] | None = None, config: Mapping[str, Any] | None = None,
    more: Mapping[str, Array] | None = None,
) -> Path:  # fmt: skip
    """Write the same model as a safetensors folder and return it; `config` changes keys, None leaves one out."""
    folder.mkdir(parents=True)
    found = {key: value for key, value in {**HUB_CONFIG, **(config or {})}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(found))
    vocabulary = vocabulary_of(metadata(), len(tokens()))
    vocabulary.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE, "add_bos_token": False}))
    weights_made = hub_weights(weights() if made is None else made)
    save_file({**weights_made, **(more or {})}, str(folder / "model.safetensors"))
    return folder
