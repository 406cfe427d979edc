"""The proxy: a small pre-norm decoder language model whose FFN is the spec.

N sequences, L tokens of a sequence, D model width, H heads, C width of a head, V vocabulary,
T = N * L tokens, R real tokens of these: those that are no padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_space.backbone import Backbone
from search_space.placement import placed, reference
from search_space.spec import FFNSpec
from workers.kernels.api.attention import attention
from workers.kernels.api.rms_norm import EPS
from workers.kernels.api.rotary import normed_heads
from workers.kernels.prepared import prepared
from workers.layers.declared import Declared, declared
from workers.layers.ffn import FFN
from workers.layers.norm import RMSNorm
from workers.layers.steps import after_step, watch_steps
from workers.sight import Sight, View

EMBEDDING_STD = 0.02
# Queries and keys have unit RMS, so their scores lie within +-12 at any head width: sharp enough
# for a head to look at one token from the start. At 1 / sqrt(C) a narrow head learns that slowly,
# at a step that depends on the seed (docs/recipe.md).
SHARPEST_SCORE = 12.0


@dataclass(frozen=True)
class Output:
    """What a proxy makes of token ids.

    hidden_NLD: the last norm's output, (N, L, D), as products read it.
    aux_loss: mean of the FFN's losses over the layers that have one, or None, so a loss of weight
        alpha has alpha / L in each of these L. So has OLMoE (megablocks divides by the layers, and
        by them its z-loss), and ReMoE its penalty; Switch adds the layers up (Mesh TensorFlow), and
        its alpha here is L times that of a layer: ours, so that a weight means the same in a deeper
        proxy.
    """

    hidden_NLD: Tensor
    aux_loss: Tensor | None


class Attention(Declared):
    """Causal multi-head attention with rotary positions and RMS-normed queries and keys."""

    def __init__(self, backbone: Backbone, layer: int) -> None:
        super().__init__()
        d_model = backbone.d_model
        self.layer = layer
        self.n_heads, self.head_dim = backbone.n_heads, backbone.head_dim
        self.norm = RMSNorm(d_model)
        self.qkv_3DD = nn.Parameter(torch.empty(3, d_model, d_model))
        self.out_DD = nn.Parameter(torch.empty(d_model, d_model))
        self.q_norm = RMSNorm(self.head_dim)
        self.k_norm = RMSNorm(self.head_dim)
        self.matrices = self.factors = ("qkv_3DD", "out_DD")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Unit-variance projections, zero output."""
        nn.init.normal_(self.qkv_3DD, std=1 / math.sqrt(self.qkv_3DD.shape[2]))
        nn.init.zeros_(self.out_DD)

    def forward(
        self,
        x_NLD: Tensor,
        added_NLD: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        sight: Sight | None,
        cache: Any,
    ) -> tuple[Tensor, Tensor]:
        """The sum of x_NLD and added_NLD (N, L, D), and what attention adds to it, (N, L, D).

        added_NLD: None for nothing.
        rotary: as `rotary_table` makes it.
        sight: None for causal.
        cache: keys and values so far, or None.
        """
        N, L, D = x_NLD.shape
        x_NLD, _, n_NLD = self.norm.of_sum(x_NLD, added_NLD, wide=False)
        qkv = F.linear(n_NLD, prepared(self.qkv_3DD).flatten(0, 1))
        qkv = qkv.view(N, L, 3, self.n_heads, self.head_dim)
        q, k, v = normed_heads(qkv, self.q_norm.weight, self.k_norm.weight, *rotary)
        if cache is not None:
            k, v = cache.update(k, v, self.layer)
        mask = None if sight is None else sight.mask(k)
        causal = mask is None and L > 1
        scale = SHARPEST_SCORE / self.head_dim
        y = attention(q, k, v, mask, causal, scale)
        return x_NLD, F.linear(y.transpose(1, 2).reshape(N, L, D), prepared(self.out_DD))


