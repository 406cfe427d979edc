"""What the parts of a design cost, in closed form, a token. Methods price themselves with them.

The currency (docs/architecture.md): a multiply-add is 2 FLOPs. Counted are matrix products,
attention (the causal half), routers and key search, and row gathers (2 an element used).
Element-wise work (norms, activations, means, sorting, the embedding look-up) is not.

Three counts differ where a method computes more in training than in use:
forward_flops: the forward pass while training.
training_flops: forward and backward while training, as the layers really do them.
active_flops: the forward pass in inference.

D model width, B experts of G hidden units, k of them read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

FLOAT = 4  # bytes of a float32
INDEX = 2  # floats that an int64 takes the room of


@dataclass(frozen=True, kw_only=True)
class Cost:
    """FLOPs a token, parameters and bytes (float32) of one FFN or one model.

    active_params: parameters that one token's inference reads, at most (heads of a product-key
        layer may pick the same row).
    param_bytes: of all parameters.
    activation_bytes: what the forward pass keeps for backward, a token: an estimate that leaves
        out what is small beside it (within 15% of the measured).
    decode_bytes: what one decoding step of one sequence reads: the active parameters, and
        Avg-K's expert keys. The attention cache is not counted.
    """

    forward_flops: float = 0.0
    active_flops: float = 0.0
    training_flops: float = 0.0
    total_params: int = 0
    active_params: float = 0.0
    param_bytes: int = 0
    activation_bytes: float = 0.0
    decode_bytes: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        theirs = vars(other)
        return Cost(**{k: v + theirs[k] for k, v in vars(self).items()})

    def times(self, n: int) -> Cost:
        """n of these."""
        return Cost(**{k: v * n for k, v in vars(self).items()})

    def to_dict(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)


def parameters(n: int, *, used: float = 1.0) -> Cost:
    """n parameters without products, such as a norm's; a token reads the share `used`."""
    active = n * min(1.0, used)
    return Cost(
        total_params=n, active_params=active, param_bytes=FLOAT * n, decode_bytes=FLOAT * active
    )


def matrix(inner: int, outer: int, *, used: float = 1.0, trained: float | None = None) -> Cost:
    """A product with an (inner, outer) weight of which a token uses the share `used` in inference
    and `trained` (default: the same) while training; backward costs twice the forward."""
    trained = used if trained is None else trained
    forward = 2.0 * inner * outer
    return parameters(inner * outer, used=used) + Cost(
        forward_flops=forward * trained,
        active_flops=forward * used,
        training_flops=3 * forward * trained,
    )


def search(inner: int, outer: int) -> Cost:
    """Scores against (inner, outer) numbers that are no parameters of their own, no backward."""
    flops = 2.0 * inner * outer
    return Cost(forward_flops=flops, active_flops=flops, training_flops=flops)


def saved(floats: float) -> Cost:
    """float32 numbers kept for backward, a token."""
    return Cost(activation_bytes=FLOAT * floats)


def norm(d_model: int) -> Cost:
    """An RMSNorm; its input, one number of it and its output are kept."""
    return parameters(d_model) + saved(2 * d_model + 1)
