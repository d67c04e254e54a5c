"""A folder as model hubs publish it (config.json, model.safetensors, tokenizer.json) becomes what a GGUF file gives.

The same tensors under GGUF's names, in GGUF's order of rows, and the same metadata: all that follows is one way for
both. The package `safetensors` checks a file's header (offsets, sizes, overlaps) before it hands out a byte; here
names, types and numbers are held against what a plain Llama has, in `llama_shape.py`.

Left out on purpose: weights split over several files (no gateway runs a model of that size), quantised types,
tokenizers that are not byte-level, custom code.

Source: safetensors format; Hugging Face transformers, LlamaConfig; llama.cpp, convert_hf_to_gguf.py.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors
from gguf.constants import GGMLQuantizationType as Kind
from tokenizers import Tokenizer

from edgeagents.errors import ModelFileError, NotFoundError
from edgeagents.inference.language import PROBE
from edgeagents.inference.vocabulary import panics_told
from toolchain.gguf_file import GgufFile, Tensor
from toolchain.llama_shape import int_of
from toolchain.tokenizer import Vocabulary, given, is_special

WEIGHTS: Final = "model.safetensors"
MOST_WEIGHTS_BYTES: Final = 4 << 30  # they are in memory twice while they are read
MOST_TEXT_BYTES: Final = 64 << 20  # of a tokenizer or a configuration
KINDS: Final[Mapping[str, tuple[Kind, int]]] = {"F32": (Kind.F32, 4), "F16": (Kind.F16, 2), "BF16": (Kind.BF16, 2)}
_LAYER: Final = re.compile(r"model\.layers\.(0|[1-9]\d{0,3})\.(.+)\.weight")
_OF_LAYER: Final = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
_ALONE: Final = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}  # fmt: skip
_NUMBERS: Final = {
    "num_hidden_layers": "block_count", "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length", "max_position_embeddings": "context_length", "vocab_size": "vocab_size",
}  # fmt: skip


def weights_of(source: Path) -> Path:
    """Return the file of weights of a folder, or of a path to it."""
    return source / WEIGHTS if source.is_dir() else source


def read_folder(source: Path) -> tuple[GgufFile, Vocabulary]:
    """Return metadata and tensors as a GGUF file has them, and the vocabulary.

    Args:
        source: the folder, or its file of weights.

    Raises:
        NotFoundError: one of its files is missing.
        ModelFileError: damaged, of another architecture, or holding what is not imported.
    """
    weights = weights_of(source)
    folder = weights.parent
    if (folder / f"{WEIGHTS}.index.json").exists() and not weights.exists():
        raise ModelFileError(f"{folder}: its weights lie in several files: a model of that size fits no gateway")
    config = _json(folder / "config.json")
    metadata = _metadata(config)
    heads = int_of(metadata, "llama.attention.head_count", most=1024)
    kv_heads = int_of(metadata, "llama.attention.head_count_kv", most=1024, default=heads)
    tensors = _tensors(weights, heads, kv_heads)
    if config.get("tie_word_embeddings") is True:
        tensors.pop("output.weight", None)  # some are stored twice
    embedding = tensors.get("token_embd.weight")
    file = GgufFile(metadata, tensors)
    return file, _vocabulary(folder, config, embedding.shape[0] if embedding is not None else 0)


# --- numbers ---------------------------------------------------------------------------------------


def _metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration in GGUF's words; `llama_shape` judges the numbers."""
    if config.get("model_type") != "llama":
        raise ModelFileError(f"model_type {config.get('model_type')!r} is not supported: only 'llama' is")
    rope = config.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise ModelFileError("config.json: rope_parameters is no object")
    is_scaled = bool(config.get("rope_scaling")) or rope.get("rope_type", rope.get("type", "default")) != "default"
    if is_scaled or config.get("attention_bias") or config.get("mlp_bias"):
        raise ModelFileError("scaled rotary embeddings and biases are not supported: take a plain Llama-type model")
    part = config.get("partial_rotary_factor", rope.get("partial_rotary_factor"))
    if part not in (None, 1) or (config.get("sliding_window") and config.get("use_sliding_window") is not False):
        raise ModelFileError("heads rotated in part and attention to the nearest tokens alone are not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ModelFileError(f"hidden_act {config['hidden_act']!r} is not supported: only 'silu' is")
    found: dict[str, Any] = {"general.architecture": "llama"}
    for theirs, ours in _NUMBERS.items():
        if config.get(theirs) is not None:
            found[f"llama.{ours}"] = config[theirs]
    for theirs, ours in (("rms_norm_eps", "attention.layer_norm_rms_epsilon"), ("rope_theta", "rope.freq_base")):
        value = config.get(theirs, rope.get(theirs))
        # A whole number is as good; beyond every sensible one it stays as it is, and is refused with the others.
        is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 53
        if value is not None:
            found[f"llama.{ours}"] = float(value) if is_whole else value
    if rope.get("factor") is not None:  # without a type, too
        found["llama.rope.scaling.factor"] = rope["factor"]
    return found


# --- weights ---------------------------------------------------------------------------------------


def _tensors(path: Path, heads: int, kv_heads: int) -> dict[str, Tensor]:
    _check_size(path)
    try:
        found = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except FileNotFoundError as error:
        raise NotFoundError(f"no model file {path}: is the path right?") from error
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from error
    except safetensors.SafetensorError as error:
        raise ModelFileError(f"{path} is damaged or no safetensors file: {error}; fetch it again") from error
    tensors: dict[str, Tensor] = {}
    for name, entry in found:
        ours = _named(name)
        if not ours:
            continue
        if ours in tensors:
            raise ModelFileError(f"tensor {name!r} is there twice")
        tensor = _tensor(name, entry)
        if ours.endswith(("attn_q.weight", "attn_k.weight")):
            tensor = _paired(tensor, heads if "attn_q" in ours else kv_heads, name)
        tensors[ours] = tensor
    return tensors


def _check_size(path: Path) -> None:
    """Return if a file may be read into memory at once."""
    size = path.stat().st_size if path.is_file() else 0
    if size > MOST_WEIGHTS_BYTES:
        raise ModelFileError(f"{path}: {size >> 20} MiB: a model above {MOST_WEIGHTS_BYTES >> 20} MiB fits no gateway")


def _named(name: str) -> str:
    """Return GGUF's name of a tensor; empty for what older files hold and nobody needs."""
    if name in _ALONE:
        return _ALONE[name]
    layer = _LAYER.fullmatch(name)
    if layer and layer[2] in _OF_LAYER:
        return f"blk.{layer[1]}.{_OF_LAYER[layer[2]]}.weight"
    if name.endswith("rotary_emb.inv_freq"):
        return ""
    # Never under a name of ours: it would stand for another tensor.
    raise ModelFileError(f"tensor {name!r} is unknown: this is no plain Llama model")


def _tensor(name: str, entry: Mapping[str, Any]) -> Tensor:
    kind, size = KINDS.get(entry["dtype"], (None, 0))
    shape = tuple(entry["shape"])
    if kind is None or not 1 <= len(shape) <= 2 or min(shape) < 1:
        raise ModelFileError(f"tensor {name!r} of type {entry['dtype']} and shape {shape}: F32, F16, BF16 are read")
    rows = shape[0] if len(shape) == 2 else 1
    return Tensor(kind, shape, np.frombuffer(entry["data"], np.uint8).reshape(rows, shape[-1] * size))


def _paired(tensor: Tensor, heads: int, name: str) -> Tensor:
    """Return query or key rows as GGUF has them: the two numbers that are rotated together beside each other."""
    rows = tensor.shape[0]
    if heads < 1 or rows % (2 * heads):
        raise ModelFileError(f"tensor {name!r} has {rows} rows, which are not {heads} heads of an even size")
    data = tensor.data.reshape(heads, 2, rows // heads // 2, -1).swapaxes(1, 2).reshape(rows, -1)
    return Tensor(tensor.kind, tensor.shape, data)


# --- words -----------------------------------------------------------------------------------------


def _vocabulary(folder: Path, config: Mapping[str, Any], size: int) -> Vocabulary:
    path = folder / "tokenizer.json"
    description = _json(path)
    decoder = description.get("decoder")
    if not isinstance(decoder, dict) or decoder.get("type") != "ByteLevel":
        raise ModelFileError(f"{path}: only byte-level tokenizers are supported")
    own, generation = _json(folder / "tokenizer_config.json"), _json(folder / "generation_config.json", needed=False)
    ends, template = _ids(generation.get("eos_token_id", config.get("eos_token_id")), size), _template(folder, own)
    bos, pad = _ids(config.get("bos_token_id"), size), _ids(config.get("pad_token_id"), size)
    _keep_from_texts(description, {*ends, *bos}, template)
    try:
        with panics_told():
            tokenizer = Tokenizer.from_str(json.dumps(description))
            tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False).ids)
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelFileError(f"{path}: not a tokenizer: {str(error)[:200]}") from error
    if sorted(tokenizer.get_vocab().values()) != list(range(size)):
        raise ModelFileError(f"{path}: its {tokenizer.get_vocab_size()} tokens are not the {size} of the model")
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    if not ends:
        raise ModelFileError(f"{folder}: eos_token_id is missing: nothing would end an answer")
    wants_bos = own.get("add_bos_token") is True
    return Vocabulary(
        tokenizer, template, special, ends, bos[0] if bos and wants_bos else None, pad[0] if pad else None,
        given("bos_token", _word(own, "bos_token", tokenizer, bos), special, template),
        given("eos_token", _word(own, "eos_token", tokenizer, ends), special, template),
    )  # fmt: skip


