"""The frames and numbers behind the pages."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import pytest

from dashboard.data.curves import KEPT as KEPT_POINTS
from dashboard.data.curves import POINTS, Curves, best_rate
from dashboard.data.detail import outcome_frame, runs_frame, spec_frame
from dashboard.data.follower import Follower
from dashboard.data.headline import headline
from dashboard.data.source import KEPT, Source
from dashboard.data.studies import Summaries, summary_frame
from dashboard.data.working import endings, quickest, work
from dashboard.figures.live import live_data
from nas.store import Store, StudyState
from search_space.contract import EvalResult, Progress, Status
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow


def read(store: Store, name: str):
    """The study anew."""
    return Follower().read(store, name)


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


def test_the_headline_says_where_some_of_the_frontier_copies(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        reading = read(store, "demo")
    assert headline(reading).copying == "", "of an earlier version, nobody knows"
    for copied, words in (
        ((1, 0), "1 of 1 of trial 1, 0 of 1 of trial 2"),
        ((1, 1), ""),
        ((0, 0), ""),
    ):
        chances = {
            number: replace(reading.chances[number], copied=count)
            for number, count in zip((1, 2), copied, strict=True)
        }
        # Of what is not on the frontier nothing is said.
        chances[0] = replace(chances[1], copied=1 - copied[0])
        note = headline(replace(reading, chances=chances)).copying
        assert words in note and bool(note) == bool(words)


def test_the_headline_of_an_empty_study(url: str) -> None:
    with Store.open(url) as store:
        store.create_study("new", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        head = headline(read(store, "new"))
    assert (head.finished, head.running, head.frontier, head.hypervolume) == (0, 0, 0, 0.0)
    assert (head.best, head.best_noise, head.ngram) == (None, None, None)


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
        found = read(store, "demo")
        trials = store.trials(found.study.id)
    frame = found.trials
    assert frame["rung"].tolist() == [2, 2, 0, 0, 0]
    assert frame["seeds"].tolist() == [2, 1, 1, 1, 1]
    assert frame["bits_per_byte"].tolist() == pytest.approx([2.2, 2.4, 3.5, 3.05, 3.2])
    # Below the top the deviation of a seed is not known.
    assert frame["noise"].tolist()[:4] == pytest.approx([0.1, 0.02**0.5, 0.01, 0.01])
    assert isnan(frame.loc[4, "noise"]), "its last evaluation has no measure"
    assert frame["seconds"].tolist() == [8.0, 6.0, 2.0, 2.0, 4.0]
    assert frame.loc[0, "flops_spent"] == pytest.approx(1e12 + 2.3e12 + 6.9e12 + 9e12)
    own = runs_frame(found, 0)
    assert own["seed"].tolist() == [0, 0, 0, 1]
    assert own["rung"].tolist() == [0, 1, 2, 2]
    assert own["until_flops"].tolist() == [1e12, 3e12, 9e12, 9e12]
    assert own["bits_per_byte"].tolist() == [3.0, 2.5, 2.1, 2.3]
    assert set(own["status"]) == {"finished"} and set(own["attempt"]) == {1}
    outcome = dict(outcome_frame(found, trials[0]).itertuples(index=False))
    assert (outcome["rung"], outcome["seeds"]) == ("2 of 0 to 2", "2")
    assert outcome["Bits per byte"] == "2.2000"
    assert outcome["± one standard error"] == "0.1000"
    assert outcome["Deviation of one seed"] == "0.1414"


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
        found = read(store, "demo")
        trials = store.trials(found.study.id)
    frame = found.trials
    assert list(frame.index) == [0, 1, 2, 3, 4]
    assert list(frame["design"]) == [trial.spec.label for trial in trials]
    assert list(frame["frontier"]) == [False, True, True, False, False]
    assert list(frame["status"]) == ["finished"] * 3 + ["diverged", "running"]
    assert frame["bits_per_byte"].isna().tolist() == [False, False, False, True, True]
    assert frame.loc[1, "active_flops"] == 8e5
    assert frame.loc[3, "error"] == "the loss is not finite at step 3"


def test_the_detail_shows_every_field_of_the_spec(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        found = read(store, "demo")
        trials = store.trials(found.study.id)
    trial = trials[1]
    shown = dict(spec_frame(found.study, trial.spec).itertuples(index=False))
    spec = trial.spec.to_dict()
    knobs = {f"· {name}" for name in spec.pop("selection")} - {"· method"}
    assert set(shown) == set(spec) | {"selection", "native form"} | knobs
    assert shown["native form"].startswith("none: its experts are plain")
    assert (shown["selection"], shown["· k"], shown["gated"]) == ("topk", "8", "no")
    outcome = dict(outcome_frame(found, trial).itertuples(index=False))
    assert outcome["Bits per byte"] == "2.0000"
    assert outcome["± one standard error"] == outcome["Standard error over windows"] == "0.0100"
    assert "rung" not in outcome, "a study of one rung does not speak of rungs"
    assert outcome["FLOPs spent"] == "1T"


def test_the_page_says_how_sure_the_frontier_is(url: str, fill_with_rungs) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "rungs")
        found = read(store, "rungs")
        trials = store.trials(found.study.id)
        # 1, dominated with 2.4 against 2.2, may be the better one: a seed deviates by a tenth.
        chances = {number: chance.probability for number, chance in found.chances.items()}
        assert list(chances) == [0, 1] and chances[0] == 1.0 and 0.01 < chances[1] < 0.3
        frame = found.trials
        assert frame["p_frontier"].tolist()[:2] == list(chances.values())
        assert frame["p_frontier"][2:].isna().all()
        outcome = dict(outcome_frame(found, trials[0]).itertuples(index=False))
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
        again = read(store, "rungs")
    number, gap = again.chances[0].cheaper
    assert number == 5 and gap.value == pytest.approx(-0.7)
    words = f"{gap.value:+.4f} ± {gap.error:.4f} (#5)"
    outcome = dict(outcome_frame(again, trials[0]).itertuples(index=False))
    assert outcome["Bits per byte less the next cheaper design's"] == words
    assert again.trials["vs_cheaper"][0] == words


def test_the_curves_of_a_running_run_include_its_lower_rungs(url, fill_with_rungs) -> None:
    with Store.open(url) as store:
        fill_with_rungs(store, "demo")
        found, curves, asked = read(store, "demo"), Curves(), []
        lower, running = found.of_trial(3).index
        first = curves.read(store, found)
        assert {id: len(curve) for id, curve in first.items()} == {lower: 3, running: 1}
        points = [
            Progress(evaluation=running, step=8 + n, steps=100, flops=8e11 + 1e9 * n, loss=3.3,
                     seconds=1.0 + 2.0 * n)
            for n in range(1, 11)
        ]  # fmt: skip
        store.add_progress(points)
        read_columns = store.curve_columns
        store.curve_columns = lambda after, most: asked.append(after) or read_columns(after, most)
        again = curves.read(store, found)
        assert asked == [{running: 8}], "what a lower rung trained is read once"
        assert again[running].points["step"].tolist() == list(range(8, 19))
        assert again[lower] is first[lower]
        assert again[running].rate == pytest.approx(5e8), "FLOPs a second, of the newest points"
        figure = live_data(found, again)
        (line,) = figure["data"]
        assert line["name"].startswith("#3 ") and line["name"].endswith("rung 1")
        assert line["x"] == sorted(line["x"]) and len(line["x"]) == 2 + 11, "the trunk, then all"
        assert set(line["customdata"]) == {3}
        assert figure["layout"]["xaxis"]["title"]["text"] == "Training FLOPs of the run"
        now = work(found, again, 1e9)
        (row,) = now.running.to_dict("records")
        assert (row["trial"], row["rung"], row["step"], row["steps"]) == (3, 1, 18, 100)
        assert (row["rate"], row["share"]) == (pytest.approx(5e8), pytest.approx(0.5))
        assert now.rate == pytest.approx(5e8) and now.waiting == 0
        store.end_evaluation(EvalResult(evaluation=running, status=Status.STOPPED, flops=1e9))
        stopped = read(store, "demo")
        assert curves.read(store, stopped) == {}
        assert work(stopped, {}, None).waiting == 1 and work(stopped, {}, None).rate is None


def test_a_long_curve_is_kept_thin(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        found, curves = read(store, "demo"), Curves()
        (id,) = found.running.index
        for start in range(4, 20 * POINTS, POINTS):
            store.add_progress(
                [
                    Progress(evaluation=id, step=step, steps=10**5, flops=1e6 * step, loss=1.0,
                             seconds=float(step))
                    for step in range(start, start + POINTS)
                ]
            )  # fmt: skip
            curve = curves.read(store, found)[id]
            assert len(curve) <= KEPT_POINTS and curve.points["step"][0] == 1
            assert curve.last("step") == start + POINTS - 1


def test_a_study_without_curves_or_measures_works(url: str) -> None:
    with Store.open(url) as store:
        study = store.create_study("new", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1.0, "cost": {}}
        store.add_trial(study.id, FFNSpec(d_ff=8), **more)
        found = read(store, "new")
        curves = Curves().read(store, found)
        (row,) = work(found, curves, quickest(found)).running.to_dict("records")
    assert (row["step"], row["loss"], row["rate"], row["done"]) == (None, None, None, 0.0)
    assert live_data(found, curves)["data"][0]["x"] == []
    assert endings(found).empty


def test_the_quickest_leaves_out_a_clock_that_jumped() -> None:
    assert best_rate({"seconds": [], "flops": []}) is None
    seconds = [10.0] * 99 + [1e-9]
    assert best_rate({"seconds": seconds, "flops": [1e9] * 100}) == pytest.approx(1e8)


def test_the_newest_endings_say_what_happened(url: str, fill_with_rungs) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "demo")
        found = endings(read(store, "demo"), most=3)
        assert found["trial"].tolist() == [0, 4, 4]
        assert found["outcome"].tolist() == ["measured", "diverged", "measured"]
        assert found["error"].tolist()[1] == "the loss is not finite at step 3"
        assert found["seed"].tolist() == [1, 0, 0] and found["rung"].tolist() == [2, 1, 0]
        (running,) = read(store, "demo").running.index
        store.end_evaluation(EvalResult(evaluation=running, status=Status.STOPPED, flops=1.0))
        top = endings(read(store, "demo"), most=1)
        assert top["outcome"].tolist() == ["stopped, can be taken up again"]
        store.claim(study.id, "somebody")
        assert endings(read(store, "demo"), most=1)["trial"].tolist() == [0], "it runs again"


def test_studies_in_a_row_each(url: str, fill, fill_with_rungs) -> None:
    with Store.open(url) as store:
        fill(store, "old", StudyState.FINISHED)
        fill_with_rungs(store, "rungs")
        store.hold_study(store.study("rungs").id, "process 7 (since tick 9) on there, 0123abcd")
        store.create_study("empty", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        store.create_study("odd", {"constraints": {"speed": 1}}, 0, 1e12, ["bits_per_byte"])
        summaries = Summaries()
        for _ in range(2):
            frame = summary_frame(summaries.read(store)).set_index("study")
            assert frame.index.tolist() == ["odd", "empty", "rungs", "old"]
            old, rungs = frame.loc["old"], frame.loc["rungs"]
            assert (old["best"], old["frontier"], old["finished"], old["failed"]) == (2.0, 2, 3, 1)
            assert (old["designs"], old["state"], old["spent"]) == (5, "finished", 5.0)
            assert (rungs["best"], rungs["frontier"]) == (pytest.approx(2.2), 1)
            assert (rungs["state"], rungs["driver"]) == ("running", "process 7 on there")
            assert frame.loc["empty", "state"] == "running, undriven"
            assert isnan(frame.loc["empty", "best"]) and frame.loc["empty", "driver"] == "nobody"
        counted, count = [], store.trial_counts
        store.trial_counts = lambda ids: counted.append(list(ids)) or count(ids)
        summaries.read(store)
        more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1.0, "cost": {}}
        empty = store.study("empty").id
        store.add_trial(empty, FFNSpec(d_ff=8), **more)
        after = {each.study.name: each for each in summaries.read(store)}
        assert counted == [[empty]], "only what went on is counted again"
        assert after["empty"].trials == {"running": 1}
