"""One expert that all tokens read, in torch, which has one form for experts whoever reads them."""

from __future__ import annotations

from workers.kernels.torch.expert_ffn import expert_ffn as dense_ffn
from workers.kernels.torch.expert_ffn import expert_ffn as plain_ffn

__all__ = ["dense_ffn", "plain_ffn"]