def _keep_from_texts(description: Mapping[str, Any], ids: Collection[int], template: str) -> None:
    """Make special, in place, what ends an answer or parts a conversation: other added tokens are found in texts."""
    added = description.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict) and isinstance(word := token.get("content"), str):
            token["special"] = bool(token.get("special")) or token.get("id") in ids or is_special(word, template)


def _word(own: Mapping[str, Any], name: str, tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """Return a token's text as the tokenizer's configuration has it, else that of the model's first one."""
    if name not in own:
        return str(tokenizer.id_to_token(ids[0])) if ids else ""
    said = own[name]
    word = said.get("content") if isinstance(said, dict) else said
    if not isinstance(word, str | None):
        raise ModelFileError(f"tokenizer_config.json: {name} is no text")
    return word or ""


def _ids(value: object, size: int) -> tuple[int, ...]:
    """Return the tokens that a configuration names: one, several or none."""
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(number, int) and not isinstance(number, bool) and 0 <= number < size for number in found):
        raise ModelFileError(f"token {value!r} is none of the {size} that the model has")
    return tuple(dict.fromkeys(found))


def _template(folder: Path, own: Mapping[str, Any]) -> str:
    alone = folder / "chat_template.jinja"
    if alone.is_file():
        return _text(alone)
    template = own.get("chat_template", "")
    if not isinstance(template, str):
        raise ModelFileError(f"{folder}/tokenizer_config.json: chat_template is no text")
    return template


def _json(path: Path, *, needed: bool = True) -> dict[str, Any]:
    if not needed and not path.exists():
        return {}
    try:
        found = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: no JSON: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise ModelFileError(f"{path}: no JSON object")
    return found


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_TEXT_BYTES:
            raise ModelFileError(f"{path}: larger than {MOST_TEXT_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}: a model folder has config.json, {WEIGHTS}, tokenizer.json") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path} cannot be read: {error}") from error
