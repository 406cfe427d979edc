"""What an ending may carry: only finite numbers, and a finished evaluation has a measure."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from nas.store.windows import MOST
from search_space.contract import EvalResult, Status


def settled(result: EvalResult) -> EvalResult:
    """The ending as it is recorded, but for its FLOPs.

    A finished evaluation without a finite `bits_per_byte` is recorded as diverged. A measure that
    is not finite becomes None.
    """
    status, error = result.status, " ".join(_text(result.error).replace("\0", " ").split())
    if status is Status.FINISHED and _finite(result.bits_per_byte) is None:
        status = Status.DIVERGED
        reason = f"bits_per_byte is {result.bits_per_byte}, not a finite number"
        error = f"{error}; {reason}" if error else reason
    activity = result.activity if all(map(math.isfinite, result.activity)) else []
    windows = result.windows if all(abs(nats) <= MOST for nats in result.windows) else []
    return replace(
        result,
        status=status,
        error=error,
        bits_per_byte=_finite(result.bits_per_byte),
        bits_per_byte_se=_finite(result.bits_per_byte_se),
        loss=_finite(result.loss),
        windows=list(windows),
        optimizer_flops=_finite(result.optimizer_flops) or 0.0,
        trunk_flops=_finite(result.trunk_flops) or 0.0,
        active_flops=_finite(result.active_flops),
        activity=list(activity),
        stats=_plain(result.stats),
        seconds=_finite(result.seconds) or 0.0,
    )


def spent_flops(claimed: float, reserved: float) -> float:
    """The FLOPs to charge: what the worker claims, or all that was reserved when it makes no sense.

    An ending that cannot tell its FLOPs must not give them back to the budget.
    """
    return claimed if math.isfinite(claimed) and claimed >= 0 else reserved


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _plain(value: Any) -> Any:
    # JSON has no NaN: PostgreSQL refuses one, SQLite would hand it on.
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(text: str) -> str:
    """`text` with lone surrogates (of a file's name, say) spelled out: no database takes them."""
    return text.encode("utf-8", "backslashreplace").decode()
