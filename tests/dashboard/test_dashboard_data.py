"""The frames and numbers behind the page."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from dashboard.data import headline, outcome_frame, read, spec_frame, trial_frame
from dashboard.source import KEPT, Source
from nas.store import Store, StudyState
from search_space.contract import EvalResult, Status
from search_space.errors import InputError
from search_space.spec import FFNSpec


def test_the_headline_counts_and_compares(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        head = headline(read(store, "demo"))
    assert (head.finished, head.running, head.stopped, head.failed) == (3, 1, 0, 1)
    assert (head.spent, head.budget) == (4e12, 1e13)
    assert (head.best, head.best_se, head.ngram) == (2.0, 0.01, ("5", 1.9))
    assert head.frontier == 2
    # Against the worst values (2.4, 9e5), the two frontier boxes overlap in one corner.
    quality, cost = (2.0 / 2.4, 2.2 / 2.4), (8 / 9, 2 / 9)
    both = (1 - quality[0]) * (1 - cost[0]) + (1 - quality[1]) * (1 - cost[1])
    assert head.hypervolume == pytest.approx(both - (1 - quality[1]) * (1 - cost[0]))


def test_the_headline_of_an_empty_study(url: str) -> None:
    with Store.open(url) as store:
        store.create_study("new", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        head = headline(read(store, "new"))
    assert (head.finished, head.running, head.frontier, head.hypervolume) == (0, 0, 0, 0.0)
    assert (head.best, head.best_se, head.ngram) == (None, None, None)


def test_a_snapshot_holds_the_running_curves_only(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        fill(store, "done", StudyState.FINISHED)
        running, done = read(store, "demo"), read(store, "done")
        with pytest.raises(InputError, match="did you mean 'demo'"):
            read(store, "dem")
    assert [point.step for point in running.live[4]] == [1, 2, 3]
    assert list(running.live) == [trial.number for trial in running.running] == [4]
    assert (running.ended, done.ended, done.live) == (False, True, {})


def test_a_second_reading_reads_what_happened_since(url: str, fill, monkeypatch) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        first = read(store, "demo")
        monkeypatch.setattr(Store, "trials", None)  # never all of them again
        assert read(store, "demo", first) == first
        more = {"seed": 0, "source": "x", "params": {}, "train_flops": 1e9, "cost": {}}
        new = store.add_trial(study.id, FFNSpec(d_ff=8), **more)
        ending = EvalResult(trial=first.running[0].id, status=Status.STOPPED, flops=1e11)
        ended = store.end_trial(ending)
        second = read(store, "demo", first)
        assert second.stamp != first.stamp
        assert second.trials == [*first.trials[:4], ended, new]
        assert second.ledger == store.ledger(study.id)
        monkeypatch.undo()
        assert read(store, "demo") == second


def test_a_study_made_anew_is_read_whole(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.FINISHED)
        found = read(store, "demo")
        other = replace(found, study=replace(found.study, uid="other"), trials=found.trials[:1])
        assert read(store, "demo", other) == found


def test_a_source_remembers_what_was_drawn(url: str) -> None:
    made, source = [], Source(url)
    for key in ("a", "b", "a"):
        assert source.once(key, lambda key=key: made.append(key) or key) == key
    assert made == ["a", "b"]
    for key in range(KEPT):
        source.once(key, int)
    source.once("a", lambda: made.append("a"))
    assert made == ["a", "b", "a"]


def test_the_trial_frame_has_a_row_a_trial(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        snapshot = read(store, "demo")
    frame = trial_frame(snapshot).set_index("trial")
    assert list(frame.index) == [0, 1, 2, 3, 4]
    assert list(frame["design"]) == [trial.spec.label for trial in snapshot.trials]
    assert list(frame["frontier"]) == [False, True, True, False, False]
    assert list(frame["status"]) == ["finished"] * 3 + ["diverged", "running"]
    assert frame["bits_per_byte"].isna().tolist() == [False, False, False, True, True]
    assert frame.loc[1, "active_flops"] == 8e5
    assert frame.loc[3, "error"] == "the loss is not finite at step 3"
    assert trial_frame(replace(snapshot, trials=[])).empty


def test_the_detail_shows_every_field_of_the_spec(url: str, fill) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        trial = store.trial(study.id, 1)
    shown = dict(spec_frame(trial).itertuples(index=False))
    spec = trial.spec.to_dict()
    knobs = {f"· {name}" for name in spec.pop("selection")} - {"· method"}
    assert set(shown) == set(spec) | {"selection"} | knobs
    assert (shown["selection"], shown["· k"], shown["gated"]) == ("topk", "8", "no")
    outcome = dict(outcome_frame(trial, {}).itertuples(index=False))
    assert outcome["Bits per byte"] == "2.0000"
    assert outcome["Standard error"] == "0.0100"
    assert outcome["Active FLOPs per token"] == "800k"
    assert outcome["FLOPs spent"] == "1T"


def test_the_data_need_no_page_and_no_workers() -> None:
    program = (
        "import sys, dashboard.data, nas.store, nas.figure; "
        "print([m for m in ('torch', 'triton', 'ray', 'streamlit') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
