"""The losses of a router, made of sums over runs of tokens: what the kernels of its choice share.

The sums of a run are those of the gates' shares (B), of the softmax (B), and of the squared
logarithms (1). Slopes are the loss's derivatives in a token's share (B) and softmax (B).

T tokens, B experts, G runs.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def softmax_of(z, known):
    """Shares of each row, and the logarithm of what they were divided by."""
    z = tl.where(known[None, :], z, float("-inf"))
    peak = tl.max(z, axis=1)
    e = tl.where(known[None, :], tl.exp(z - peak[:, None]), 0.0)
    total = tl.sum(e, axis=1)
    return e / total[:, None], peak + tl.log(total)


@triton.jit
def gates_of(z, known, SOFTMAX: tl.constexpr):
    """The gates, 0 for padding; and the softmax of the logits with its logarithm, which losses
    need of either."""
    soft, log = softmax_of(z, known)
    p = soft
    if not SOFTMAX:
        p = tl.where(known[None, :], tl.sigmoid(z), 0.0)
    return p, soft, log


@triton.jit
def before_normalizing(dw, p, chosen, LEAST: tl.constexpr):
    """The gradient in the gates, for that in the chosen ones divided by their sum."""
    total = tl.sum(tl.where(chosen, p, 0.0), axis=1)
    divisor = tl.maximum(total, LEAST)
    mean = tl.sum(dw * p, axis=1) / divisor
    mean = tl.where(total > LEAST, mean, 0.0)  # what is clamped has no slope
    return tl.where(chosen, (dw - mean[:, None]) / divisor[:, None], 0.0)


@triton.jit
def losses_of_sums(
    total,
    ptrs,
    sizes,
    weights,
    SOFTMAX: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """The weighted losses, and their slopes. `total` has the pairs of each expert."""
    sum_ptr, loss_ptr, slope_ptr = ptrs
    n_tokens, n_experts, n_runs = sizes
    balance, z, entropy = weights
    b = tl.arange(0, BLOCK_B)
    known = b < n_experts
    shares = tl.zeros((BLOCK_B,), tl.float32)
    softs = tl.zeros((BLOCK_B,), tl.float32)
    squares = tl.zeros((BLOCK_T,), tl.float32)
    for start in range(0, n_runs, BLOCK_T):
        g = start + tl.arange(0, BLOCK_T)
        of_run = sum_ptr + g.to(tl.int64) * (2 * n_experts + 1)
        mask = (g < n_runs)[:, None] & known[None, :]
        softs += tl.sum(
            tl.load(of_run[:, None] + n_experts + b[None, :], mask=mask, other=0.0), axis=0
        )
        if not SOFTMAX:
            shares += tl.sum(tl.load(of_run[:, None] + b[None, :], mask=mask, other=0.0), axis=0)
        squares += tl.load(of_run + 2 * n_experts, mask=g < n_runs, other=0.0)
    if SOFTMAX:
        shares = softs
    n_pairs = tl.sum(total, axis=0).to(tl.float32)
    in_share = balance * n_experts * total.to(tl.float32) / n_pairs / n_tokens
    mean = softs / n_tokens
    log = tl.log(tl.where(mean > 0.0, mean, 1.0))
    in_soft = tl.where(mean > 0.0, entropy * (log + 1.0) / n_tokens, 0.0)
    loss = tl.sum(in_share * shares, axis=0) + entropy * tl.sum(mean * log, axis=0)
    loss += z * tl.sum(squares, axis=0) / n_tokens
    tl.store(loss_ptr, loss)
    tl.store(slope_ptr + b, in_share, mask=known)
    tl.store(slope_ptr + n_experts + b, in_soft, mask=known)