def rotary_table(position_NL: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """cos and sin, each (N, 1, L, C/2), of the rotary embedding at the given positions."""
    half = torch.arange(head_dim // 2, device=position_NL.device, dtype=torch.float32)
    frequency_C = theta ** (-2 * half / head_dim)
    angle = position_NL[:, None, :, None].float() * frequency_C
    return angle.cos(), angle.sin()


class Layer(nn.Module):
    """Attention, then the FFN."""

    def __init__(self, spec: FFNSpec, backbone: Backbone, layer: int, searched: bool) -> None:
        super().__init__()
        self.attention = Attention(backbone, layer)
        self.ffn = FFN(spec, backbone.d_model, backbone.vocab_size, searched=searched)

    def forward(
        self,
        x_NLD: Tensor,
        added_NLD: Tensor | None,
        ids_T: Tensor,
        rotary: tuple[Tensor, Tensor],
        sight: Sight | None,
        real_R: Tensor | None,
        cache: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The residual stream so far and what is to be added to it, (N, L, D) each, and the FFN's
        loss, or None. The next norm adds: it reads the sum anyway.

        x_NLD, added_NLD: the same of the layer before; None for nothing to be added.
        ids_T: empty where there are embeddings in place of ids.
        real_R: the tokens that the FFN sees, None for all. So padding has no part in losses, loads
            and statistics, and costs nothing there.
        rotary, sight, cache: as `Attention` takes them.
        """
        x_NLD, own_NLD = self.attention(x_NLD, added_NLD, rotary, sight, cache)
        if real_R is None:
            x_TD, own_TD, loss = self.ffn.apart(x_NLD.flatten(0, 1), own_NLD.flatten(0, 1), ids_T)
            return x_TD.view_as(x_NLD), own_TD.view_as(x_NLD), loss
        if not real_R.numel():
            return x_NLD, own_NLD, None
        ids_R = ids_T[real_R] if ids_T.numel() else ids_T
        x_TD = (x_NLD + own_NLD).flatten(0, 1)
        y_RD, loss = self.ffn(x_TD.index_select(0, real_R), ids_R)
        return x_TD.index_copy(0, real_R, y_RD).view_as(x_NLD), None, loss


class LanguageModel(nn.Module):
    """What the training loop and the measures ask of a model.

    backbone: its shape.
    """

    backbone: Backbone

    @property
    def head(self) -> Tensor:
        """The matrix from hidden states to logits, (V, D)."""
        raise NotImplementedError

    @property
    def blocks(self) -> nn.ModuleList:
        """Its layers, attention and FFN each, from the first on."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Give the tensors that are no layer's their initial values."""

    def logits(self, hidden_NLD: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, V)."""
        return F.linear(hidden_NLD, self.head)

    def set_token_counts(self, counts_V: Tensor) -> None:
        """Tell the layers that want them (hash tables) the training split's token counts (V,)."""
        for _, layer in declared(self):
            layer.set_token_counts(counts_V)

    def begin_run(self, warmup: int) -> None:
        """Tell the layers that a run begins.

        warmup: steps in which its rates rise.
        """
        for _, layer in declared(self):
            layer.begin_run(warmup)

    def after_step(self) -> None:
        """Move what moves once an optimizer step: balancing biases, penalties, running statistics.

        For an optimizer that torch does not see step; after the step of any other it is done
        already, and this does nothing.
        """
        after_step(self)


class ProxyLM(LanguageModel):
    """Embedding, RMS-normed without a gain, layers, norm; the head is the embedding (tied).

    Layers that the spec's placement leaves out have the reference FFN. Raises SpecError for a
    placement that the backbone has too few layers for.

    gradient_checkpointing: whether training keeps of each layer its input alone, and computes the
        rest again for the gradients. transformers sets it, and how.
    """

    gradient_checkpointing: bool = False
    _gradient_checkpointing_func: Callable[..., tuple[Tensor, Tensor | None, Tensor | None]]

    def __init__(self, spec: FFNSpec, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.needs_ids = spec.selection.needs_vocabulary
        self.embed = nn.Embedding(backbone.vocab_size, backbone.d_model)
        self.layers = nn.ModuleList(
            Layer(spec if here else reference(backbone), backbone, i, here)
            for i, here in enumerate(placed(spec.placement, backbone.n_layers))
        )
        self.norm = RMSNorm(backbone.d_model)
        self.reset_parameters()

    @property
    def head(self) -> Tensor:
        """The embedding, (V, D)."""
        return self.embed.weight

    @property
    def blocks(self) -> nn.ModuleList:
        """Its layers."""
        return self.layers

    def reset_parameters(self) -> None:
        """Give the embedding its initial values; the layers have their own."""
        nn.init.normal_(self.embed.weight, std=EMBEDDING_STD)

    def forward(
        self,
        ids_NL: Tensor | None,
        *,
        embedded_NLD: Tensor | None = None,
        view: View | None = None,
        cache: Any = None,
        watch: Callable[[Tensor], None] | None = None,
    ) -> Output:
        """ids_NL (N, L) token ids -> hidden states.

        embedded_NLD: (N, L, D), what the embedding gives for them, where ids_NL is None. Raises
            ValueError for a design that needs ids.
        view: positions, padding and attention's limits; by default positions 0..L-1, no padding,
            and causal attention.
        cache: keys and values so far, with an `update(k, v, layer)`.
        watch: called with the input of each layer, (N, L, D).
        """
        if self.training:
            watch_steps(self)
        embedded_NLD, ids_T = self._embedded(ids_NL, embedded_NLD)
        if view is None:
            view = View(torch.arange(embedded_NLD.shape[1], device=embedded_NLD.device)[None])
        rotary = rotary_table(view.position_NL, self.backbone.head_dim, self.backbone.rope_theta)
        # What a layer adds is then of a known size beside it, however far the embedding has grown
        # (docs/recipe.md).
        x_NLD = F.rms_norm(embedded_NLD, (self.backbone.d_model,), eps=EPS)
        losses: list[Tensor] = []
        added_NLD: Tensor | None = None
        for layer in self.layers:
            if watch is not None:
                watch(x_NLD if added_NLD is None else x_NLD + added_NLD)
            x_NLD, added_NLD, loss = self._run(layer)(
                x_NLD, added_NLD, ids_T, rotary, view.sight, view.real_R, cache
            )
            if loss is not None:
                losses.append(loss)
        aux = torch.stack(losses).mean() if losses else None
        return Output(self.norm.of_sum(x_NLD, added_NLD, wide=False).narrow_D, aux)

    def _run(self, layer: nn.Module) -> Callable[..., tuple[Tensor, Tensor | None, Tensor | None]]:
        if self.gradient_checkpointing and self.training:
            return partial(self._gradient_checkpointing_func, layer)
        return layer

    def _embedded(
        self, ids_NL: Tensor | None, embedded_NLD: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The embeddings, and the ids (T,), empty where there are none."""
        if embedded_NLD is None:
            assert ids_NL is not None
            return self.embed(ids_NL), ids_NL.reshape(-1)
        if self.needs_ids:
            raise ValueError(
                "this design picks experts by token id, which embeddings do not tell: give "
                "input_ids in place of inputs_embeds"
            )
        return embedded_NLD, torch.empty(0, dtype=torch.long, device=embedded_NLD.device)

    def resize_vocabulary(self, n_tokens: int) -> None:
        """Tell the layers that the embedding, which the caller has replaced, has n_tokens."""
        self.backbone = replace(self.backbone, vocab_size=n_tokens)
        for _, layer in declared(self):
            layer.resize_vocabulary(n_tokens)
