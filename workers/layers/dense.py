"""Dense selection: every expert, weight one."""

from __future__ import annotations

from torch import Tensor

from search_space.spec import FFNSpec
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.routing import Full, Selected


class DenseSelection(Declared):
    """S(x) = all experts, w = 1."""

    traceable = True
    reads_tokens = False

    def __init__(self, spec: FFNSpec, d_model: int) -> None:
        super().__init__()

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """No parameters and no loss."""
        return Selected(Full())
