"""Experts over few pairs, in torch and without gradients: a step of decoding on a CPU.

There the calls take the time, and the reading of matrices that nothing reads again: nothing is kept
for backward, no tile is cut, and the products are as few calls as there are.

T tokens, D model width, B experts, G units of an expert, P (token, expert) pairs sorted by
expert, N experts that are read, R (token, unit) pairs in the tokens' order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.kernels.activations import ACTIVATIONS
from workers.kernels.pairs import Operands, Pairs, Watch
from workers.kernels.place import kind
from workers.kernels.switch import onednn, onednn_multiplies

# By measurement (benchmarks/decode.py): a sum a pair reads an expert's values at the speed of
# memory, a product an expert does not, until its rows are so many units that reading once pays.
UNITS = 256

Product = Callable[[Tensor, Tensor], Tensor]


def are_few(given: Operands, pairs: Pairs, tile_rows: int) -> bool:
    """Whether the pairs fit a tile of a CPU, and have one weight each or none."""
    weight_PC = given.weight_PC
    if weight_PC is not None and (pairs.token_P is None or weight_PC.shape[1] > 1):
        return False
    return kind(given.x_TD) == "cpu" and sum(pairs.counts) <= tile_rows


def few(given: Operands, pairs: Pairs, activation: str, watch: Watch | None) -> Tensor:
    """(T, D), as workers.kernels.api.expert_ffn says."""
    if not onednn_multiplies():
        return _few(given, pairs, activation, watch)
    with onednn(False):  # shapes differ from call to call: see ROUTED of expert_ffn
        return _few(given, pairs, activation, watch)


def _few(given: Operands, pairs: Pairs, activation: str, watch: Watch | None) -> Tensor:
    x_TD, keys_BGD, gates_BGD, values_BGD, weight_P1 = given
    if not any(pairs.counts):  # a token that is decoded by itself may open no expert
        return torch.zeros_like(x_TD)
    x_PD = x_TD if pairs.token_P is None else x_TD.index_select(0, pairs.token_P)
    product, act = _product(pairs, values_BGD), ACTIVATIONS[activation]
    h_PG = product(x_PD, keys_BGD.transpose(1, 2))
    if gates_BGD is None:
        h_PG = act(h_PG)
    else:
        h_PG = act(product(x_PD, gates_BGD.transpose(1, 2))).mul_(h_PG)
    if watch is not None:
        watch(h_PG)
    if weight_P1 is not None:
        h_PG = h_PG * weight_P1
    if pairs.token_P is None:
        return product(h_PG, values_BGD)
    n_read = sum(count > 0 for count in pairs.counts)
    if h_PG.dtype == torch.float32 and len(h_PG) <= n_read * max(1, UNITS // h_PG.shape[1]):
        y_PD = _by_row(h_PG, values_BGD, pairs)
    else:
        y_PD = product(h_PG, values_BGD)
    return torch.zeros_like(x_TD).index_add_(0, pairs.token_P, y_PD)


def _product(pairs: Pairs, like_BGD: Tensor) -> Product:
    """(rows, matrices) -> each row times its expert's matrix.

    One call for all experts where many are read; it would take longer for those that are not.
    """
    counts = pairs.counts
    if len(counts) == 1:
        return lambda x_PI, w_BIO: x_PI @ w_BIO[0]
    read_N = [expert for expert, count in enumerate(counts) if count]
    # torch's one call takes rows of 16 bytes.
    whole = all(width % 4 == 0 for width in like_BGD.shape[1:])
    if whole and like_BGD.dtype == torch.float32 and 4 * len(read_N) > len(counts):
        end_B = pairs.loads.end_B(like_BGD.device).to(torch.int32)
        return lambda x_PI, w_BIO: F.grouped_mm(x_PI, w_BIO, offs=end_B)
    sizes = [counts[expert] for expert in read_N]

    def each(x_PI: Tensor, w_BIO: Tensor) -> Tensor:
        parts = zip(read_N, x_PI.split(sizes), strict=True)
        return torch.cat([x_I @ w_BIO[expert] for expert, x_I in parts])

    return each


def _by_row(h_PG: Tensor, values_BGD: Tensor, pairs: Pairs) -> Tensor:
    """(P, D): for each pair the sum of its units' values, weighted with h."""
    n_pairs, width = h_PG.shape
    end_B = pairs.loads.end_B(h_PG.device)
    expert_P = torch.searchsorted(end_B, torch.arange(n_pairs), right=True)
    return F.embedding_bag(
        (expert_P.mul_(width).unsqueeze(1) + torch.arange(width)).flatten(),
        values_BGD.flatten(0, 1),
        torch.arange(0, n_pairs * width, width),
        mode="sum",
        per_sample_weights=h_PG.flatten(),
    )
