"""Hash selection: fixed tables from token id to expert (Roller et al. 2021).

V vocabulary, T tokens, B experts, K tables.
"""

from __future__ import annotations

import heapq

import torch
from torch import Tensor

from search_space.methods.hash import Hash
from search_space.spec import FFNSpec
from workers.layers.declared import Declared
from workers.layers.experts import Experts
from workers.layers.routing import Ragged, Selected

SPREAD = 0.5  # log-scale noise on the counts that makes the k balanced tables differ (ours)


class HashSelection(Declared):
    """S = {table_1[id], ..., table_k[id]}, w = 1. The tables are saved with the model."""

    reads_tokens = False
    table_KV: Tensor

    def __init__(self, spec: FFNSpec, d_model: int, vocab_size: int) -> None:
        super().__init__()
        assert isinstance(spec.selection, Hash)
        self.knobs = spec.selection
        self.n_experts = spec.n_experts
        random_KV = random_tables(self.knobs.k, vocab_size, self.n_experts, self.knobs.seed)
        self.register_buffer("table_KV", random_KV)

    def set_token_counts(self, counts_V: Tensor) -> None:
        """Fill balanced tables from the token counts (V,) of the training split."""
        if self.knobs.balanced:
            self.table_KV.copy_(
                balanced_tables(self.knobs.k, counts_V, self.n_experts, self.knobs.seed)
            )

    def resize_vocabulary(self, n_tokens: int) -> None:
        """Cut the tables, or give new tokens the experts in turn, each table from another one."""
        kept_KV = self.table_KV[:, :n_tokens]
        new_V = torch.arange(kept_KV.shape[1], n_tokens, device=kept_KV.device)
        table_K1 = torch.arange(self.knobs.k, device=kept_KV.device)[:, None]
        self.table_KV = torch.cat((kept_KV, (new_V + table_K1) % self.n_experts), dim=1)

    def forward(self, x_TD: Tensor, ids_T: Tensor, experts: Experts) -> Selected:
        """ids_T (T,) token ids -> a ragged routing of weight one; no loss."""
        return Selected(Ragged.from_choices(self.table_KV[:, ids_T].t(), None, self.n_experts))


def random_tables(k: int, vocab_size: int, n_experts: int, seed: int) -> Tensor:
    """k independent uniform tables, (K, V)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(n_experts, (k, vocab_size), generator=generator, device="cpu")


def balanced_tables(k: int, counts_V: Tensor, n_experts: int, seed: int) -> Tensor:
    """k tables, each giving every expert about the same number of training tokens, (K, V).

    Greedy: tokens from frequent to rare, each to the expert with the least so far. Noise on the
    order makes the tables independent of each other; a table's loads stay those of the true counts.
    """
    generator = torch.Generator().manual_seed(seed)
    counts_V = counts_V.to("cpu", torch.float64)
    tables_KV = torch.zeros(k, counts_V.numel(), dtype=torch.long)
    for table_V in tables_KV:
        noise_V = SPREAD * torch.randn(counts_V.numel(), generator=generator, dtype=torch.float64)
        order = torch.argsort((counts_V + 1).log() + noise_V, descending=True).tolist()
        ties = torch.randperm(n_experts, generator=generator).tolist()
        heap = [(0.0, tie, expert) for expert, tie in enumerate(ties)]
        heapq.heapify(heap)
        for token in order:
            load, tie, expert = heap[0]
            table_V[token] = expert
            # A token never seen still takes room, so that unseen ids spread over the experts.
            heapq.heapreplace(heap, (load + float(counts_V[token]) + 1e-3, tie, expert))
    return tables_KV
