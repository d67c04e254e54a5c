"""A language model in memory: its vocabulary, its graph, and rows of key-value memory that tokens are computed into.

A row is the memory of one text that is being written. Its keys and values lie in one buffer that the graph reads and
extends in place, so nothing is copied between tokens; the rows in use are always the first ones, so that a step for
`n` texts is one run over the first `n` rows. Copying a row, or a part of one, costs 45 KiB a token for SmolLM2-135M.

onnxruntime multiplies one row of activations by 4-bit weights in another order than several rows, so what a text says
could hang on how many others are written with it. A steady decoder never writes a token of one row alone: an idle
one goes along. That costs some speed where only one text is written, and makes decisions repeatable. Attention, too,
reads one token in another order than several: no piece of a prompt is one token (`prefix.py`).

Source: onnxruntime contrib operator GroupQueryAttention, past and present in one buffer; IO binding.
"""

import json
import math
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from edgeagents.errors import InvalidInputError, TooLargeError, UnavailableError
from edgeagents.inference import machine
from edgeagents.inference.folder import ModelFolder
from edgeagents.inference.session import ORT_ERRORS, Port, Session
from edgeagents.inference.vocabulary import METADATA, panics_told, vocabulary_digest

Floats: TypeAlias = npt.NDArray[np.float32]
Block: TypeAlias = Floats  # keys and values of some tokens of a row: (layers, 2, kv_heads, tokens, head_dim)
CONFIG: Final = "config.json"
TOKENIZER: Final = "tokenizer.json"
MOST_ROWS: Final = 16
PROBE: Final = "On 21.5 °C, 开"  # a tokenizer that is damaged may load, and fail at its first text
_LONG: Final = 4096  # characters: some milliseconds of work


class LanguageConfig(BaseModel):
    """What a runtime must know of a Llama-type model's shape."""

    model_config = ConfigDict(frozen=True)

    layers: int = Field(gt=0, le=512)
    kv_heads: int = Field(gt=0, le=512)
    head_dim: int = Field(gt=0, le=1024)
    vocab: int = Field(gt=0, le=1 << 20)
    context: int = Field(gt=0, le=1 << 20)
    eos_ids: tuple[int, ...] = Field(min_length=1)

    @property
    def token_bytes(self) -> int:
        """Return how long the keys and values of one token are."""
        return self.layers * 2 * self.kv_heads * self.head_dim * 4


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Text to tokens and back."""

    tokenizer: Tokenizer

    @classmethod
    def of(cls, folder: ModelFolder, size: int) -> Self:
        """Return the vocabulary of a model.

        Raises:
            InvalidInputError: it cannot be read or takes no text, or its tokens are not numbered as the model's rows.
        """
        file = folder.file(TOKENIZER)
        try:
            with panics_told():
                tokenizer = Tokenizer.from_file(str(file))
                tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False).ids)
        except Exception as error:  # tokenizers raises bare Exception
            raise InvalidInputError(f"{file}: not a tokenizer: {str(error)[:200]}") from error
        if sorted(tokenizer.get_vocab().values()) != list(range(size)):
            raise InvalidInputError(
                f"{file}: knows {tokenizer.get_vocab_size()} tokens, not 0 to {size - 1} as the model: it is another "
                "model's"
            )
        # How a text was once cut, filled up or parted by chance for training is no way to read one.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if getattr(tokenizer.model, "dropout", None) is not None:
            tokenizer.model.dropout = None
        tokenizer.encode_special_tokens = True
        return cls(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of plain text: what reads like a special token in it is text like any other.

        Raises:
            InvalidInputError: the tokenizer cannot take it.
        """
        try:
            with panics_told():
                # `encode` lets no other thread run, for many seconds of a megabyte; `encode_batch` does.
                if len(text) > _LONG:
                    return list(self.tokenizer.encode_batch([text], add_special_tokens=False)[0].ids)
                return list(self.tokenizer.encode(text, add_special_tokens=False).ids)
        except Exception as error:  # tokenizers raises bare Exception
            raise InvalidInputError(f"the model's tokenizer cannot take this text: {str(error)[:200]}") from error

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens, special ones left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))


