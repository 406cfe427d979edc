"""The frames and numbers behind the page."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from math import isnan

import pytest

from dashboard.data.snapshot import (
    evaluation_frame,
    headline,
    outcome_frame,
    read,
    spec_frame,
    trial_frame,
)
from dashboard.data.source import KEPT, Source
from nas.store import Store, StudyState
from search_space.contract import EvalResult, Status
from search_space.errors import InputError
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow


def test_the_headline_counts_and_compares(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        head = headline(read(store, "demo"))
    assert (head.finished, head.running, head.stopped, head.failed) == (3, 1, 0, 1)
    assert (head.spent, head.budget) == (4e12, 1e13)
    assert (head.best, head.best_noise, head.ngram) == (2.0, 0.01, ("5", 1.9))
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
    assert (head.best, head.best_noise, head.ngram) == (None, None, None)


def test_a_snapshot_holds_the_running_curves_only(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        fill(store, "done", StudyState.FINISHED)
        running, done = read(store, "demo"), read(store, "done")
        with pytest.raises(InputError, match="did you mean 'demo'"):
            read(store, "dem")
    (id,) = (each.id for each in running.running)
    assert running.evaluations[id].trial == 4
    assert list(running.live) == [id]
    assert [point.step for point in running.live[id]] == [1, 2, 3]
    assert (running.ended, done.ended, done.live) == (False, True, {})


def test_a_second_reading_reads_what_happened_since(url: str, fill, monkeypatch) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        first = read(store, "demo")
        for everything in ("trials", "evaluations"):
            monkeypatch.setattr(Store, everything, None)  # never all of them again
        assert read(store, "demo", first) == first
        more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1e9, "cost": {}}
        new, begun = store.add_trial(study.id, FFNSpec(d_ff=8), **more)
        (open,) = first.running
        ending = EvalResult(evaluation=open.id, status=Status.STOPPED, flops=1e11)
        trial, ended = store.end_evaluation(ending)
        second = read(store, "demo", first)
        assert second.stamp != first.stamp
        assert second.trials == [*first.trials[:4], trial, new]
        assert second.evaluations == first.evaluations | {ended.id: ended, begun.id: begun}
        assert second.ledger == store.ledger(study.id)
        monkeypatch.undo()
        assert read(store, "demo") == second


def test_readings_follow_promotions_repeats_and_what_is_taken_up(url, fill_with_rungs) -> None:
    """Each step as a page would see it, against a reading of everything."""
    with Store.open(url) as store:
        study = fill_with_rungs(store, "demo")
        seen, stamps = read(store, "demo"), set()

        def look() -> None:
            nonlocal seen
            seen = read(store, "demo", seen)
            assert seen == read(store, "demo")
            assert seen.stamp not in stamps, "the page is drawn again"
            stamps.add(seen.stamp)

        look()
        (running,) = seen.running
        ending = {"evaluation": running.id, "status": Status.STOPPED, "flops": 1e11}
        store.end_evaluation(EvalResult(**ending))
        look()
        assert seen.trials[3].status is Status.STOPPED
        taken = store.claim(study.id, "somebody")
        assert taken is not None
        look()
        lost = store.worker_lost(taken.id, taken.attempt, "another")
        look()
        store.end_evaluation(
            EvalResult(
                evaluation=lost.id, attempt=lost.attempt, status=Status.FINISHED, bits_per_byte=2.7
            )
        )
        look()
        assert (seen.trials[3].status, seen.trials[3].rung) == (Status.PAUSED, 1)
        more = {"rung": 2, "until_flops": 9e12, "start_flops": 0.0}
        id = store.add_evaluation(study.id, seen.trials[1].id, seed=1, **more).id
        look()
        assert seen.trials[1].status is Status.FINISHED, "a repeat leaves its trial finished"
        ending = {"evaluation": id, "status": Status.FINISHED, "bits_per_byte": 2.0}
        store.end_evaluation(EvalResult(**ending))
        look()
        assert (seen.trials[1].seeds, seen.trials[1].bits_per_byte) == (2, pytest.approx(2.2))
        store.hold_study(study.id, "somebody")
        look()


def test_the_curves_of_a_running_run_include_its_lower_rungs(
    url, fill_with_rungs, monkeypatch
) -> None:
    with Store.open(url) as store:
        fill_with_rungs(store, "demo")
        first, read_curves = read(store, "demo"), []
        lower, running = first.by_trial[3]
        assert [len(first.live[id]) for id in (lower.id, running.id)] == [3, 1]
        assert set(first.live) == {lower.id, running.id}
        curve = Store.curve
        monkeypatch.setattr(
            Store, "curve", lambda self, id: read_curves.append(id) or curve(self, id)
        )
        assert read(store, "demo", first) == first
        assert read_curves == [running.id], "what a lower rung trained is read once"


def test_the_headline_of_a_study_with_rungs(url: str, fill_with_rungs) -> None:
    with Store.open(url) as store:
        fill_with_rungs(store, "demo")
        head = headline(read(store, "demo"))
    assert (head.finished, head.paused, head.running, head.failed) == (2, 1, 1, 1)
    assert (head.best, head.best_seeds) == (pytest.approx(2.2), 2)
    deviation = (0.2**2 / 2) ** 0.5  # of 2.1 and 2.3
    assert head.best_noise == pytest.approx(deviation / 2**0.5)
    assert head.frontier == 1


def test_frames_of_a_study_with_rungs(url: str, fill_with_rungs) -> None:
    with Store.open(url) as store:
        fill_with_rungs(store, "demo")
        snapshot = read(store, "demo")
    frame = trial_frame(snapshot).set_index("trial")
    assert frame["rung"].tolist() == [2, 2, 0, 0, 0]
    assert frame["seeds"].tolist() == [2, 1, 1, 1, 1]
    assert frame["bits_per_byte"].tolist() == pytest.approx([2.2, 2.4, 3.5, 3.05, 3.2])
    # Below the top the deviation of a seed is not known.
    assert frame["noise"].tolist()[:4] == pytest.approx([0.1, 0.02**0.5, 0.01, 0.01])
    assert isnan(frame.loc[4, "noise"]), "its last evaluation has no measure"
    assert frame["seconds"].tolist() == [8.0, 6.0, 2.0, 2.0, 4.0]
    assert frame.loc[0, "flops_spent"] == pytest.approx(1e12 + 2.3e12 + 6.9e12 + 9e12)
    own = evaluation_frame(snapshot.by_trial[0])
    assert own["seed"].tolist() == [0, 0, 0, 1]
    assert own["rung"].tolist() == [0, 1, 2, 2]
    assert own["until_flops"].tolist() == [1e12, 3e12, 9e12, 9e12]
    assert own["bits_per_byte"].tolist() == [3.0, 2.5, 2.1, 2.3]
    assert set(own["status"]) == {"finished"} and set(own["attempt"]) == {1}
    outcome = dict(outcome_frame(snapshot, snapshot.trials[0]).itertuples(index=False))
    assert (outcome["rung"], outcome["seeds"]) == ("2 of 0 to 2", "2")
    assert outcome["Bits per byte"] == "2.2000"
    assert outcome["± one standard error"] == "0.1000"
    assert outcome["Deviation of one seed"] == "0.1414"


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
        fill(store, "demo", StudyState.RUNNING)
        snapshot = read(store, "demo")
    trial = snapshot.trials[1]
    shown = dict(spec_frame(snapshot.study, trial).itertuples(index=False))
    spec = trial.spec.to_dict()
    knobs = {f"· {name}" for name in spec.pop("selection")} - {"· method"}
    assert set(shown) == set(spec) | {"selection", "native form"} | knobs
    assert shown["native form"].startswith("none: its experts are plain")
    assert (shown["selection"], shown["· k"], shown["gated"]) == ("topk", "8", "no")
    outcome = dict(outcome_frame(snapshot, trial).itertuples(index=False))
    assert outcome["Bits per byte"] == "2.0000"
    assert outcome["± one standard error"] == outcome["Standard error over windows"] == "0.0100"
    assert "rung" not in outcome, "a study of one rung does not speak of rungs"
    assert outcome["Active FLOPs per token"] == "800k"
    assert outcome["FLOPs spent"] == "1T"


def test_the_page_says_how_sure_the_frontier_is(url: str, fill_with_rungs) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "rungs")
        snapshot = read(store, "rungs")
        # 1, dominated with 2.4 against 2.2, may be the better one: a seed deviates by a tenth.
        chances = {number: chance.probability for number, chance in snapshot.chances.items()}
        assert list(chances) == [0, 1] and chances[0] == 1.0 and 0.01 < chances[1] < 0.3
        frame = trial_frame(snapshot).set_index("trial")
        assert frame["p_frontier"].tolist()[:2] == list(chances.values())
        assert frame["p_frontier"][2:].isna().all()
        outcome = dict(outcome_frame(snapshot, snapshot.trials[0]).itertuples(index=False))
        assert outcome["Probability of being on the frontier"] == "1.00"
        # A cheaper design comes to the top: 0 has a neighbour then.
        cheap = store.add_trial(
            study.id, FFNSpec(d_ff=8), seed=0, source="x", params={}, until_flops=9e12, rung=2,
            cost={"active_flops": 1e4, "total_params": 1e5},
        )[1]  # fmt: skip
        store.end_evaluation(
            EvalResult(
                evaluation=cheap.id,
                status=Status.FINISHED,
                bits_per_byte=2.9,
                bits_per_byte_se=0.01,
                flops=9e12,
            )
        )
        again = read(store, "rungs", snapshot)
    number, gap = again.chances[0].cheaper
    assert number == 5 and gap.value == pytest.approx(-0.7)
    words = f"{gap.value:+.4f} ± {gap.error:.4f} (#5)"
    outcome = dict(outcome_frame(again, again.trials[0]).itertuples(index=False))
    assert outcome["Bits per byte less the next cheaper design's"] == words
    assert trial_frame(again).set_index("trial")["vs_cheaper"][0] == words


def test_the_data_need_no_page_and_no_workers() -> None:
    program = (
        "import sys, dashboard.data.reading, nas.store, nas.views; "
        "print([m for m in ('torch', 'triton', 'ray', 'streamlit') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
