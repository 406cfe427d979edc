"""What a trained proxy is worth: bits per byte on fixed windows, and its routing.

N sequences, L tokens of a sequence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from workers.corpus import Corpus
from workers.layers.recording import record_stats
from workers.model import LanguageModel

EVAL_BATCH = 16  # sequences of one evaluation batch


@dataclass(frozen=True)
class Quality:
    """bits_per_byte with its standard error, loss in nats a token, and the nats of each window."""

    bits_per_byte: float
    standard_error: float
    loss: float
    windows: list[float]


@torch.no_grad()
def evaluate_quality(
    model: LanguageModel, corpus: Corpus, n_tokens: int, seq_len: int, device: str
) -> Quality:
    """Bits per byte on fixed validation windows, with its standard error over windows, and the
    nats of each in their order, summed in float64."""
    inputs, targets = corpus.validation_windows(n_tokens, seq_len)
    token_bytes_V = torch.from_numpy(corpus.byte_weights("validation")).to(device)
    model.eval()
    nats, sizes = [], []
    for start in range(0, len(inputs), EVAL_BATCH):
        inputs_NL = torch.from_numpy(inputs[start : start + EVAL_BATCH]).to(device)
        targets_NL = torch.from_numpy(targets[start : start + EVAL_BATCH]).to(device)
        logits = model.logits(model(inputs_NL).hidden_NLD)
        losses_NL = F.cross_entropy(logits.transpose(1, 2), targets_NL, reduction="none")
        nats.append(losses_NL.double().sum(1))
        sizes.append(token_bytes_V[targets_NL].sum(1))
    return bits_per_byte(torch.cat(nats).cpu(), torch.cat(sizes).cpu(), targets.size)


def bits_per_byte(nats_N: Tensor, bytes_N: Tensor, n_tokens: int) -> Quality:
    """The ratio of sums over windows, and the standard error of that ratio (linearised)."""
    bits_N = nats_N / math.log(2)
    ratio = float(bits_N.sum() / bytes_N.sum())
    n = len(bits_N)
    residual = float((bits_N - ratio * bytes_N).square().sum())
    error = math.sqrt(residual * n / max(1, n - 1)) / float(bytes_N.sum())
    return Quality(ratio, error, float(nats_N.sum()) / n_tokens, nats_N.tolist())


@torch.no_grad()
def measure_routing(
    model: LanguageModel, corpus: Corpus, seq_len: int, device: str
) -> dict[str, dict[str, object]]:
    """Routing statistics by FFN sub-layer on one batch of validation windows."""
    inputs, _ = corpus.validation_windows(EVAL_BATCH * seq_len, seq_len)
    model.eval()
    with record_stats(model) as recorded:
        model(torch.from_numpy(inputs).to(device))
    return {name: stats.summary() for name, stats in recorded.items()}
