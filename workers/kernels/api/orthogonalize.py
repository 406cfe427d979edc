"""Matrices made orthogonal, nearly: Newton-Schulz, as Muon has it (Jordan et al. 2024).

B matrices, M rows and N columns of each, K the smaller of the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.torch.orthogonalize import Polynomial
from workers.kernels.torch.orthogonalize import orthogonalize as torch_form

# Steps on the Gram matrix cost less where one side is at least this much longer.
GRAM_ASPECT = 1.5


def orthogonalize(g_BMN: Tensor, polynomial: Polynomial, steps: int) -> Tensor:
    """(B, M, N): matrices of the same singular vectors, with singular values near 1.

    A matrix is divided by its norm, and `steps` times X <- (a I + b A + c A^2) X with A = X X^T.
    Long matrices take them on A alone, whose steps are small products, and are multiplied once at
    the end. Not differentiable.

    polynomial: a, b and c.
    steps: at least 1.
    """
    long = by_gram(*g_BMN.shape[1:])
    return form("orthogonalize", torch_form, g_BMN)(g_BMN, polynomial, steps, long)


def by_gram(rows: int, cols: int) -> bool:
    """Whether matrices of these sides take their steps on the Gram matrix."""
    return max(rows, cols) >= GRAM_ASPECT * min(rows, cols)


def orthogonalize_flops(shape: Sequence[int], steps: int) -> int:
    """FLOPs of the products, a multiply-add being 2, of whole matrices: numba's form computes one
    half of those that are symmetric.

    shape: (B, M, N).
    """
    batch, rows, cols = shape
    k, n = sorted((rows, cols))
    if by_gram(rows, cols):
        return batch * (4 * k * k * n + (4 * steps - 3) * 2 * k**3)
    return steps * batch * (4 * k * k * n + 2 * k**3)
