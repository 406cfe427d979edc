"""A learned router's choice in torch, one operation after the other.

T tokens, B experts, K choices a token, P = T * K (token, expert) pairs sorted by expert.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workers.kernels.api.pair_order import order_pairs
from workers.kernels.api.topk import top_indices
from workers.kernels.choice import Choice, MeanOver, Rule


def expert_choice(
    z_TB: Tensor, bias_B: Tensor | None, rule: Rule, mean_over: MeanOver | None
) -> Choice:
    """As workers.kernels.api.choice says."""
    p_TB = z_TB.softmax(1) if rule.softmax else z_TB.sigmoid()
    score_TB = p_TB.detach() if bias_B is None else p_TB.detach() + bias_B
    index_TK = top_indices(score_TB, rule.k)
    weight_TK = p_TB.gather(1, index_TK)
    if rule.normalize:
        weight_TK = weight_TK / weight_TK.sum(1, keepdim=True).clamp_min(1e-20)
    n_experts = p_TB.shape[1]
    if rule.always:
        last_A = torch.arange(n_experts, n_experts + rule.always, device=z_TB.device)
        last_TA = last_A.expand(len(z_TB), -1)
        index_TK = torch.cat((index_TK, last_TA), dim=1)
        weight_TK = torch.cat((weight_TK, torch.ones_like(last_TA, dtype=p_TB.dtype)), dim=1)
    pairs, weight_P = order_pairs(index_TK, weight_TK, n_experts + rule.always)
    assert weight_P is not None
    if not (rule.counts or rule.has_loss):
        return Choice(pairs, weight_P, None, None)
    load_B = pairs.loads.count_B(p_TB.device)[:n_experts].to(p_TB.dtype)
    loss = _loss(z_TB, p_TB, load_B, rule, mean_over or _here) if rule.has_loss else None
    return Choice(pairs, weight_P, load_B, loss)


def _here(mean: Tensor) -> Tensor:
    return mean


def _loss(z_TB: Tensor, p_TB: Tensor, load_B: Tensor, rule: Rule, mean_over: MeanOver) -> Tensor:
    terms = []
    if rule.balance:
        fraction_B = mean_over(load_B / load_B.sum())
        share_TB = p_TB if rule.softmax else p_TB / p_TB.sum(1, keepdim=True)
        share_B = mean_over(share_TB.mean(0))
        terms.append(rule.balance * load_B.numel() * (fraction_B * share_B).sum())
    if rule.z:
        terms.append(rule.z * z_TB.logsumexp(1).square().mean())
    if rule.entropy:
        mean_B = mean_over(z_TB.softmax(1).mean(0))
        terms.append(rule.entropy * torch.xlogy(mean_B, mean_B).sum())
    return torch.stack(terms).sum()
