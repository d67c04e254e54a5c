"""Blocks stand for real numbers; a second quantisation stays within its bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from toolchain.block_matrix import BLOCK, BlockMatrix, quantised

DENSE = arrays(np.float32, (3, 2 * BLOCK), elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False))


@given(DENSE)
def test_eight_bits_are_within_half_a_step(dense: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    matrix = quantised(dense, 8)
    step = np.repeat(np.abs(matrix.scales.astype(np.float64)), BLOCK, axis=1)
    assert (np.abs(matrix.real() - dense) <= step * 0.5001).all()


@given(DENSE)
def test_four_bits_keep_the_largest_and_are_within_a_step(
    dense: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> None:
    matrix = quantised(dense, 4)
    step = np.repeat(np.abs(matrix.scales.astype(np.float64)), BLOCK, axis=1)
    error = np.abs(matrix.real() - dense)
    assert (error <= step * 1.0001).all()
    largest = np.abs(dense.reshape(3, 2, BLOCK)).argmax(-1)[..., None]
    assert (np.take_along_axis(error.reshape(3, 2, BLOCK), largest, -1) <= 1e-6 * np.abs(dense).max()).all()


def test_two_weights_share_a_byte_the_first_in_its_lower_half() -> None:
    values = np.arange(BLOCK, dtype=np.uint8).reshape(1, BLOCK) % 16
    matrix = BlockMatrix(4, values, np.ones((1, 1), np.float32))
    assert matrix.packed()[0, :3].tolist() == [0x10, 0x32, 0x54]


@pytest.mark.parametrize("bits", [4, 8])
def test_a_block_of_zeros_stays_zero(bits: int) -> None:
    assert not quantised(np.zeros((2, BLOCK), np.float32), bits).real().any()
