"""Student's t distribution: the standard library has the normal one alone, whose module takes
20 ms to import.

The regularised incomplete beta function by its continued fraction (DLMF 8.17.22), evaluated from
the front with the modified Lentz method.
"""

from __future__ import annotations

import math
from functools import lru_cache

NORMAL_FROM = 1e7  # degrees of freedom from which the normal distribution is as good
_TERMS, _TINY, _CLOSE = 500, 1e-300, 1e-15


def below(t: float, freedom: float) -> float:
    """The probability that a value of that many degrees of freedom (above 0) lies below t."""
    if freedom >= NORMAL_FROM:
        return 0.5 * math.erfc(-t / math.sqrt(2))
    beyond = 0.5 * _beta_share(freedom / 2, 0.5, freedom / (freedom + t * t))
    return 1 - beyond if t > 0 else beyond


@lru_cache(maxsize=256)
def quantile(share: float, freedom: float) -> float:
    """The value that lies above so large a share, in [0.5, 1), of all."""
    low, high = 0.0, 1.0
    while below(high, freedom) < share:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle, freedom) < share else (low, middle)
    return high


def _beta_share(a: float, b: float, x: float) -> float:
    """I_x(a, b), in [0, 1]."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges fast below that
        return 1 - _beta_share(b, a, 1 - x)
    logarithm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logarithm + a * math.log(x) + b * math.log1p(-x)) / a
    upper, lower, value = 1.0, 0.0, 1.0
    for m in range(_TERMS):
        for term in _terms(a, b, x, m):
            lower = 1 / _away_from_0(1 + term * lower)
            upper = _away_from_0(1 + term / upper)
            value *= upper * lower
        if m and abs(upper * lower - 1) < _CLOSE:
            break
    return min(1.0, front / value)


def _terms(a: float, b: float, x: float, m: int) -> tuple[float, ...]:
    """The fraction's terms 2m and 2m + 1; without the one of number 0."""
    odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    if m == 0:
        return (odd,)
    return m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), odd


def _away_from_0(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
