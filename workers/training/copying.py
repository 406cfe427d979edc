"""Whether a model has learnt to copy from its context.

Attention learns it of a sudden, by heads that find what followed an earlier token of the same kind
(induction heads, Olsson et al. 2022, arXiv 2209.11895), at a step that depends on the seed. On text
that repeats itself a run that has them is far ahead of one that has not yet, whatever their FFNs.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from workers.corpus import Corpus
from workers.model import LanguageModel
from workers.training.measure import EVAL_BATCH

SEQUENCES = 32
SHORTEST = 16  # tokens of a sequence; in fewer there is little to repeat


@torch.no_grad()
def copying(model: LanguageModel, corpus: Corpus, seq_len: int, device: str) -> float | None:
    """Nats that a token costs less when random tokens are read for the second time.

    Near 0 without copying, or up to 0.1 where what came lately is expected again; more with it.
    None where sequences are too short. The tokens are drawn, as often as they come, from the
    validation split, always the same ones.
    """
    half = seq_len // 2
    if seq_len < SHORTEST:
        return None
    tokens, _ = corpus.validation_windows(SEQUENCES * seq_len, seq_len)
    drawn = np.random.default_rng(0).choice(tokens.ravel(), (SEQUENCES, half))
    twice_NL = torch.from_numpy(np.concatenate((drawn, drawn), 1)).to(device)
    model.eval()
    nats = []
    for ids_NL in twice_NL.split(EVAL_BATCH):  # logits are the largest tensor here, too
        logits_NLV = model.logits(model(ids_NL).hidden_NLD)[:, :-1]
        targets_NL = ids_NL[:, 1:]
        nats.append(F.cross_entropy(logits_NLV.transpose(1, 2), targets_NL, reduction="none"))
    nats_NL = torch.cat(nats)
    # The first token of the second time follows the last of the first: neither foresees it.
    return float(nats_NL[:, : half - 1].mean() - nats_NL[:, half:].mean())
