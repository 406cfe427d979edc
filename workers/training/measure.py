"""What a trained proxy is worth: bits per byte on fixed windows, and its routing.

N sequences, L tokens of a sequence, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
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


def evaluate_quality(
    model: LanguageModel, corpus: Corpus, n_tokens: int, seq_len: int, device: str
) -> Quality:
    """Bits per byte on fixed validation windows, with its standard error over windows, and the
    nats of each in their order, summed in float64."""
    model.eval()
    windows = Windows.of(corpus, "validation", n_tokens, seq_len)
    return windows.quality(lambda ids_NL: model.logits(model(ids_NL).hidden_NLD), device)


@dataclass(frozen=True)
class Windows:
    """Fixed windows of a held-out split.

    inputs, targets: token ids and the next ones, (N, L).
    token_bytes_V: bytes of text that each token stands for, (V,).
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    token_bytes_V: NDArray[np.floating]

    @classmethod
    def of(cls, corpus: Corpus, split: str, n_tokens: int, seq_len: int) -> Windows:
        """About `n_tokens` of a split, in windows of `seq_len` that are spread evenly over it."""
        inputs, targets = corpus.validation_windows(n_tokens, seq_len, split)
        return cls(inputs, targets, corpus.byte_weights(split))

    @torch.no_grad()
    def quality(
        self, logits: Callable[[Tensor], Tensor], device: str, batch: int = EVAL_BATCH
    ) -> Quality:
        """What a model is worth on them.

        logits: of a model in evaluation mode: token ids (N, L) -> (N, L, V).
        batch: sequences at a time.
        """
        token_bytes_V = torch.from_numpy(self.token_bytes_V).to(device)
        nats, sizes = [], []
        for start in range(0, len(self.inputs), batch):
            inputs_NL = torch.from_numpy(self.inputs[start : start + batch]).to(device)
            targets_NL = torch.from_numpy(self.targets[start : start + batch]).to(device)
            logits_NLV = logits(inputs_NL)
            losses_NL = F.cross_entropy(logits_NLV.transpose(1, 2), targets_NL, reduction="none")
            nats.append(losses_NL.double().sum(1))
            sizes.append(token_bytes_V[targets_NL].sum(1))
        return bits_per_byte(torch.cat(nats).cpu(), torch.cat(sizes).cpu(), self.targets.size)


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
