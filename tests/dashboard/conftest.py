"""A database of made-up studies for the dashboard's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nas.store import Store, StudyRecord, StudyState
from search_space.contract import EvalResult, Progress, Status
from search_space.spec import FFNSpec, Hash, TopK

SPECS = (
    FFNSpec(d_ff=512),
    FFNSpec(d_ff=2048, expert_width=64, selection=TopK(k=8)),
    FFNSpec(d_ff=2048, expert_width=128, selection=Hash(k=2)),
    FFNSpec(d_ff=2048, expert_width=128, selection=TopK(k=1)),
    FFNSpec(d_ff=512, activation="relu"),
)


def fill_study(store: Store, name: str, state: StudyState) -> StudyRecord:
    """Trials 0-2 finish (0 is dominated), 3 diverges, 4 runs unless the study has ended."""
    study = store.create_study(
        name, {"corpus": "prose"}, 0, 1e13, ["bits_per_byte", "active_flops"]
    )
    store.update_study(study.id, facts={"ngram_bits_per_byte": {"3": 2.5, "5": 1.9}})
    measures = ((2.4, 9e5), (2.0, 8e5), (2.2, 2e5), (None, 3e5), (None, 4e5))
    for spec, (bits, flops) in zip(SPECS, measures, strict=True):
        trial = store.add_trial(
            study.id,
            spec,
            seed=0,
            source="preset",
            params={},
            train_flops=1e12,
            cost={"active_flops": flops, "total_params": 1e6},
        )
        store.add_progress(
            [
                Progress(trial=trial.id, step=s, steps=9, flops=s * 1e11, loss=6 - s, seconds=s)
                for s in (1, 2, 3)
            ]
        )
        if trial.number == 4 and state is StudyState.RUNNING:
            continue
        ending = {0: Status.FINISHED, 1: Status.FINISHED, 2: Status.FINISHED, 3: Status.DIVERGED}
        store.end_trial(
            EvalResult(
                trial=trial.id,
                status=ending.get(trial.number, Status.STOPPED),
                bits_per_byte=bits,
                bits_per_byte_se=0.01 if bits else None,
                flops=1e12,
                error="" if bits else "the loss is not finite at step 3",
            )
        )
    if state is not StudyState.RUNNING:
        store.update_study(study.id, state=state)
    return study


@pytest.fixture
def url(tmp_path: Path) -> str:
    """The URL of a database with no studies."""
    url = f"sqlite:///{tmp_path}/nas.db"
    Store.open(url).close()
    return url


@pytest.fixture
def fill() -> Callable[[Store, str, StudyState], StudyRecord]:
    """`fill_study`, for tests that cannot import this file by name."""
    return fill_study
