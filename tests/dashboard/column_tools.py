"""Made-up columns of a study, as `Reading` has them, of any size."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from nas.store import Facts, StudyRecord, StudyState

METHODS = ("dense", "topk", "hash")


def study_record(**changes: Any) -> StudyRecord:
    """A study of one rung, of two objectives."""
    made: dict[str, Any] = {
        "id": 1,
        "uid": "0" * 32,
        "name": "demo",
        "config": {"backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4, "vocab_size": 1024}},
        "seed": 0,
        "budget_flops": 1e12,
        "objectives": ["bits_per_byte", "active_flops"],
        "state": StudyState.RUNNING,
        "facts": Facts(ngram_bits_per_byte={"3": 2.9, "4": 2.1, "5": 1.2}),
        "created_at": datetime.now(UTC),
    }
    return StudyRecord(**(made | changes))


def trials_frame(
    bits: Sequence[float], flops: Sequence[float], params: Sequence[float] | None = None
) -> pd.DataFrame:
    """Finished trials of the top rung 0, of three methods in turn."""
    count = len(bits)
    frame = pd.DataFrame(
        {
            "design": [f"{METHODS[n % 3]} 1x{n}" for n in range(count)],
            "method": [METHODS[n % 3] for n in range(count)],
            "status": "finished",
            "rung": 0,
            "seeds": 1,
            "frontier": False,
            "infeasible": "",
            "bits_per_byte": np.asarray(bits, dtype=float),
            "noise": 0.01,
            "p_frontier": np.nan,
            "vs_cheaper": None,
            "bits_per_byte_se": 0.01,
            "active_flops": np.asarray(flops, dtype=float),
            "total_params": np.asarray(params if params is not None else flops, dtype=float),
            "active_params": np.asarray(flops, dtype=float),
            "training_flops": np.asarray(flops, dtype=float) * 3,
            "flops_spent": 1e12,
            "seconds": 2.0,
            "source": "tpe",
            "error": "",
        },
        index=pd.RangeIndex(count, name="trial"),
    )
    return frame.astype({"rung": "Int64"})


def evaluations_frame(rows: Sequence[tuple[int, int, int, float | None, str]]) -> pd.DataFrame:
    """rows: trial, seed, rung, bits per byte and status."""
    return pd.DataFrame(
        [
            {
                "trial": trial,
                "seed": seed,
                "rung": rung,
                "status": status,
                "until_flops": 1e9 * 3**rung,
                "bits_per_byte": bits,
                "bits_per_byte_se": 0.02,
                "active_flops": np.nan,
                "error": "" if status != "failed" else "no <such> luck",
            }
            for trial, seed, rung, bits, status in rows
        ],
        columns=[
            *("trial", "seed", "rung", "status", "until_flops", "bits_per_byte"),
            *("bits_per_byte_se", "active_flops", "error"),
        ],
    ).rename_axis("id")