class Decoder:
    """A graph and the memory of its rows. One thread at a time."""

    def __init__(
        self, session: Session, config: LanguageConfig, *, rows: int = 4, length: int = 2048, steady: bool = True
    ) -> None:
        """Set memory aside; what is not used of it costs nothing.

        Args:
            session: the loaded graph.
            config: its shape.
            rows: texts at once, 1 to `MOST_ROWS`.
            length: tokens of a row at most, prompt and answer together.
            steady: what follows a text is the same whatever else is written.

        Raises:
            InvalidInputError: the graph is not one of a language model of this shape.
            TooLargeError: `length` is more than the model's context, or there are too many rows.
            UnavailableError: there is not enough memory for all rows at their full length.
        """
        if not 0 < rows <= MOST_ROWS or not 0 < length <= config.context:
            raise TooLargeError(
                f"{rows} rows of {length} tokens: the model's context is {config.context}, "
                f"{MOST_ROWS} rows are possible"
            )
        self.session, self.config, self.rows, self.length = session, config, rows, length
        session.expect(*_ports(config))
        wanted, free = max(rows, 2) * length * config.token_bytes, machine.free_memory_bytes()
        if wanted > free:
            raise UnavailableError(
                f"{rows} rows of {length} tokens need {wanted >> 20} MiB, {free / 2**20:.0f} MiB are free: "
                "fewer rows, or shorter ones"
            )
        self._least = 2 if steady else 1
        shape = (config.layers, 2, max(rows, self._least), config.kv_heads, length, config.head_dim)
        self._pages = _pages(4 * math.prod(shape))
        self._memory: Floats = np.frombuffer(self._pages, np.float32).reshape(shape)
        self._steps: dict[int, _Step] = {}
        self._pieces: dict[int, Any] = {}

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> Floats:
        """Compute a piece of a prompt into a row behind `start` tokens; return what may follow, shape (vocab,).

        Raises:
            TooLargeError: the row is not long enough.
            InvalidInputError: a token is none of the model's.
        """
        self._check(tokens, start + len(tokens))
        binding = self._pieces.get(row)
        if binding is None:
            binding = self._pieces[row] = self._bound(row, row + 1)
        end = start + len(tokens)
        logits = np.empty((1, 1, self.config.vocab), np.float32)
        arrays: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.array([tokens], np.int64), "query_seqlens": np.array([len(tokens)], np.int32),
            "seqlens_k": np.array([end - 1], np.int32), "total_sequence_length": np.array(end, np.int32),
            "last": np.array([len(tokens) - 1], np.int64),
        }  # fmt: skip
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, _value(array))
        binding.bind_ortvalue_output("logits", _value(logits))
        self._run(binding)
        found: Floats = logits[0, 0]
        return found

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Floats:
        """Compute one token more in each of the first rows; return what may follow, shape (rows in use, vocab).

        What is returned is overwritten by the next call with as many rows.

        Args:
            tokens: one for each of these rows.
            lengths: how many tokens each holds before it.

        Raises:
            TooLargeError: a row is full.
            InvalidInputError: a token is none of the model's.
        """
        self._check(tokens, max(lengths) + 1)
        rows = len(tokens)
        step = self._steps.get(rows)
        if step is None:
            step = self._steps[rows] = _Step.of(self, rows, max(rows, self._least))
        step.tokens[:rows, 0] = tokens
        step.ends[:rows] = lengths
        step.longest[...] = max(lengths) + 1
        self._run(step.binding)
        return step.logits[:rows, 0]

    def read(self, row: int, start: int, stop: int) -> Block:
        """Return a copy of what a row holds of the tokens from `start` to `stop`."""
        return self._memory[:, :, row, :, start:stop].copy()

    def write(self, row: int, start: int, block: Block) -> None:
        """Put into a row, behind `start` tokens, what `read` returned of the same tokens at the same places."""
        self._memory[:, :, row, :, start : start + block.shape[3]] = block

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` tokens of a row to another row."""
        self._memory[:, :, target, :, :length] = self._memory[:, :, source, :, :length]

    def release(self) -> None:
        """Give the memory of all rows back to the system: what they hold is gone, and what is written takes it anew."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)

    def _check(self, tokens: Sequence[int], end: int) -> None:
        if end > self.length:
            raise TooLargeError(f"{end} tokens do not fit into a row of {self.length}")
        if not tokens or min(tokens) < 0 or max(tokens) >= self.config.vocab:
            raise InvalidInputError(f"tokens must be 0 to {self.config.vocab - 1}, and at least one")

    def _bound(self, first: int, last: int) -> Any:
        """Return a binding of rows as past and present: the graph extends them where they lie."""
        binding = self.session.ort.io_binding()
        for layer in range(self.config.layers):
            for number, part in enumerate(("key", "value")):
                value = _value(self._memory[layer, number, first:last])
                binding.bind_ortvalue_input(f"past_key_values.{layer}.{part}", value)
                binding.bind_ortvalue_output(f"present.{layer}.{part}", value)
        return binding

    def _run(self, binding: Any) -> None:
        try:
            self.session.ort.run_with_iobinding(binding)
        except MemoryError as error:
            raise UnavailableError("no memory left to compute a token") from error
        except ORT_ERRORS as error:
            raise UnavailableError(f"the model cannot compute: {' '.join(str(error).split())[:300]}") from error


@dataclass(frozen=True, slots=True)
class _Step:
    """Inputs and outputs of one token for so many rows, bound once and written in place."""

    binding: Any
    tokens: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int32]
    longest: npt.NDArray[np.int32]
    logits: Floats
    held: tuple[npt.NDArray[Any], ...]  # onnxruntime only points at what is bound

    @classmethod
    def of(cls, decoder: Decoder, used: int, rows: int) -> Self:
        """Bind so many rows, of which the first ones are used and the others idle."""
        binding = decoder._bound(0, rows)
        tokens, ends = np.zeros((rows, 1), np.int64), np.zeros(rows, np.int32)
        longest, logits = np.zeros((), np.int32), np.zeros((rows, 1, decoder.config.vocab), np.float32)
        arrays: dict[str, npt.NDArray[Any]] = {
            "input_ids": tokens, "query_seqlens": (np.arange(rows) < used).astype(np.int32), "seqlens_k": ends,
            "total_sequence_length": longest, "last": np.zeros(rows, np.int64),
        }  # fmt: skip
        for name, array in arrays.items():
            binding.bind_ortvalue_input(name, _value(array))
        binding.bind_ortvalue_output("logits", _value(logits))
        return cls(binding, tokens, ends, longest, logits, tuple(arrays.values()))


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """A model that is ready to write: what it knows of text, and its decoder."""

    folder: ModelFolder
    config: LanguageConfig
    vocabulary: Vocabulary
    decoder: Decoder

    @classmethod
    def load(
        cls, folder: ModelFolder, *, rows: int = 4, length: int = 2048, threads: int = 0, spins: bool = True,
        steady: bool = True,
    ) -> Self:  # fmt: skip
        """Load a language model; raises what `Session`, `Vocabulary.of` and `Decoder` raise.

        Raises:
            InvalidInputError: the graph was made with another vocabulary, or not for so long a context.
        """
        config = read_config(folder)
        vocabulary = Vocabulary.of(folder, config.vocab)
        session = Session(folder, threads=threads, spins=spins)
        words = session.metadata.get(METADATA)  # older graphs do not say it
        if words is not None and words != vocabulary_digest(vocabulary.tokenizer):
            raise InvalidInputError(f"{folder.file(TOKENIZER)}: the graph was made with other tokens: another model's")
        decoder = Decoder(session, config, rows=rows, length=min(length, config.context), steady=steady)
        _check_context(session, config)
        return cls(folder, config, vocabulary, decoder)


def read_config(folder: ModelFolder) -> LanguageConfig:
    """Return the shape of the model in a folder.

    Raises:
        InvalidInputError: it cannot be read.
    """
    file = folder.file(CONFIG)
    try:
        return LanguageConfig.model_validate(json.loads(file.read_bytes()))
    except (ValueError, ValidationError, RecursionError) as error:
        raise InvalidInputError(f"{file}: not a language model's configuration: {str(error)[:300]}") from error


def _ports(config: LanguageConfig) -> tuple[list[Port], list[Port]]:
    memory = ("batch", config.kv_heads, "capacity", config.head_dim)
    parts = [f"{layer}.{part}" for layer in range(config.layers) for part in ("key", "value")]
    whole, half, real = np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.float32)
    inputs = [
        Port("input_ids", whole, ("batch", "tokens")), Port("query_seqlens", half, ("batch",)),
        Port("seqlens_k", half, ("batch",)), Port("total_sequence_length", half, ()), Port("last", whole, ("batch",)),
    ]  # fmt: skip
    return (
        [*inputs, *(Port(f"past_key_values.{part}", real, memory) for part in parts)],
        [Port("logits", real, ("batch", 1, config.vocab)), *(Port(f"present.{part}", real, memory) for part in parts)],
    )


def _check_context(session: Session, config: LanguageConfig) -> None:
    """Compute one token of a row that may become as long as the context: else only a long prompt would find out.

    Raises:
        InvalidInputError: the graph, as a rule its table of rotations, does not go so far.
        UnavailableError: there is not enough memory.
    """
    try:
        _compute_one(session, config)
    except (MemoryError, OSError) as error:
        raise UnavailableError("no memory left to compute a token") from error
    except ORT_ERRORS as error:
        raise InvalidInputError(
            f"model {session.folder.path}: its context is {config.context}, which its graph does not reach: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error


def _compute_one(session: Session, config: LanguageConfig) -> None:
    """Compute a token for nobody: all layers keep their keys and values at one place."""
    shape = (1, config.kv_heads, config.context, config.head_dim)
    memory = np.frombuffer(_pages(4 * math.prod(shape)), np.float32).reshape(shape)
    arrays: dict[str, npt.NDArray[Any]] = {
        "input_ids": np.zeros((1, 1), np.int64), "query_seqlens": np.ones(1, np.int32),
        "seqlens_k": np.zeros(1, np.int32), "total_sequence_length": np.array(config.context, np.int32),
        "last": np.zeros(1, np.int64), "logits": np.zeros((1, 1, config.vocab), np.float32),
    }  # fmt: skip
    binding = session.ort.io_binding()
    for name in session.inputs:
        binding.bind_ortvalue_input(name, _value(arrays.get(name, memory)))
    for name in session.outputs:
        binding.bind_ortvalue_output(name, _value(arrays.get(name, memory)))
    session.ort.run_with_iobinding(binding)


def _pages(size: int) -> mmap.mmap:
    """Return zeros of which only the pages that are written to take memory.

    numpy asks the kernel for pages of 2 MiB: then the first tokens of a row, 64 KiB in each layer, take all of it.

    Raises:
        UnavailableError: there are not so many.
    """
    try:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise UnavailableError(f"no memory left: {size >> 20} MiB for keys and values: {error.strerror}") from error
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def _value(array: npt.NDArray[Any]) -> Any:
    """Return an array as onnxruntime's own value; both use the same memory."""
    return ort.OrtValue.ortvalue_from_numpy(array)
