"""`PretrainedLM`: a Llama-like model of transformers whose FFNs are a design's.

N sequences, L tokens of a sequence, D model width, T = N * L tokens, V vocabulary, R real tokens:
those that are no padding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space.backbone import Backbone
from search_space.placement import placed, reference
from search_space.spec import FFNSpec
from workers.kernels.api.mixed import unmixed
from workers.kernels.prepared import prepared
from workers.layers.build import build_selection
from workers.layers.declared import Declared
from workers.layers.ffn import build_experts
from workers.layers.stats import RoutingStats
from workers.layers.steps import watch_steps
from workers.model import LanguageModel, Output


class CutFFN(Declared):
    """sum over S(x) of w_b(x) FFN_b(x) in place of a pretrained layer's FFN, which is normed before
    and added to its input outside.

    searched: whether it is the design's, and not all of the layer's own FFN.
    loss: the selection's of the last forward, or None.
    real_R: where the real tokens lie among all of the coming forward, None where all are real. So
        padding has no part in losses, loads and statistics.
    """

    def __init__(self, spec: FFNSpec, backbone: Backbone, *, searched: bool = True) -> None:
        super().__init__()
        self.searched, self.n_experts = searched, spec.n_experts
        self.selection = build_selection(spec, backbone.d_model, backbone.vocab_size)
        self.experts = build_experts(spec, backbone.d_model)
        self.loss: Tensor | None = None
        self.real_R: Tensor | None = None

    def new_stats(self) -> RoutingStats | None:
        """Of its experts, where it is of the design."""
        return RoutingStats(self.n_experts) if self.searched else None

    def forward(self, x_NLD: Tensor) -> Tensor:
        """x_NLD (N, L, D), already normed -> (N, L, D), without the residual."""
        all_TD = x_NLD.flatten(0, -2)
        if self.real_R is None:
            return self._read(all_TD).view_as(x_NLD)
        y_RD = self._read(all_TD.index_select(0, self.real_R))
        return torch.zeros_like(all_TD).index_copy(0, self.real_R, y_RD).view_as(x_NLD)

    def _read(self, x_TD: Tensor) -> Tensor:
        with unmixed(x_TD.device.type):  # which expert is read is decided in float32
            # No method that can be cut asks for token ids.
            selected = self.selection(x_TD, x_TD.new_empty(0, dtype=torch.long), self.experts)
        if self.stats is not None:
            self.stats.add_routing(selected.routing, x_TD.shape[0])
        self.loss = selected.loss
        y_TD: Tensor = self.experts(x_TD, selected.routing, self.stats)
        return y_TD.to(x_TD.dtype)


class Projection(Declared):
    """A linear layer of attention, whose weight is a matrix to the optimizers."""

    matrices = ("weight",)
    factors = ("weight",)

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., D')."""
        return F.linear(x, prepared(self.weight), self.bias)


def cut_ffns(spec: FFNSpec, backbone: Backbone) -> list[CutFFN]:
    """An FFN a layer: the design where it is placed, all of the layer's own units elsewhere."""
    return [
        CutFFN(spec if here else reference(backbone), backbone, searched=here)
        for here in placed(spec.placement, backbone.n_layers)
    ]


def put_in(lm: nn.Module, ffns: list[CutFFN]) -> None:
    """Replace the FFN of each decoder layer, and declare the matrices of attention.

    lm: a transformers model for causal language modelling; changed in place.
    """
    decoder: Any = lm.model
    for layer, ffn in zip(decoder.layers, ffns, strict=True):
        layer.mlp = ffn
        for name, module in list(layer.self_attn.named_children()):
            if isinstance(module, nn.Linear):
                setattr(layer.self_attn, name, Projection(module))


class PretrainedLM(LanguageModel):
    """What trains and measures like a proxy.

    lm: the transformers model, whose FFNs are `CutFFN`s.
    """

    def __init__(self, lm: nn.Module, backbone: Backbone) -> None:
        super().__init__()
        self.lm: Any = lm
        self.backbone = backbone

    @property
    def head(self) -> Tensor:
        """(V, D)."""
        return self.lm.lm_head.weight  # type: ignore[no-any-return]

    @property
    def blocks(self) -> nn.ModuleList:
        """Its decoder layers."""
        return self.lm.model.layers  # type: ignore[no-any-return]

    def forward(self, ids_NL: Tensor) -> Output:
        """ids_NL (N, L) token ids -> hidden states."""
        if self.training:
            watch_steps(self)
        out = self.lm.model(input_ids=ids_NL, use_cache=False)
        return Output(out.last_hidden_state, mean_loss(self.lm))


def mean_loss(lm: nn.Module) -> Tensor | None:
    """The mean of the losses that the FFNs' last forward left, or None."""
    losses = [m.loss for m in lm.modules() if isinstance(m, CutFFN) and m.loss is not None]
    return torch.stack(losses).mean() if losses else None
