"""Hidden units and their gradients, in one pass over the pre-activations.

R rows (pairs of a token and an expert), G hidden units of each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from workers.kernels.numba.library import jit_any_order, operator

CODES = {"relu": 0, "silu": 1, "gelu": 2}
# numba compiles a function once for each type of its arguments: by a type for each activation,
# none asks for its name as it runs.
KINDS = (False, 0, 0.0)
LOG2_E, LN_2 = 1 / math.log(2), math.log(2)
# Past these, a float32's exponential is nothing or too large.
LEAST, MOST = -87.0, 88.0


def _exp(x: Any) -> Any:
    """e^x."""
    raise NotImplementedError


@overload(_exp)
def _exp_of(x: Any) -> Callable[[Any], Any]:
    def library(x: Any) -> Any:
        return math.exp(x)

    def exponential(x: Any) -> Any:
        # 2^n e^r with |r| <= ln(2) / 2: a power of two by its bits, and Taylor's first terms.
        x = min(max(x, np.float32(LEAST)), np.float32(MOST))
        n = np.floor(x * np.float32(LOG2_E) + np.float32(0.5))
        r = (x - n * np.float32(0.693359375)) - n * np.float32(LN_2 - 0.693359375)
        y = np.float32(1 / 5040)
        y = y * r + np.float32(1 / 720)
        y = y * r + np.float32(1 / 120)
        y = y * r + np.float32(1 / 24)
        y = y * r + np.float32(1 / 6)
        y = y * r + np.float32(0.5)
        y = y * r + np.float32(1)
        y = y * r + np.float32(1)
        return y * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)

    return exponential if x is types.float32 else library


def _erf_and_bell(x: Any) -> tuple[Any, Any]:
    """erf(x / sqrt(2)) and e^(-x^2 / 2)."""
    raise NotImplementedError


@overload(_erf_and_bell)
def _erf_and_bell_of(x: Any) -> Callable[[Any], tuple[Any, Any]]:
    def library(x: Any) -> tuple[Any, Any]:
        return math.erf(x * math.sqrt(0.5)), math.exp(-0.5 * x * x)

    def by_one_exponential(x: Any) -> tuple[Any, Any]:
        # Abramowitz and Stegun 7.1.26: within 1.5e-7, and the exponential is the slope's too.
        size = abs(x) * np.float32(math.sqrt(0.5))
        bell = _exp(-size * size)
        t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * size)
        y = np.float32(1.061405429)
        y = y * t + np.float32(-1.453152027)
        y = y * t + np.float32(1.421413741)
        y = y * t + np.float32(-0.284496736)
        y = y * t + np.float32(0.254829592)
        erf = np.float32(1) - y * t * bell
        return (erf if x >= 0 else -erf), bell

    return by_one_exponential if x is types.float32 else library


def _value_and_slope(kind: Any, x: Any) -> tuple[Any, Any]:
    """act(x) and act'(x) of a kind; relu's slope at 0 is 0."""
    raise NotImplementedError


@overload(_value_and_slope)
def _value_and_slope_of(kind: Any, x: Any) -> Callable[[Any, Any], tuple[Any, Any]]:
    cast: Any = np.float32 if x is types.float32 else np.float64
    zero, half, one, density = cast(0), cast(0.5), cast(1), cast(1 / math.sqrt(2 * math.pi))

    def relu(kind: Any, x: Any) -> tuple[Any, Any]:
        return (x if x > zero else zero), (one if x > zero else zero)

    def silu(kind: Any, x: Any) -> tuple[Any, Any]:
        share = one / (one + _exp(-x))
        return x * share, share + x * share * (one - share)

    def gelu(kind: Any, x: Any) -> tuple[Any, Any]:
        erf, bell = _erf_and_bell(x)
        share = half + half * erf
        return x * share, share + x * bell * density

    if isinstance(kind, types.Boolean):
        return relu
    return silu if isinstance(kind, types.Integer) else gelu


@jit_any_order
def _hidden(kind: Any, key_RG: Any, gate_RG: Any, weight_R: Any, h_RG: Any) -> None:
    """h = weight act(gate) key; without gates (none of their rows) weight act(key). No weights
    are ones."""
    for r in range(len(h_RG)):
        key_G, h_G = key_RG[r], h_RG[r]
        weight = weight_R[r] if len(weight_R) else h_RG.dtype.type(1)
        if len(gate_RG):
            gate_G = gate_RG[r]
            for g in range(len(h_G)):
                h_G[g] = _value_and_slope(kind, gate_G[g])[0] * key_G[g] * weight
        else:
            for g in range(len(h_G)):
                h_G[g] = _value_and_slope(kind, key_G[g])[0] * weight


@jit_any_order
def _hidden_backward(
    kind: Any,
    key_RG: Any,
    gate_RG: Any,
    weight_R: Any,
    dh_RG: Any,
    h_RG: Any,
    d_gate_RG: Any,
    d_weight_R: Any,
) -> None:
    """`_hidden` anew, and for the gradient dh of it those of the keys' side, in dh's place, of the
    gates' and of the weights."""
    for r in range(len(h_RG)):
        key_G, dh_G, h_G = key_RG[r], dh_RG[r], h_RG[r]
        weight = weight_R[r] if len(weight_R) else h_RG.dtype.type(1)
        total = h_RG.dtype.type(0)
        if len(gate_RG):
            gate_G, d_gate_G = gate_RG[r], d_gate_RG[r]
            for g in range(len(h_G)):
                value, slope = _value_and_slope(kind, gate_G[g])
                key, dh = key_G[g], dh_G[g]
                total += value * key * dh
                h_G[g] = value * key * weight
                d_gate_G[g] = dh * weight * key * slope
                dh_G[g] = dh * weight * value
        else:
            for g in range(len(h_G)):
                value, slope = _value_and_slope(kind, key_G[g])
                dh = dh_G[g]
                total += value * dh
                h_G[g] = value * weight
                dh_G[g] = dh * weight * slope
        if len(d_weight_R):
            d_weight_R[r] = total


@operator("hidden(int code, Tensor key, Tensor gate, Tensor weight, Tensor(a!) h) -> ()")
def hidden(code: int, *arrays: Any) -> None:
    """h = weight act(gate) key, or weight act(key) where there are no gates."""
    _hidden(KINDS[code], *arrays)


@operator(
    "hidden_backward(int code, Tensor key, Tensor gate, Tensor weight, Tensor(a!) dh, "
    "Tensor(b!) h, Tensor(c!) d_gate, Tensor(d!) d_weight) -> ()"
)
def hidden_backward(code: int, *arrays: Any) -> None:
    """`hidden` anew, and its gradients: that of the keys' side in dh's place."""
    _hidden_backward(KINDS[code], *arrays)
