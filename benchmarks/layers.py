"""Single FFN layers on one CPU thread, float32, each beside what it is held against.

PEER beside the package PEER-pytorch; routed layers beside the dense layer of the same active
FLOPs; straight-through gates in inference beside all of their blocks. Calls take turns in one
process, and a ratio is the median over the turns. `python -m benchmarks.layers --json FILE`.
"""

from __future__ import annotations

import math
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.memory import peak_extra_bytes
from benchmarks.report import Row, at_least, at_most, main
from benchmarks.turns import Call, ratio, take_turns
from search_space.cost import ffn_cost
from search_space.methods.avgk import AvgK
from search_space.methods.hash import Hash
from search_space.methods.product_key import ProductKey
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.layers.ffn import FFN
from workers.layers.recording import record_stats

D_MODEL, VOCAB = 256, 4096
ACTIVE = 512  # hidden units that a token reads in every routed layer
SHARE_OPEN = 0.3  # of the straight-through layer's gates

ROUTED = {
    "top-8 of 64 x 64": FFNSpec(d_ff=4096, expert_width=64, selection=TopK(k=8)),
    "top-1 of 8 x 512": FFNSpec(d_ff=4096, expert_width=512, selection=TopK(k=1)),
    "hash, 8 of 64 x 64": FFNSpec(d_ff=4096, expert_width=64, selection=Hash(k=8)),
    "hash, 1 of 8 x 512": FFNSpec(d_ff=4096, expert_width=512, selection=Hash(k=1)),
    "Avg-K, 8 of 64 x 64": FFNSpec(d_ff=4096, expert_width=64, selection=AvgK(k=8)),
}


def rows() -> list[Row]:
    """A row a ratio, with its bar."""
    torch.set_num_threads(1)
    return [*peer_rows(), *routed_rows(), straight_through_row()]


def step_of(layer: nn.Module, *inputs: Tensor) -> Call:
    """Forward and backward, gradients of the input and of every parameter, none kept."""
    x, *rest = inputs
    x.requires_grad_()

    def step() -> None:
        out = layer(x, *rest)
        y = out[0] if isinstance(out, tuple) else out
        loss = 0.0 if not isinstance(out, tuple) or out[1] is None else out[1]
        # Not of ones: some kernels are quicker on a gradient without memory of its own.
        ((y * direction).sum() + loss).backward()
        x.grad = None
        layer.zero_grad()

    direction = torch.randn(x.shape)
    return step


def ours(spec: FFNSpec) -> FFN:
    """The layer with values that are not zero, in training mode."""
    torch.manual_seed(0)
    layer = FFN(spec, D_MODEL, VOCAB).train()
    for module in layer.modules():
        if hasattr(module, "values_BGD"):
            nn.init.normal_(module.values_BGD, std=0.02)
    return layer


def peer_rows(n_tokens: int = 1024, heads: int = 8, k: int = 16, root: int = 256) -> list[Row]:
    """Ours against PEER-pytorch: the same experts, heads, choices and width of queries."""
    from PEER_pytorch import PEER

    half = D_MODEL // 2
    theirs = PEER(
        D_MODEL,
        heads=heads,
        num_experts=root**2,
        num_experts_per_head=k,
        dim_key=half,
        non_competing_scores=False,
        pre_rmsnorm=True,
    )
    knobs = ProductKey(heads=heads, k=k, key_dim=2 * half, query_norm="none")
    layer = ours(FFNSpec(d_ff=root**2, expert_width=1, selection=knobs))
    x_TD, ids_T = torch.randn(n_tokens, D_MODEL), torch.zeros(n_tokens, dtype=torch.long)
    own = step_of(layer, x_TD.clone(), ids_T)
    other = step_of(theirs, x_TD[None].clone())
    own_seconds, other_seconds = take_turns([own, other])
    label = f"PEER, {root**2:,} experts, {n_tokens:,} tokens"
    memory = peak_extra_bytes(own) / peak_extra_bytes(other)
    return [
        Row(f"{label}: forward and backward", 1e3 * median(own_seconds), "ms"),
        at_least(f"{label}: against PEER-pytorch", ratio(other_seconds, own_seconds), 6, "x"),
        at_most(f"{label}: peak extra memory, share of theirs", memory, 1 / 8),
    ]


def routed_rows(n_tokens: int = 2048) -> list[Row]:
    """Training FLOPs a second of each routed layer, over those of the dense layer."""
    x_TD = torch.randn(n_tokens, D_MODEL)
    ids_T = torch.randint(VOCAB, (n_tokens,))
    specs = {"dense": FFNSpec(d_ff=ACTIVE), **ROUTED}
    calls = [step_of(ours(spec), x_TD.clone(), ids_T) for spec in specs.values()]
    flops = [ffn_cost(spec, D_MODEL).training_flops * n_tokens for spec in specs.values()]
    seconds = take_turns(calls)
    dense, *others = [[t / f for t in own] for own, f in zip(seconds, flops, strict=True)]
    out = [Row(f"dense {ACTIVE}: forward and backward", 1e-9 / median(dense), "GFLOP/s")]
    for name, own in zip(ROUTED, others, strict=True):
        out.append(at_least(f"{name}: FLOP/s against dense", ratio(dense, own), 0.85, "x"))
    return out


def straight_through_row(n_tokens: int = 2048, blocks: int = 8, width: int = 128) -> Row:
    """Inference with the open blocks alone, against the training form that computes all."""
    # Router logits of a normalised token are near normal: this threshold opens the wanted share.
    tau = 1 / (1 + math.exp(-math.sqrt(2) * torch.erfinv(torch.tensor(1 - 2 * SHARE_OPEN)).item()))
    selection = StraightThrough(tau=tau, sparsity_weight=0.0)
    layer = ours(FFNSpec(d_ff=blocks * width, expert_width=width, selection=selection))
    x_TD, ids_T = torch.randn(n_tokens, D_MODEL), torch.zeros(n_tokens, dtype=torch.long)

    def infer() -> None:
        with torch.no_grad():
            layer.eval()(x_TD, ids_T)

    def all_blocks() -> None:
        with torch.no_grad():
            layer.train()(x_TD, ids_T)

    with record_stats(layer.eval()) as recorded, torch.no_grad():
        layer(x_TD, ids_T)
    active = next(iter(recorded.values())).summary()["active"]
    sparse, full = take_turns([infer, all_blocks])
    name = f"straight-through at {active:.0%} activity, inference against all blocks"
    return at_least(name, ratio(full, sparse), 2, "x")


if __name__ == "__main__":
    main(rows, __doc__)
