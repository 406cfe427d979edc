"""Copied and turned matrices, and vectors of several numbers, in numba's loops."""

from __future__ import annotations

import numpy as np
import pytest

from workers.kernels.numba.blocks import COLUMNS
from workers.kernels.numba.copies import copy_matrix, turn_matrix
from workers.kernels.numba.library import jit
from workers.kernels.numba.vectors import lanes_of, larger, largest, load, spread, store, total

pytestmark = pytest.mark.slow

SIZES = [(1, 1), (COLUMNS, COLUMNS), (2 * COLUMNS, COLUMNS - 1), (3, 5), (COLUMNS + 1, 2 * COLUMNS)]


@jit
def copy(turn, a, b):
    """Address arithmetic belongs into a loop: there it is as whole operations have it."""
    here, there = np.int64(a.ctypes.data), np.int64(b.ctypes.data)
    if turn:
        turn_matrix(a, here, a.strides[0], a.shape[0], a.shape[1] - 1, there, b.strides[0])
    else:
        copy_matrix(a, here, a.strides[0], a.shape[0], a.shape[1] - 1, there, b.strides[0])


@jit
def by_vectors(lanes, x, y, out):
    here, there, to = np.int64(x.ctypes.data), np.int64(y.ctypes.data), np.int64(out.ctypes.data)
    step = len(lanes) * x.itemsize
    top, whole = load(x, lanes, here), spread(lanes, x.dtype.type(0))
    for c in range(0, len(x) * x.itemsize, step):
        a, b = load(x, lanes, here + c), load(y, lanes, there + c)
        top, whole = larger(a, top), whole + a * b
        store(a - b * spread(lanes, x.dtype.type(2)), to + c)
    return largest(top), total(whole)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_a_matrix_comes_over_and_nothing_beside_it(rows, columns, turn, dtype):
    a = np.arange(rows * (columns + 1), dtype=dtype).reshape(rows, columns + 1)
    want = a[:, :columns].T if turn else a[:, :columns]
    b = np.full((want.shape[0] + 1, want.shape[1] + 1), -1, dtype)
    copy(turn, a, b)
    assert (b[:-1, :-1] == want).all()
    assert (b[-1] == -1).all() and (b[:, -1] == -1).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("width", [1, 2, 6, 8, 12, 40])
def test_vectors_make_whole_rows_of_any_width(width, dtype):
    x, y = np.random.default_rng(width).normal(size=(2, width)).astype(dtype)
    out, lanes = np.full(width + 1, 7, dtype), lanes_of(width)
    top, whole = by_vectors(lanes, x, y, out)
    assert width % len(lanes) == 0 and top == x.max()
    assert whole == pytest.approx(float(x.astype(float) @ y), rel=1e-5)
    assert out[:-1] == pytest.approx(x - 2 * y, rel=1e-5, abs=1e-6)
    assert out[-1] == 7
