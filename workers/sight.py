"""What a padded, cached or packed batch means to a model: positions, real tokens, and which keys a
query may look at.

N sequences, L new tokens of each, S keys (cached tokens and room for more included), R real tokens
of the N * L.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CACHES = "a DynamicCache or a StaticCache"


class Sight:
    """Which keys a query may look at: those up to its own place, and of these the real ones of its
    own sequence.

    The mask is made when keys are there: a static cache has more of them than tokens.

    seen: tokens in the cache before these; a static cache counts them in a tensor.
    length: of the new tokens, L.
    real_NS: which of the cached and new tokens are real, None for all.
    run_NL: the sequence of each new token, where several are packed into one row.
    """

    def __init__(
        self, seen: int | Tensor, length: int, real_NS: Tensor | None, run_NL: Tensor | None
    ) -> None:
        self.seen, self.length, self.real_NS, self.run_NL = seen, length, real_NS, run_NL
        self._made: tuple[int, Tensor | None] | None = None

    def mask(self, k_NHSC: Tensor) -> Tensor | None:
        """(N or 1, 1, L, S), True where a query may look; None where plain causal attention does.

        k_NHSC: all keys, as the cache gives them.
        """
        n_keys = k_NHSC.shape[2]
        if self._made is None or self._made[0] != n_keys:
            self._made = n_keys, self._make(n_keys, k_NHSC.device)
        return self._made[1]

    def _make(self, n_keys: int, device: torch.device) -> Tensor | None:
        if isinstance(self.seen, int):
            tokens = self.seen + self.length
            if n_keys < tokens:
                raise ValueError(
                    f"every token looks at all before it: this cache keeps {n_keys} of {tokens}; "
                    f"use {CACHES}"
                )
            unlimited = self.real_NS is None and self.run_NL is None
            if unlimited and n_keys == tokens and (self.seen == 0 or self.length == 1):
                return None
        query_L1 = torch.arange(self.length, device=device)[:, None] + self.seen
        key_S = torch.arange(n_keys, device=device)
        mask = (key_S <= query_L1)[None, None]
        if self.real_NS is not None:
            real_NS = F.pad(self.real_NS, (0, n_keys - self.real_NS.shape[1]))
            # A padding token looks at itself, for a row that looks nowhere would be NaN.
            mask = (mask & real_NS[:, None, None, :]) | (key_S == query_L1)
        if self.run_NL is not None:
            run_NS = F.pad(self.run_NL, (0, n_keys - self.length), value=-1)
            mask = mask & (self.run_NL[:, None, :, None] == run_NS[:, None, None, :])
        return mask


class GivenSight(Sight):
    """A mask that the caller has made.

    given: (N or 1, 1, L, S), True where a query may look, or numbers that are added to the scores.
    """

    def __init__(self, given: Tensor) -> None:
        super().__init__(0, given.shape[2], None, None)
        self.given = given

    def mask(self, k_NHSC: Tensor) -> Tensor | None:
        """As given."""
        if self.given.shape[3] != k_NHSC.shape[2]:
            raise ValueError(
                "a 4-D attention_mask has a column for each key, those of the cache included: got "
                f"{self.given.shape[3]} columns for {k_NHSC.shape[2]} keys"
            )
        return self.given if self.given.dtype == torch.bool else self.given.to(k_NHSC.dtype)


@dataclass(frozen=True)
class View:
    """What a model needs to know of a batch beside its tokens.

    position_NL: (N or 1, L).
    sight: None for plain causal attention among the new tokens.
    real_R: where the real tokens lie among all N * L, None where all are real.
    """

    position_NL: Tensor
    sight: Sight | None = None
    real_R: Tensor | None = None


def view(
    shape: tuple[int, int],
    device: torch.device,
    attention_mask: Tensor | None,
    position_NL: Tensor | None,
    seen: int | Tensor | None,
    training: bool,
) -> View:
    """Read the arguments that transformers' models share. Raises ValueError for those that
    contradict each other.

    shape: N and L.
    attention_mask: (N, cached and new tokens), 1 on real tokens, or as `GivenSight` takes it.
    position_NL: where a position starts again, another sequence begins: of packed ones none sees
        the others.
    seen: tokens in the cache, None without one.
    training: whether tokens that are not real would leave a trace in losses and statistics.
    """
    n_seen = 0 if seen is None else seen
    if attention_mask is not None and attention_mask.dim() == 4:
        given = GivenSight(attention_mask)
        return View(_places(n_seen, shape[1], device, position_NL), given)
    real_NS = _real(attention_mask, shape, n_seen)
    real_NL = None if real_NS is None else real_NS[:, -shape[1] :]
    run_NL, real_R = None, None
    if position_NL is not None:
        run_NL = _runs(position_NL.expand(shape), real_NL, seen is not None)
    elif real_NS is not None:
        position_NL = (real_NS.long().cumsum(1) - 1).clamp_min(0)[:, -shape[1] :]
    # A compiler knows no shapes that depend on numbers; in evaluation rows do not touch each other.
    if real_NL is not None and (training or not _traced()):
        real_R = real_NL.flatten().nonzero().squeeze(1)
        if len(real_R) == real_NL.numel():  # the padding is among the cached ones
            real_R = None
    unlimited = seen is None and real_NS is None and run_NL is None
    sight = None if unlimited else Sight(n_seen, shape[1], real_NS, run_NL)
    return View(_places(n_seen, shape[1], device, position_NL), sight, real_R)


def _traced() -> bool:
    """Whether a compiler follows, for which nothing may depend on the numbers in a tensor."""
    return torch.compiler.is_compiling()


def _places(
    seen: int | Tensor, length: int, device: torch.device, position_NL: Tensor | None
) -> Tensor:
    if position_NL is not None:
        return position_NL
    return (torch.arange(length, device=device) + seen)[None]


def _real(
    attention_mask: Tensor | None, shape: tuple[int, int], seen: int | Tensor
) -> Tensor | None:
    """(N, S) bool, None where all tokens are real."""
    if attention_mask is None:
        return None
    if attention_mask.dim() != 2 or attention_mask.shape[0] != shape[0]:
        raise ValueError(
            f"an attention_mask has a row for each of the {shape[0]} sequences, or 4 dims: got "
            f"{tuple(attention_mask.shape)}"
        )
    if _traced():
        return attention_mask.bool()
    tokens = int(seen) + shape[1]
    if attention_mask.shape[1] != tokens:
        raise ValueError(
            f"an attention_mask has a column for each token, those of the cache included: got "
            f"{attention_mask.shape[1]} columns for {tokens} tokens"
        )
    return None if bool(attention_mask.all()) else attention_mask.bool()


def _runs(position_NL: Tensor, real_NL: Tensor | None, cached: bool) -> Tensor | None:
    """(N, L): the number of the packed sequence that each token belongs to, None where each row is
    one. A sequence begins where a real token's position is not beyond that of the real one before
    it."""
    if position_NL.shape[1] == 1 or (cached and _traced()):
        return None
    real_NL = torch.ones_like(position_NL, dtype=torch.bool) if real_NL is None else real_NL
    place_L = torch.arange(position_NL.shape[1], device=position_NL.device)
    newest_NL = torch.where(real_NL, place_L, -1).cummax(1).values
    before_NL = F.pad(newest_NL[:, :-1], (1, 0), value=-1)
    behind_NL = position_NL <= position_NL.gather(1, before_NL.clamp_min(0))
    begins_NL = real_NL & (before_NL >= 0) & behind_NL
    if not _traced() and not bool(begins_NL.any()):
        return None
    if cached:
        raise ValueError(
            "packed sequences (position_ids that start again) cannot be cached, for no later token "
            "could tell them apart: give them with use_cache=False and without past_key_values"
        )
    return begins_NL.cumsum(1)
