"""The matrices of experts as their kernels take them.

B experts, A experts more that all tokens read, G units of an expert, D model width.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from workers.kernels.triton.config import matmul_precision


class Matrices(NamedTuple):
    """Experts' matrices, (B, G, D) each and contiguous; gates may be None.

    shared: those of A experts more, the last, or None.
    """

    keys_BGD: Tensor
    gates_BGD: Tensor | None
    values_BGD: Tensor
    shared: Matrices | None = None

    @classmethod
    def of(cls, keys: Tensor, gates: Tensor | None, values: Tensor) -> Matrices:
        """Contiguous."""
        gates = None if gates is None else gates.contiguous()
        return cls(keys.contiguous(), gates, values.contiguous())

    def empty_like(self) -> Matrices:
        """Room for their gradients."""
        keys, gates, values, shared = self
        gates = None if gates is None else torch.empty_like(gates)
        shared = None if shared is None else shared.empty_like()
        return Matrices(torch.empty_like(keys), gates, torch.empty_like(values), shared)

    @property
    def n_experts(self) -> int:
        """All."""
        return len(self.keys_BGD) + (0 if self.shared is None else len(self.shared.keys_BGD))

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Experts, those of them that are not shared, model width, units of an expert."""
        n_own, width, inner = self.keys_BGD.shape
        return self.n_experts, n_own, inner, width

    @property
    def by_key_and_gate(self) -> tuple[Tensor | None, ...]:
        """Keys and gates, and the shared ones."""
        return *self[:2], *((None, None) if self.shared is None else self.shared[:2])

    @property
    def flags(self) -> dict[str, Any]:
        """What a product's kernel is specialised by."""
        shared, gated = self.shared is not None, self.gates_BGD is not None
        precision = matmul_precision(self.keys_BGD.dtype)
        return {"SHARED": shared, "GATED": gated, "PRECISION": precision}
