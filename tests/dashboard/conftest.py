"""A database of made-up studies for the dashboard's tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nas.store import Facts, Store, StudyRecord, StudyState
from search_space.contract import EvalResult, Progress, Status
from search_space.methods.hash import Hash
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec

SPECS = (
    FFNSpec(d_ff=512),
    FFNSpec(d_ff=2048, expert_width=64, selection=TopK(k=8)),
    FFNSpec(d_ff=2048, expert_width=128, selection=Hash(k=2)),
    FFNSpec(d_ff=2048, expert_width=128, selection=TopK(k=1)),
    FFNSpec(d_ff=512, activation="relu"),
)


@pytest.fixture(autouse=True)
def the_same_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit's AppTest makes its script `__main__`, and leaves it: whatever starts processes in
    a later test would have them run that script first."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


def fill_study(store: Store, name: str, state: StudyState) -> StudyRecord:
    """Trials 0-2 finish (0 is dominated), 3 diverges, 4 runs unless the study has ended."""
    study = store.create_study(
        name, {"corpus": "prose"}, 0, 1e13, ["bits_per_byte", "active_flops"]
    )
    store.update_study(study.id, facts=Facts(ngram_bits_per_byte={"3": 2.5, "5": 1.9}))
    measures = ((2.4, 9e5), (2.0, 8e5), (2.2, 2e5), (None, 3e5), (None, 4e5))
    for number, (bits, flops) in enumerate(measures):
        id = begin(store, study, number, until=1e12, flops=flops)
        report(store, id, [(s, s * 1e11, 6 - s) for s in (1, 2, 3)])
        if number == 4 and state is StudyState.RUNNING:
            continue
        ending = {0: Status.FINISHED, 1: Status.FINISHED, 2: Status.FINISHED, 3: Status.DIVERGED}
        end(store, id, bits, flops=1e12, status=ending.get(number, Status.STOPPED))
    if state is not StudyState.RUNNING:
        store.update_study(study.id, state=state)
    return study


LEVELS = (1e12, 3e12, 9e12)
DECAY = 0.3


def fill_rungs(store: Store, name: str) -> StudyRecord:
    """A running study of three rungs.

    Trial 0 is at the top with two seeds (2.1 and 2.3: a mean of 2.2, a deviation of 0.1414), 1 with
    one (2.4, dominated), 2 is paused at rung 0, 3 is on its way to rung 1, 4 diverged on it.
    """
    config = {"recipe": {"decay": DECAY}}
    objectives = ["bits_per_byte", "active_flops"]
    study = store.create_study(name, config, 0, 1e14, objectives, rungs=3)
    ways = ((3.0, 2.5, 2.1), (3.1, 2.6, 2.4), (3.5,), (3.05,), (3.2,))
    for number, bits in enumerate(ways):
        id = begin(store, study, number, until=LEVELS[0], flops=(number + 1) * 1e5)
        trial = store.evaluation(id).trial_id
        for rung, measure in enumerate(bits):
            if rung:
                id = go_on(store, study, trial, rung)
            bring(store, id, rung, measure)
        if number in (3, 4):
            id = go_on(store, study, trial, 1)
            report(store, id, [(8, 0.8e12, 3.4)])
        if number == 4:
            end(store, id, None, flops=1e11, status=Status.DIVERGED)
    first = store.trial(study.id, 0)
    id = store.add_evaluation(
        study.id, first.id, seed=1, rung=2, until_flops=LEVELS[2], start_flops=0.0
    ).id
    report(store, id, [(10, 1e12, 4.0), (90, 9e12, 2.9)])
    end(store, id, 2.3, flops=9e12, trunk=6.3e12)
    return study


def begin(store: Store, study: StudyRecord, number: int, *, until: float, flops: float) -> int:
    """A new trial; returns its first evaluation."""
    return store.add_trial(
        study.id,
        SPECS[number],
        seed=0,
        source="preset",
        params={},
        until_flops=until,
        cost={"active_flops": flops, "total_params": 1e6},
    )[1].id


def go_on(store: Store, study: StudyRecord, trial: int, rung: int) -> int:
    """Promote the trial's first run; returns the new evaluation."""
    start = (1 - DECAY) * LEVELS[rung - 1]
    more = {"until_flops": LEVELS[rung], "start_flops": start}
    return store.add_evaluation(study.id, trial, seed=0, rung=rung, **more).id


def bring(store: Store, id: int, rung: int, bits: float) -> None:
    """Two points of the trunk, one of the branch, and the measure."""
    level = LEVELS[rung]
    fork = (1 - DECAY) * level
    start = (1 - DECAY) * LEVELS[rung - 1] if rung else 0.0
    shares = ((start + fork) / 2, fork, level)
    report(store, id, [(int(f / 1e11), f, 5.0 - rung - f / level) for f in shares])
    end(store, id, bits, flops=level - start, trunk=fork)


def report(store: Store, id: int, points: Sequence[tuple[int, float, float]]) -> None:
    """points: step, flops, loss."""
    store.add_progress(
        [
            Progress(evaluation=id, step=step, steps=100, flops=flops, loss=loss, seconds=1.0)
            for step, flops, loss in points
        ]
    )


def end(
    store: Store,
    id: int,
    bits: float | None,
    *,
    flops: float,
    status: Status = Status.FINISHED,
    trunk: float = 0.0,
) -> None:
    """How an evaluation ended."""
    store.end_evaluation(
        EvalResult(
            evaluation=id,
            status=status,
            bits_per_byte=bits,
            bits_per_byte_se=0.01 if bits else None,
            flops=flops,
            trunk_flops=trunk,
            seconds=2.0,
            error="" if bits else "the loss is not finite at step 3",
        )
    )


@pytest.fixture
def url(tmp_path: Path, new_database: Callable[[Path], str]) -> str:
    """The URL of a database with no studies."""
    return new_database(tmp_path)


@pytest.fixture(scope="session")
def fill() -> Callable[[Store, str, StudyState], StudyRecord]:
    """`fill_study`, for tests that cannot import this file by name."""
    return fill_study


@pytest.fixture(scope="session")
def fill_with_rungs() -> Callable[[Store, str], StudyRecord]:
    """`fill_rungs`, likewise."""
    return fill_rungs
