"""Computed beginnings of prompts, kept: a role's constant part is computed once, and used by every agent and turn.

A prompt is computed in pieces whose bounds follow from the prompt alone (`pieces`), never from what happens to be
kept. So what is kept of a piece is bit for bit what computing it again would give, and a prompt goes on the same way
whether its beginning was kept or not. Pieces form a tree; what was used longest ago goes first when memory runs out,
except that up to half of it is for what other questions found again: prompts that come once push out each other.

The whole can be turned into bytes and back, by the model it was computed with and no other.

Source: paged prefix caching as in vLLM (arXiv:2309.06180) and SGLang's RadixAttention (arXiv:2312.07104); Karedla
et al. 1994, Caching strategies to improve disk system performance (segmented LRU).
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TypeAlias

import numpy as np

from edgeagents.errors import InvalidInputError
from edgeagents.inference.language import Block

Piece: TypeAlias = tuple[int, ...]
PIECE_TOKENS: Final = 256
SPARED_SHARE: Final = 0.5  # of the budget; the rest is what new constant parts have to be found again in
MAGIC: Final = b"edgeagents prefixes 1\n"
MOST_HEADER_BYTES: Final = 64 << 20
_LENGTH: Final = struct.Struct("<Q")
_DIGEST_BYTES: Final = 32


def pieces(tokens: Sequence[int], kept: int, size: int = PIECE_TOKENS) -> list[Piece]:
    """Return a prompt in pieces, with bounds at each `size` tokens and at `kept`, where its constant part ends."""
    bounds = sorted({*range(0, len(tokens), size), min(max(kept, 0), len(tokens)), len(tokens)})
    return [tuple(tokens[start:stop]) for start, stop in pairwise(bounds)]


@dataclass(slots=True, eq=False)
class _Node:
    """A piece behind all those above it."""

    piece: Piece
    block: Block | None  # none: the root
    above: "_Node | None" = None
    below: "dict[Piece, _Node]" = field(default_factory=dict)
    used: int = 0
    hits: int = 0  # how often it was found; by the texts of one question, which share their prompt, once
    question: int | None = None  # whose texts used it last, if it was one of several texts


class Prefixes:
    """What is kept, within a budget of bytes."""

    def __init__(self, budget_bytes: int) -> None:
        """Keep nothing yet."""
        self.budget_bytes = budget_bytes
        self.size_bytes = 0
        self.hits = self.misses = self.evicted = 0  # in pieces
        self._root = _Node((), None)
        self._turn = 0

    def find(self, wanted: Sequence[Piece], *, question: int | None = None) -> list[Block]:
        """Return what is kept of the first pieces of a prompt, as far as it goes without a gap.

        Args:
            wanted: the pieces.
            question: of several texts that share this prompt: that they find each other's pieces says nothing of who
                else will.
        """
        found, node = [], self._root
        self._turn += 1
        for piece in wanted:
            below = node.below.get(piece)
            if below is None or below.block is None:
                break
            node = below
            node.used = self._turn
            node.hits += question is None or question != node.question
            node.question = question
            found.append(below.block)
        self.hits += len(found)
        self.misses += len(wanted) - len(found)
        return found

    def keep(self, path: Sequence[Piece], block: Block, *, question: int | None = None) -> bool:
        """Keep the last piece of a path whose other pieces are kept; return whether there was room.

        What is kept must not be written to any more. `question` as in `find`.
        """
        node = self._root
        for piece in path[:-1]:
            below = node.below.get(piece)
            if below is None:
                return False
            node = below
        if path[-1] in node.below:
            return True
        self._turn += 1
        above: _Node | None = node
        while above is not None:  # what it hangs on must not go to make room for it
            above.used, above = self._turn, above.above
        if not self._make_room(block.nbytes, node):
            return False
        node.below[path[-1]] = _Node(path[-1], block, node, used=self._turn, question=question)
        self.size_bytes += block.nbytes
        return True

    def _make_room(self, size_bytes: int, spared: _Node) -> bool:
        while self.size_bytes + size_bytes > self.budget_bytes:
            leaves = [node for node in self._nodes() if not node.below and node is not spared]
            if not leaves or size_bytes > self.budget_bytes:
                return False
            hot = self._found_again()
            oldest = min(leaves, key=lambda node: (id(node) in hot, node.used))
            assert oldest.above is not None
            assert oldest.block is not None
            del oldest.above.below[oldest.piece]
            self.size_bytes -= oldest.block.nbytes
            self.evicted += 1
        return True

    def _found_again(self) -> set[int]:
        """Return which nodes were found again and are spared: those used last, up to their share."""
        left, spared = int(self.budget_bytes * SPARED_SHARE), set[int]()
        # Of those used in the same turn, the ones above come first: sorting is stable.
        for node in sorted((node for node in self._nodes() if node.hits), key=lambda node: -node.used):
            left -= node.block.nbytes if node.block is not None else 0
            if left < 0:
                break
            spared.add(id(node))
        return spared

    def _nodes(self) -> Iterator[_Node]:
        """Yield all nodes but the root, those above before those below."""
        waiting = list(self._root.below.values())
        while waiting:
            node = waiting.pop()
            yield node
            waiting += node.below.values()

    def dump(self, model: str) -> bytes:
        """Return all that is kept as bytes that `load` reads; `model` is the digest of the model's folder."""
        nodes = list(self._nodes())
        places = {id(node): place for place, node in enumerate(nodes)}
        listed = [
            {"above": places.get(id(node.above), -1), "tokens": node.piece, "shape": node.block.shape}
            for node in nodes if node.block is not None
        ]  # fmt: skip
        header = json.dumps({"model": model, "nodes": listed}, separators=(",", ":")).encode()
        blocks = (np.ascontiguousarray(node.block, "<f4").tobytes() for node in nodes)
        body = b"".join((MAGIC, _LENGTH.pack(len(header)), header, *blocks))
        return body + hashlib.sha256(body).digest()

    def load(self, data: bytes, model: str, shape: tuple[int, int, int, int]) -> int:
        """Keep what `dump` wrote, as far as there is room; return how many pieces.

        Args:
            data: from `dump`.
            model: digest of the model's folder.
            shape: of one token's block: layers, 2, kv_heads, head_dim.

        Raises:
            InvalidInputError: it was changed, is not whole, or is another model's.
        """
        body = memoryview(data)[:-_DIGEST_BYTES]
        if not data.startswith(MAGIC) or hashlib.sha256(body).digest() != data[-_DIGEST_BYTES:]:
            raise InvalidInputError("kept prefixes: changed or not whole: they are computed again")
        header, blocks = _header(body)
        if header.get("model") != model:
            raise InvalidInputError("kept prefixes: of another model: they are computed again")
        paths: list[tuple[Piece, ...]] = []
        count = at = 0
        for item in header["nodes"]:
            tokens = tuple(item["tokens"])
            paths.append((*(paths[item["above"]] if item["above"] >= 0 else ()), tokens))
            layers, two, heads, width = shape
            wanted = (layers, two, heads, len(tokens), width)
            size = 4 * int(np.prod(wanted))
            if tuple(item["shape"]) != wanted or at + size > len(blocks):
                raise InvalidInputError("kept prefixes: of another shape: they are computed again")
            block = np.frombuffer(blocks[at : at + size], "<f4").reshape(wanted).astype(np.float32)
            at += size
            count += self.keep(paths[-1], block)
        return count


def _header(body: memoryview) -> tuple[dict[str, Any], memoryview]:
    try:
        (length,) = _LENGTH.unpack_from(body, len(MAGIC))
        start = len(MAGIC) + _LENGTH.size
        if length > min(MOST_HEADER_BYTES, len(body) - start):
            raise ValueError("a header that is longer than the whole")
        header = json.loads(bytes(body[start : start + length]))
        if not isinstance(header, dict) or not isinstance(header.get("nodes"), list):
            raise ValueError("no list of pieces")
    except (ValueError, struct.error, RecursionError) as error:
        raise InvalidInputError(f"kept prefixes: cannot be read: {error}: they are computed again") from error
    return header, body[start + length :]
