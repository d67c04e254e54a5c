"""How a Llama-type model is built, read from a GGUF file's metadata and held against its tensors.

Left out on purpose: scaled rotary embeddings, mixtures of experts, biases; a model with them is refused, never imported
without them.

Source: GGUF specification, section "Standardized key-value pairs"; Touvron et al. 2023 (arXiv 2302.13971).
"""

from dataclasses import dataclass
from typing import Any

from edgeagents.errors import ModelFileError
from toolchain.gguf_file import GgufFile

MOST = 1 << 20  # no dimension of a model that a gateway runs is above this
MOST_CONTEXT = 1 << 17  # its table of rotations must fit a gateway
SCALES = ("llama.rope.scaling.factor", "llama.rope.scale_linear", "llama.rope.scaling.attn_factor")  # with no type, too
USUAL = {"llama.attention.causal": True, "llama.attention.sliding_window": 0, "llama.logit_scale": 0.0}
UNSCALED = (1, 0)  # 0: none is given
HEAD_STEP = 16  # the attention kernel takes head sizes in steps of 16


@dataclass(frozen=True)
class LlamaShape:
    """The sizes and constants of one model; `width` is the residual stream, `context` in tokens."""

    layers: int
    width: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    rope_base: float
    norm_epsilon: float

    @property
    def qkv_rows(self) -> int:
        """Rows of the joined projection: all query heads, then key heads, then value heads."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    def layer_tensors(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Return the name and the shape of each tensor of a layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "attn_norm": (self.width,),
            "attn_q": (queries, self.width),
            "attn_k": (keys, self.width),
            "attn_v": (keys, self.width),
            "attn_output": (self.width, queries),
            "ffn_norm": (self.width,),
            "ffn_gate": (self.feed_forward, self.width),
            "ffn_up": (self.feed_forward, self.width),
            "ffn_down": (self.width, self.feed_forward),
        }
        return {f"blk.{layer}.{name}.weight": shape for name, shape in shapes.items()}

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the name and the shape of every tensor but the head, which may be tied to the embedding."""
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (self.vocab, self.width),
            "output_norm.weight": (self.width,),
        }
        for layer in range(self.layers):
            shapes |= self.layer_tensors(layer)
        return shapes


def llama_shape(file: GgufFile) -> LlamaShape:
    """Return the shape of the model in a file, every tensor of which was seen to fit it.

    Raises:
        ModelFileError: another architecture, absurd numbers, a missing, unknown or misshapen tensor.
    """
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise ModelFileError(f"architecture {architecture!r} is not supported: only 'llama' is")
    is_scaled = file.metadata.get("llama.rope.scaling.type", "none") != "none" or any(
        file.metadata.get(key, UNSCALED[0]) not in UNSCALED for key in SCALES
    )
    if is_scaled or "llama.expert_count" in file.metadata:
        raise ModelFileError("scaled rotary embeddings and experts are not supported: take a plain Llama-type model")
    if any(file.metadata.get(key, usual) != usual for key, usual in USUAL.items()):
        raise ModelFileError(f"{', '.join(USUAL)}: a model that sets one of them is not supported")
    shape = _read(file.metadata, file)
    _check_heads(shape, int_of(file.metadata, "llama.rope.dimension_count", default=shape.head_dim))
    _check_tensors(file, shape)
    return shape


def int_of(metadata: dict[str, Any], key: str, *, least: int = 1, most: int = MOST, default: int | None = None) -> int:
    """Return a whole number of the metadata, from `least` to `most`; ModelFileError when it is none or not there."""
    value = metadata.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ModelFileError(f"{key} is {value!r}: a whole number from {least} to {most} is needed")
    return value


def float_of(metadata: dict[str, Any], key: str, *, most: float, default: float | None = None) -> float:
    """Return a number of the metadata above 0 and up to `most`; ModelFileError when it is none or not there."""
    value = metadata.get(key, default)
    if not isinstance(value, float) or not 0 < value <= most:
        raise ModelFileError(f"{key} is {value!r}: a number above 0 and up to {most:g} is needed")
    return value


def _read(metadata: dict[str, Any], file: GgufFile) -> LlamaShape:
    width = int_of(metadata, "llama.embedding_length")
    heads = int_of(metadata, "llama.attention.head_count", most=1024)
    embedding = file.tensors.get("token_embd.weight")
    rows = embedding.shape[0] if embedding else None
    return LlamaShape(
        layers=int_of(metadata, "llama.block_count", most=512),
        width=width,
        feed_forward=int_of(metadata, "llama.feed_forward_length"),
        heads=heads,
        kv_heads=int_of(metadata, "llama.attention.head_count_kv", most=1024, default=heads),
        head_dim=int_of(metadata, "llama.attention.key_length", most=1024, default=width // heads),
        vocab=int_of(metadata, "llama.vocab_size", most=1 << 24, default=rows),
        context=int_of(metadata, "llama.context_length", most=MOST_CONTEXT),
        rope_base=float_of(metadata, "llama.rope.freq_base", most=1e12, default=10_000.0),
        norm_epsilon=float_of(metadata, "llama.attention.layer_norm_rms_epsilon", most=0.1),
    )


def _check_heads(shape: LlamaShape, rotated: int) -> None:
    if shape.heads % shape.kv_heads or shape.head_dim % HEAD_STEP or rotated != shape.head_dim:
        raise ModelFileError(
            f"{shape.heads} heads over {shape.kv_heads} key heads of {shape.head_dim}, {rotated} of it rotated: heads "
            f"must be a multiple of key heads, a head a multiple of {HEAD_STEP} and rotated as a whole"
        )


def _check_tensors(file: GgufFile, shape: LlamaShape) -> None:
    expected = shape.tensors()
    if "output.weight" in file.tensors:
        expected["output.weight"] = (shape.vocab, shape.width)
    missing = sorted(expected.keys() - file.tensors.keys())
    unknown = sorted(file.tensors.keys() - expected.keys())
    if missing or unknown:
        raise ModelFileError(f"tensors missing: {missing[:5]}, unknown: {unknown[:5]}: this is no plain Llama model")
    for name, wanted in expected.items():
        if file.tensors[name].shape != wanted:
            raise ModelFileError(f"tensor {name!r} has the shape {file.tensors[name].shape}, {wanted} is needed")
