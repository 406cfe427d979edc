"""From a pretrained FFN's hidden units to experts: which unit goes where, and how large the sum is.

H hidden units of a layer, D model width, T tokens of the calibration text, B experts of G units.

A cut orders the units; experts take them in that order, G each, and units beyond the design's width
stay out: that is structured pruning.

contiguous: as they lie in the checkpoint (DSMoE, arXiv 2502.12455).
clustered: units that answer to the same tokens make an expert (co-activation, as MoEfication,
    arXiv 2110.01786, groups them), by balanced k-means.
magnitude: the largest products of a unit's weights' norms first.
activation: the largest mean contributions |h| ||v|| on the calibration text first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from search_space.design import Cut
from workers.layers.experts import Experts

ROUNDS = 10  # of k-means


@dataclass(frozen=True)
class Units:
    """An FFN's weights, a row a hidden unit: y = (act(x G^T) * (x K^T)) V, or act(x K^T) V.

    gates_HD, keys_HD, values_HD: (H, D); no gates of a plain one.
    """

    gates_HD: Tensor | None
    keys_HD: Tensor
    values_HD: Tensor


def unit_order(cut: Cut, units: Units, hidden_TH: Tensor, width: int) -> Tensor:
    """The units in the order in which experts take them, (H,).

    hidden_TH: (T, H), the units' values on the calibration text.
    width: of an expert.
    """
    if cut == "contiguous":
        return torch.arange(units.keys_HD.shape[0])
    reach_H = units.values_HD.norm(dim=1)
    if cut == "magnitude":
        score_H = units.keys_HD.norm(dim=1) * reach_H
        return _falling(score_H if units.gates_HD is None else units.gates_HD.norm(dim=1) * score_H)
    if cut == "activation":
        return _falling(hidden_TH.abs().mean(0) * reach_H)
    return torch.sort(clusters(hidden_TH, width), stable=True).indices


def _falling(score_H: Tensor) -> Tensor:
    return torch.sort(score_H, descending=True, stable=True).indices


def clusters(hidden_TH: Tensor, width: int) -> Tensor:
    """The cluster of each unit, (H,), all of `width` units: k-means of the units' directions over
    the tokens, in absolute values. The last cluster takes what is left over."""
    unit_HT = F.normalize(hidden_TH.abs().t(), dim=1)
    n_clusters = max(1, len(unit_HT) // width)
    center_BT = unit_HT[_spread(unit_HT, n_clusters)]
    of_H = torch.zeros(len(unit_HT), dtype=torch.long)
    for _ in range(ROUNDS):
        before = of_H
        of_H = balanced(unit_HT @ center_BT.t(), width)
        if torch.equal(of_H, before):
            break
        sum_BT = torch.zeros_like(center_BT).index_add(0, of_H, unit_HT)
        center_BT = F.normalize(sum_BT, dim=1)
    return of_H


def _spread(unit_HT: Tensor, n: int) -> list[int]:
    """Units far from each other: each next one is the least like those before."""
    chosen = [int((unit_HT @ unit_HT.mean(0)).argmin())]
    nearest_H = unit_HT @ unit_HT[chosen[0]]
    while len(chosen) < n:
        chosen.append(int(nearest_H.argmin()))
        nearest_H = torch.maximum(nearest_H, unit_HT @ unit_HT[chosen[-1]])
    return chosen


def balanced(likeness_HB: Tensor, width: int) -> Tensor:
    """Each unit's cluster, (H,), none of more than `width` units: units ask for the cluster that
    they are most like and that has room, and it takes those that are most like it.

    likeness_HB: (H, B).
    """
    n_units, n_clusters = likeness_HB.shape
    of_H = torch.full((n_units,), -1)
    room_B = torch.full((n_clusters,), width)
    room_B[-1] += n_units - n_clusters * width
    open_HB = likeness_HB.clone()
    while bool((of_H < 0).any()):
        open_HB[:, room_B == 0] = -torch.inf
        best_H = open_HB.argmax(1)
        for b in range(n_clusters):
            asking = ((of_H < 0) & (best_H == b)).nonzero().flatten()
            taken = asking[likeness_HB[asking, b].argsort(descending=True, stable=True)]
            taken = taken[: int(room_B[b])]
            of_H[taken] = b
            room_B[b] -= len(taken)
    return of_H


@torch.no_grad()
def fill(experts: Experts, units: Units, order_H: Tensor) -> None:
    """Put a pretrained FFN's units into experts, in the order given; those beyond stay out."""
    n_experts, width, d_model = experts.keys_BGD.shape
    taken = order_H[: n_experts * width].to(units.keys_HD.device)
    pairs = (
        (experts.gates_BGD, units.gates_HD),
        (experts.keys_BGD, units.keys_HD),
        (experts.values_BGD, units.values_HD),
    )
    for own_BGD, given_HD in pairs:
        if own_BGD is None or given_HD is None:
            continue
        own_BGD.copy_(given_HD[taken].view(n_experts, width, d_model))


def scale_to(y_TD: Tensor, wanted_TD: Tensor) -> float:
    """The factor of least squares that brings one output to another; 1 where there is none."""
    square = float(y_TD.double().square().sum())
    factor = float((y_TD.double() * wanted_TD.double()).sum()) / square if square else 1.0
    return factor if factor > 0 else 1.0
