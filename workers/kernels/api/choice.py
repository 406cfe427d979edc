"""A learned router's choice: logits to experts, weights and losses.

T tokens, B experts, K choices a token, P = T * K (token, expert) pairs sorted by expert.
"""

from __future__ import annotations

from torch import Tensor

from workers.kernels.api.form import form
from workers.kernels.choice import Choice, MeanOver, Rule
from workers.kernels.torch.choice import expert_choice as torch_form


def expert_choice(
    z_TB: Tensor, bias_B: Tensor | None, rule: Rule, mean_over: MeanOver | None = None
) -> Choice:
    """The k experts of the largest p + bias of each token, their p as weights, and the losses.

    Weights and loss are differentiable once in z. Of equal p any may be chosen.

    z_TB: the router's logits, (T, B), float32 or wider.
    bias_B: added to p for the choice alone, (B,), of z's dtype; None for none.
    mean_over: where a batch is spread over several processes, the mean over them of what is a mean
        over tokens here; None where all tokens are here.
    """
    # Several processes speak to each other between the means and the loss.
    name = "expert_choice" if mean_over is None else "spread_choice"
    given = (z_TB,) if bias_B is None else (z_TB, bias_B)
    return form(name, torch_form, *given, size=z_TB.shape[1])(z_TB, bias_B, rule, mean_over)
