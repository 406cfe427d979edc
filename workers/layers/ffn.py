"""The FFN of one transformer layer: sub-layers of norm, selection and experts, with residuals.

D model width, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from search_space.spec import FFNSpec
from workers.kernels.api.mixed import unmixed
from workers.kernels.place import kind
from workers.layers.build import build_selection
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.norm import RMSNorm
from workers.layers.routing import Full
from workers.layers.stats import RoutingStats
from workers.layers.value_table import ValueTable

# The residual stream (T, D), what is to be added to it (T, D), and a loss.
Apart = tuple[Tensor, Tensor, Tensor | None]


def build_experts(spec: FFNSpec, d_model: int) -> Experts | ValueTable:
    """The experts that one sub-layer's selection picks from."""
    if spec.selection.value_rows:
        return ValueTable(d_model, spec.n_experts, reads=spec.granularity)
    return Experts(
        d_model,
        spec.n_experts,
        spec.expert_width,
        activation=spec.activation,
        gated=spec.gated,
        output_gate=spec.output_gate,
        reads=spec.granularity,
    )


class SubLayer(Declared):
    """h + sum over S(n) of w_b(n) FFN_b(n) (+ shared FFN(n)), n = RMSNorm(h)."""

    def __init__(self, spec: FFNSpec, d_model: int, vocab_size: int, searched: bool) -> None:
        super().__init__()
        self.searched = searched
        self.n_experts = spec.n_experts
        self.norm = RMSNorm(d_model)
        self.selection = build_selection(spec, d_model, vocab_size)
        self.experts = build_experts(spec, d_model)
        # Asked here, where nobody has wrapped the experts yet, as adapters do.
        self.reads_rows, self.spreads = self.experts.by_rows, self.experts.spreads
        self.reads_wide = self.reads_rows or self.selection.reads_tokens
        self.shared = None
        if spec.shared_width:
            width = spec.shared_width // spec.depth
            self.shared = Experts(d_model, 1, width, activation=spec.activation, gated=spec.gated)

    def new_stats(self) -> RoutingStats | None:
        """Of this sub-layer's experts, where it is of the design."""
        return RoutingStats(self.n_experts) if self.searched else None

    def forward(self, h_TD: Tensor, ids_T: Tensor) -> tuple[Tensor, Tensor | None]:
        """h_TD (T, D), ids_T (T,) -> (T, D) and the selection's loss."""
        return _whole(self.apart(h_TD, None, ids_T))

    def apart(self, h_TD: Tensor, added_TD: Tensor | None, ids_T: Tensor) -> Apart:
        """As `forward`, of the sum of h_TD and added_TD (T, D), None for nothing; the sum, and what
        this adds to it, stay apart, for the next norm adds them."""
        if torch.compiler.is_compiling() and not self.selection.traceable:
            from workers.layers.uncompiled import as_it_is  # torch's compiler takes seconds to load

            answer: Apart = as_it_is(self.compute, h_TD, added_TD, ids_T)
            return answer
        return self.compute(h_TD, added_TD, ids_T)

    def compute(self, h_TD: Tensor, added_TD: Tensor | None, ids_T: Tensor) -> Apart:
        """As `apart`."""
        h_TD, n_TD, narrow_TD = self.norm.of_sum(h_TD, added_TD, wide=self.reads_wide)
        always = self._joined(n_TD)
        more = {"always": always} if always else {}
        with unmixed(n_TD.device.type):  # which expert is read is decided in float32
            selected = self.selection(n_TD, ids_T, self.experts, **more)
        if self.stats is not None:
            self.stats.add_routing(selected.routing, n_TD.shape[0])
        spread = self.spreads and self.stats is None and kind(n_TD) != "cpu"
        rows_TD = n_TD if self.reads_rows and not spread else narrow_TD
        if always:
            y_TD = self.experts(rows_TD, selected.routing, shared=self.shared)
            return h_TD, y_TD, selected.loss
        y_TD = self.experts(rows_TD, selected.routing, self.stats)
        if self.shared is not None:
            y_TD = y_TD + self.shared(narrow_TD, Full(), self.stats)
        return h_TD, y_TD, selected.loss

    def _joined(self, n_TD: Tensor) -> int:
        """As how many experts more the shared one is computed, 0 where it is by itself: on a CPU,
        whose library is at its best then, and for whoever listens to the experts alone. An adapter
        stands in the place of what it adapts, and would not be asked."""
        shared, experts = self.shared, self.experts
        if shared is None or self.stats is not None or kind(n_TD) == "cpu":
            return 0
        if not (self.selection.appends and type(experts) is type(shared) is Experts):
            return 0
        return experts.joins(shared)


def _whole(apart: Apart) -> tuple[Tensor, Tensor | None]:
    h_TD, added_TD, loss = apart
    return h_TD + added_TD, loss


class FFN(nn.Module):
    """`depth` sub-layers in sequence; their losses are averaged, so depth does not weigh them.

    searched: whether it is the design's, and not the reference in a layer without the design.
    """

    def __init__(
        self, spec: FFNSpec, d_model: int, vocab_size: int, *, searched: bool = True
    ) -> None:
        super().__init__()
        self.searched = searched
        self.layers = nn.ModuleList(
            SubLayer(spec, d_model, vocab_size, searched) for _ in range(spec.depth)
        )

    def forward(self, h_TD: Tensor, ids_T: Tensor) -> tuple[Tensor, Tensor | None]:
        """h_TD (T, D), ids_T (T,) -> (T, D) and the mean loss of the sub-layers, or None."""
        return _whole(self.apart(h_TD, None, ids_T))

    def apart(self, h_TD: Tensor, added_TD: Tensor | None, ids_T: Tensor) -> Apart:
        """As `forward`, of the sum of h_TD and added_TD (T, D), None for nothing; the sum, and what
        the last sub-layer adds to it, stay apart."""
        losses = []
        layer: Any
        for layer in self.layers:
            h_TD, added_TD, loss = layer.apart(h_TD, added_TD, ids_T)
            if loss is not None:
                losses.append(loss)
        assert added_TD is not None  # there is a sub-layer
        if len(losses) < 2:
            return h_TD, added_TD, losses[0] if losses else None
        return h_TD, added_TD, torch.stack(losses).mean()
