"""Rows of memory that hold the tokens themselves: what follows is reckoned from all a row holds, so a mix-up shows."""

import zlib
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from edgeagents.errors import TooLargeError, UnavailableError
from edgeagents.inference.language import Block, Floats, Vocabulary
from tests.tiny_llama import byte_letters

VOCAB = 260
END = 257  # after the 256 bytes and a token for what is unknown


def vocabulary() -> Vocabulary:
    """Return a vocabulary of bytes, with three special tokens behind them."""
    letters = {letter: byte for byte, letter in enumerate(byte_letters())}
    assert set(letters) == set(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<unk>", "<end>", "<user>", "<agent>"])
    tokenizer.encode_special_tokens = True
    return Vocabulary(tokenizer)


def follows(tokens: Sequence[int]) -> int:
    """Return what follows some tokens: a printable byte, rarely the end."""
    number = zlib.crc32(",".join(map(str, tokens)).encode())
    return END if number % 41 == 0 else 32 + number % 94


def logits_of(tokens: Sequence[int]) -> Floats:
    """Return what a model would say of what follows some tokens."""
    logits = np.full(VOCAB, -9.0, np.float32)
    logits[follows(tokens)] = 9.0
    return logits


class TokenRows:
    """A decoder without a model. `failing` computations fail."""

    def __init__(self, rows: int = 3, length: int = 64) -> None:
        self.rows, self.length = rows, length
        self.memory = np.full((rows, length), -1.0, np.float32)
        self.computed = 0  # tokens
        self.failing = 0
        self.released = 0  # times

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> Floats:
        self._may_fail()
        if start + len(tokens) > self.length:
            raise TooLargeError("the row is full")
        assert (self.memory[row, :start] >= 0).all(), "what is before a piece is there"
        self.memory[row, start : start + len(tokens)] = tokens
        self.computed += len(tokens)
        return self._logits(row, start + len(tokens))

    def decode(self, tokens: Sequence[int], lengths: Sequence[int]) -> Floats:
        self._may_fail()
        for row, (token, length) in enumerate(zip(tokens, lengths, strict=True)):
            assert (self.memory[row, :length] >= 0).all(), "what is before a token is there"
            self.memory[row, length] = token
        self.computed += len(tokens)
        return np.stack([self._logits(row, length + 1) for row, length in enumerate(lengths)])

    def read(self, row: int, start: int, stop: int) -> Block:
        return self.memory[row, start:stop].copy().reshape(1, 1, 1, -1, 1)

    def write(self, row: int, start: int, block: Block) -> None:
        self.memory[row, start : start + block.shape[3]] = block.reshape(-1)

    def move(self, source: int, target: int, length: int) -> None:
        self.memory[target, :length] = self.memory[source, :length]
        self.memory[source] = -1.0

    def release(self) -> None:
        self.memory[...] = -1.0
        self.released += 1

    def _may_fail(self) -> None:
        if self.failing:
            self.failing -= 1
            raise UnavailableError("no memory left to compute a token")

    def _logits(self, row: int, length: int) -> Floats:
        return logits_of([int(token) for token in self.memory[row, :length]])
