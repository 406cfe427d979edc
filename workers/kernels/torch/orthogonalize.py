"""Newton-Schulz by batched products.

B matrices, M rows and N columns of each, K the smaller of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-7

Polynomial = tuple[float, float, float]  # a, b, c of a I + b A + c A^2


def orthogonalize(g_BMN: Tensor, polynomial: Polynomial, steps: int, by_gram: bool) -> Tensor:
    """(B, M, N), as workers.kernels.api.orthogonalize says."""
    tall = g_BMN.shape[1] > g_BMN.shape[2]
    x_BKN = g_BMN.transpose(1, 2) if tall else g_BMN
    x_BKN = x_BKN / (x_BKN.norm(dim=(1, 2), keepdim=True) + EPS)
    x_BKN = (_by_gram if by_gram else _by_product)(x_BKN, polynomial, steps)
    return x_BKN.transpose(1, 2) if tall else x_BKN


def _by_product(x_BKN: Tensor, polynomial: Polynomial, steps: int) -> Tensor:
    for _ in range(steps):
        gram_BKK = torch.bmm(x_BKN, x_BKN.transpose(1, 2))
        x_BKN = torch.bmm(_applied(polynomial, gram_BKK), x_BKN)
    return x_BKN


def _by_gram(x_BKN: Tensor, polynomial: Polynomial, steps: int) -> Tensor:
    gram_BKK = torch.bmm(x_BKN, x_BKN.transpose(1, 2))
    total_BKK = step_BKK = _applied(polynomial, gram_BKK)
    for _ in range(steps - 1):
        # All are polynomials of the first Gram matrix, so they commute.
        gram_BKK = torch.bmm(torch.bmm(step_BKK, gram_BKK), step_BKK)
        step_BKK = _applied(polynomial, gram_BKK)
        total_BKK = torch.bmm(step_BKK, total_BKK)
    return torch.bmm(total_BKK, x_BKN)


def _applied(polynomial: Polynomial, gram_BKK: Tensor) -> Tensor:
    a, b, c = polynomial
    out_BKK = torch.bmm(gram_BKK, gram_BKK).mul_(c).add_(gram_BKK, alpha=b)
    out_BKK.diagonal(dim1=1, dim2=2).add_(a)
    return out_BKK
