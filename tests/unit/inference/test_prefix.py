"""Kept beginnings of prompts: found as far as they go, and bounded."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgeagents.inference.prefix import BLOCK_ROWS, PIECE_TOKENS, Piece, Prefixes, pieces

SHAPE = (2, 2, 1, 3)
TOKEN_BYTES = 2 * 2 * 1 * 3 * 4


def block(piece: Piece) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Return something that tells one piece from another."""
    layers, two, heads, width = SHAPE
    whole = np.empty((layers, two, heads, len(piece), width), np.float32)
    whole[:] = np.array(piece, np.float32)[:, None] + np.pi
    return whole


def keep(prefixes: Prefixes, *path: Piece) -> bool:
    return all(prefixes.keep(path[:end], block(path[end - 1])) for end in range(1, len(path) + 1))


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(-3, 70), st.integers(3, 20))
def test_pieces_are_the_prompt_and_their_bounds_are_known_from_it_alone(
    tokens: list[int], kept: int, size: int
) -> None:
    found = pieces(tokens, kept, size)
    assert [token for piece in found for token in piece] == tokens
    ends = np.cumsum([len(piece) for piece in found]).tolist()
    assert all(2 <= len(piece) <= size for piece in found) or len(tokens) == 1, "one token is computed otherwise"
    for bound in (*range(size, len(tokens), size), len(tokens), min(max(kept, 0), len(tokens))):
        assert bound <= 2 or {bound, bound - 1} & set(ends)
    longer = np.cumsum([len(piece) for piece in pieces([*tokens, 7, 7, 7], kept, size)]).tolist()
    if len(tokens) > kept + 4:
        assert {end for end in ends if end <= kept} == {end for end in longer if end <= kept}, (
            "what follows the constant part moves no bound in it"
        )


@given(st.integers(2, 1500), st.integers(0, 1500))
def test_no_piece_leaves_a_token_over_that_would_be_computed_alone(length: int, kept: int) -> None:
    found = [len(piece) for piece in pieces(range(length), kept)]
    assert sum(found) == length
    assert all(size % BLOCK_ROWS != 1 and size <= PIECE_TOKENS for size in found)


def test_what_is_kept_is_found_as_far_as_it_goes() -> None:
    prefixes = Prefixes(10_000)
    assert keep(prefixes, (1, 2), (3,), (4, 5))
    assert keep(prefixes, (1, 2), (6,))
    found = prefixes.find([(1, 2), (3,), (9,)])
    assert [item.shape[3] for item in found] == [2, 1]
    assert (found[1] == block((3,))).all()
    assert prefixes.find([(3,)]) == []
    assert (prefixes.hits, prefixes.misses) == (2, 2)


def test_what_was_used_longest_ago_goes_first_and_nothing_that_others_hang_on() -> None:
    prefixes = Prefixes(5 * TOKEN_BYTES)
    keep(prefixes, (1,), (2,))
    keep(prefixes, (3,), (4,))
    prefixes.find([(1,), (2,)])
    assert keep(prefixes, (1,), (2,), (5, 6))
    assert prefixes.size_bytes == 5 * TOKEN_BYTES
    assert [len(prefixes.find(path)) for path in ([(1,), (2,), (5, 6)], [(3,), (4,)])] == [3, 1]
    assert prefixes.evicted == 1


def test_what_is_found_again_outlives_any_number_of_pieces_that_are_used_once() -> None:
    prefixes, constant = Prefixes(8 * TOKEN_BYTES), [(1, 2), (3,)]
    keep(prefixes, *constant)
    for number in range(100, 1100):
        if number % 50 == 0:
            assert len(prefixes.find(constant)) == 2, number
        prefixes.find([(number,)])
        assert keep(prefixes, (number,))
    assert prefixes.evicted == 1000 - 5


def test_what_the_texts_of_one_question_find_of_each_other_is_not_found_again() -> None:
    prefixes, constant = Prefixes(8 * TOKEN_BYTES), [(1, 2)]
    keep(prefixes, *constant)
    for number in range(100, 120):
        for _ in range(9):
            prefixes.find([*constant, (number, 9)], question=number)
            prefixes.keep([*constant, (number, 9)], block((number, 9)), question=number)
    nodes = {node.piece: node.hits for node in prefixes._nodes()}
    assert nodes == {(1, 2): 20, (117, 9): 0, (118, 9): 0, (119, 9): 0}


def test_what_was_found_again_but_long_ago_makes_room_for_what_is_found_again_now() -> None:
    prefixes = Prefixes(8 * TOKEN_BYTES)
    for part in range(100, 120):
        keep(prefixes, (part, 7))
        keep(prefixes, (part + 100,))  # comes once, between its first use and its second
        assert len(prefixes.find([(part, 7)])) == 1, "a new constant part has room to be found again in"
    assert [len(prefixes.find([(part, 7)])) for part in (100, 110, 118, 119)] == [0, 0, 1, 1]


def test_what_is_larger_than_all_there_is_is_not_kept_and_costs_nobody_a_place() -> None:
    prefixes = Prefixes(3 * TOKEN_BYTES)
    keep(prefixes, (1,))
    assert not prefixes.keep([(2, 3, 4, 5)], block((2, 3, 4, 5)))
    assert not prefixes.keep([(7,), (8,)], block((8,))), "what it hangs on is not kept"
    assert len(prefixes.find([(1,)])) == 1


def test_all_that_is_kept_is_told_with_its_path_and_how_often_it_was_found() -> None:
    prefixes = Prefixes(10_000)
    keep(prefixes, (1, 2), (3,))
    keep(prefixes, (1, 2), (6,))
    prefixes.find([(1, 2), (6,)])
    prefixes.find([(1, 2), (9,)])
    assert {piece.path: piece.hits for piece in prefixes.kept()} == {((1, 2),): 2, ((1, 2), (3,)): 0, ((1, 2), (6,)): 1}
    again = Prefixes(10_000)
    assert all(again.keep(piece.path, piece.block) for piece in prefixes.kept()), "those above come first"
    held = {piece.path: piece.block for piece in again.kept()}
    assert len(held) == 3
    assert all((held[piece.path] == piece.block).all() for piece in prefixes.kept())


def test_it_is_found_and_told_of_by_several_threads() -> None:
    prefixes = Prefixes(40 * TOKEN_BYTES)

    def work(number: int) -> None:
        for step in range(300):
            keep(prefixes, (number,), (step % 20,))
            prefixes.find([(number,), (step % 20,)])
            assert all(len(piece.path) in (1, 2) for piece in prefixes.kept())

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work, number) for number in range(4)]:
            done.result()
    assert prefixes.size_bytes == sum(piece.block.nbytes for piece in prefixes.kept()) <= prefixes.budget_bytes
