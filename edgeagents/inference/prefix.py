"""Computed beginnings of prompts, kept: a role's constant part is computed once, and used by every agent and turn.

A prompt is computed in pieces whose bounds follow from the prompt alone (`pieces`), never from what happens to be
kept. So what is kept of a piece is bit for bit what computing it again would give, and a prompt goes on the same way
whether its beginning was kept or not. Pieces form a tree; what was used longest ago goes first when memory runs out,
except that up to half of it is for what other questions found again: prompts that come once push out each other.

`kept_bytes.py` turns what is kept into bytes and back.

Source: paged prefix caching as in vLLM (arXiv:2309.06180) and SGLang's RadixAttention (arXiv:2312.07104); Karedla
et al. 1994, Caching strategies to improve disk system performance (segmented LRU).
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, TypeAlias

from edgeagents.inference.language import Block

Piece: TypeAlias = tuple[int, ...]
PIECE_TOKENS: Final = 256
BLOCK_ROWS: Final = 128  # that onnxruntime's 4-bit kernel multiplies at once
SPARED_SHARE: Final = 0.5  # of the budget; the rest is what new constant parts have to be found again in


def pieces(tokens: Sequence[int], kept: int, size: int = PIECE_TOKENS) -> list[Piece]:
    """Return a prompt in pieces, with bounds at each `size` tokens and at `kept`, where its constant part ends.

    One token alone is computed in another order than among others, as is the one that is left over of a piece whose
    others fill whole blocks of `BLOCK_ROWS`: bounds go one token back, or two, so that there is none but in a prompt of
    one token.
    """
    bounds = [len(tokens)]
    for bound in sorted({*range(size, len(tokens), size), min(kept, len(tokens))}, reverse=True):
        places = (bound, bound - 1, bound - 2)
        before = next(at for at in places if 1 not in (at % BLOCK_ROWS, (bounds[-1] - at) % BLOCK_ROWS))
        if before > 1 and bounds[-1] > before:
            bounds.append(before)
    if bounds[-1] > 1 and bounds[-1] % BLOCK_ROWS == 1:
        bounds.append(bounds[-1] - 2)
    return [tuple(tokens[start:stop]) for start, stop in pairwise([0, *reversed(bounds)]) if stop]


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


@dataclass(frozen=True, slots=True, eq=False)
class KeptPiece:
    """A piece that is kept: its path from the beginning of a prompt, what was computed, how often it was found."""

    path: tuple[Piece, ...]
    block: Block
    hits: int = 0


class Prefixes:
    """What is kept, within a budget of bytes; may be used from several threads."""

    def __init__(self, budget_bytes: int) -> None:
        """Keep nothing yet."""
        self.budget_bytes = budget_bytes
        self.size_bytes = 0
        self.hits = self.misses = self.evicted = 0  # in pieces
        self._root = _Node((), None)
        self._turn = 0
        self._lock = threading.Lock()  # who stores what is kept is no token loop

    def find(self, wanted: Sequence[Piece], *, question: int | None = None) -> list[Block]:
        """Return what is kept of the first pieces of a prompt, as far as it goes without a gap.

        Args:
            wanted: the pieces.
            question: of several texts that share this prompt: that they find each other's pieces says nothing of who
                else will.
        """
        with self._lock:
            return self._find(wanted, question)

    def _find(self, wanted: Sequence[Piece], question: int | None) -> list[Block]:
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

    def keep(self, path: Sequence[Piece], block: Block, *, question: int | None = None, hits: int = 0) -> bool:
        """Keep the last piece of a path whose other pieces are kept; return whether there was room.

        What is kept must not be written to any more. `question` as in `find`; `hits`: how often it was found elsewhere.
        """
        with self._lock:
            return self._keep(path, block, question, hits)

    def _keep(self, path: Sequence[Piece], block: Block, question: int | None, hits: int) -> bool:
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
        node.below[path[-1]] = _Node(path[-1], block, node, used=self._turn, hits=hits, question=question)
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

    def _path(self, node: _Node) -> tuple[Piece, ...]:
        found = deque[Piece]()
        above: _Node | None = node
        while above is not None and above.above is not None:
            found.appendleft(above.piece)
            above = above.above
        return tuple(found)

    def kept(self) -> list[KeptPiece]:
        """Return all that is kept, those above before those below; what they hold must not be written to."""
        with self._lock:
            return [KeptPiece(self._path(node), node.block, node.hits)
                    for node in self._nodes() if node.block is not None]  # fmt: skip
