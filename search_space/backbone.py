"""`Backbone`: the small decoder language model around the FFN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from search_space.base import Base
from search_space.checks import DIM, TOKENS, UNITS, real, section, whole
from search_space.errors import require


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """Shape of the proxy: a pre-norm decoder with RMSNorm, rotary attention and tied embeddings.

    The embeddings are RMS-normed on the way in.

    d_model: width D.
    n_layers: layers, each attention and an FFN.
    n_heads: attention heads.
    vocab_size: tokens of the vocabulary.
    seq_len: tokens of one training sequence.
    reference_d_ff: hidden width of the dense FFN that ratios refer to; 0 means 4 * d_model.
    rope_theta: base of the rotary embedding's wavelengths.
    base: the pretrained model that all else is, in a study that cuts one.
    """

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 4
    vocab_size: int = 1024
    seq_len: int = 128
    reference_d_ff: int = 0
    rope_theta: float = 10_000.0
    base: Base | None = None

    def __post_init__(self) -> None:
        if isinstance(self.base, Mapping):  # as plain data has it
            object.__setattr__(self, "base", Base.from_dict(self.base))
        for name in ("d_model", "n_layers", "n_heads"):
            whole(name, getattr(self, name), 1, DIM)
        for name in ("vocab_size", "seq_len"):
            whole(name, getattr(self, name), 2, TOKENS)
        whole("reference_d_ff", self.reference_d_ff, 0, UNITS)
        if self.reference_d_ff == 0:
            object.__setattr__(self, "reference_d_ff", 4 * self.d_model)
        require(
            self.foreign is not None or self.d_model % (2 * self.n_heads) == 0,
            f"d_model must be a multiple of 2 * n_heads (rotary pairs): {self.d_model} is not "
            f"a multiple of {2 * self.n_heads}",
        )
        real("rope_theta", self.rope_theta, above=1)

    @property
    def foreign(self) -> Base | None:
        """The pretrained model, where it and what is cut of it are no proxies."""
        return None if self.base is None or self.base.own else self.base

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        if self.base is not None:
            return self.base.head_dim
        return self.d_model // self.n_heads

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; without `base` where there is none."""
        out = asdict(self)
        del out["base"]
        if self.base is not None:
            out["base"] = self.base.to_dict()
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Backbone:
        """Read `to_dict`'s form; a missing key takes its default, an unknown one is refused."""
        return section(cls, "backbone", data)
