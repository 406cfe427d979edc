"""A study in columns: what it says, and that following it says the same as reading it anew."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from patience import WAIT_S

from benchmarks.reading_store import TWO_EACH
from benchmarks.reading_store import fill as fill_many
from dashboard.data.follower import Follower
from dashboard.data.front import Front
from dashboard.data.reading import Reading
from dashboard.data.source import KEPT_ALIKE, Source
from nas.search.pareto import non_dominated
from nas.store import BrokenRecord, Store, StudyState
from nas.views.certainty import frontier_chances
from nas.views.noise import noise
from nas.views.trial_rows import flat_row
from search_space.contract import EvalResult, Status
from search_space.errors import InputError
from search_space.spec import FFNSpec, label_of

pytestmark = pytest.mark.slow


def assert_says_what_the_records_say(store: Store, found: Reading) -> None:
    """Column by column, against the records of the store and the functions of `nas.views`."""
    study, trials = store.study(found.study.name), store.trials(found.study.id, stats=False)
    assert found.study == study and found.ledger == store.ledger(study.id)
    frame = found.trials
    assert list(frame.index) == [each.number for each in trials]
    evaluations = store.evaluations(study.id)
    for trial, (_, row) in zip(trials, frame.iterrows(), strict=True):
        expected = flat_row(trial, found.bounds)
        expected["noise"] = noise(study, trial)
        begun = trial.result is not None
        own = [each.seconds for each in evaluations if each.trial == trial.number]
        expected["seconds"] = sum(own) if begun else None
        flops = expected.pop("flops")
        expected["flops_spent"] = flops if begun else None
        del expected["number"]
        for name, value in expected.items():
            assert same(row[name], value), (trial.number, name, row[name], value)
        assert found.specs[trial.number] == trial.spec.to_dict()
    assert found.chances == frontier_chances(store, study, trials, found.bounds)
    assert list(found.evaluations.index) == [each.id for each in evaluations]
    for each, (_, row) in zip(evaluations, found.evaluations.iterrows(), strict=True):
        for name, value in row.items():
            assert same(value, getattr(each, str(name))), (each.id, name)


def same(a: object, b: object) -> bool:
    if pd.isna(a) or b is None:  # type: ignore[call-overload]
        return bool(pd.isna(a)) and (b is None or bool(pd.isna(b)))  # type: ignore[call-overload]
    if isinstance(a, float):
        return a == pytest.approx(b, rel=1e-12)
    return bool(a == b)


def test_a_reading_says_what_the_records_say(url: str, fill, fill_with_rungs) -> None:
    with Store.open(url) as store:
        fill_many(store, 40, 2, TWO_EACH)  # first, as its ids count from 1; some break a bound
        fill(store, "demo", StudyState.RUNNING)
        fill_with_rungs(store, "rungs")
        store.create_study("empty", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        for name in ("demo", "rungs", "reading", "empty"):
            found = Follower().read(store, name)
            assert_says_what_the_records_say(store, found)
            front = {n for n, kept in found.trials["frontier"].items() if kept}
            assert front == set(found.front)
        with pytest.raises(InputError, match="did you mean 'demo'"):
            Follower().read(store, "dem")
    assert Source(url).reading("demo").front == [2, 1], "by their second objective"
    assert Source(url).reading("empty").trials.empty


def test_following_a_study_says_what_reading_it_anew_says(
    url: str, fill_with_rungs, monkeypatch
) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "demo")
        follower, stamps = Follower(), set()
        follower.read(store, "demo")

        def look() -> Reading:
            with monkeypatch.context() as patch:
                patch.setattr(Follower, "_begin", None)  # never all of it again
                seen = follower.read(store, "demo")
                assert follower.read(store, "demo") is seen, "nothing happened since"
            assert_says_what_the_records_say(store, seen)
            assert seen.stamp == Follower().read(store, "demo").stamp
            assert seen.stamp not in stamps, "the page is drawn again"
            stamps.add(seen.stamp)
            return seen

        (running,) = look().running.index
        store.end_evaluation(EvalResult(evaluation=running, status=Status.STOPPED, flops=1e11))
        assert look().waiting == 1
        taken = store.claim(study.id, "somebody")
        assert taken is not None
        look()
        lost = store.worker_lost(taken.id, taken.attempt, "another")
        look()
        ending = {"evaluation": lost.id, "attempt": lost.attempt, "bits_per_byte": 2.7}
        store.end_evaluation(EvalResult(status=Status.FINISHED, **ending))
        assert look().trials.loc[3, "status"] == "paused"
        first = store.trial(study.id, 1)
        more = {"rung": 2, "until_flops": 9e12, "start_flops": 0.0}
        id = store.add_evaluation(study.id, first.id, seed=1, **more).id
        look()
        ending = {"evaluation": id, "status": Status.FINISHED, "bits_per_byte": 2.0}
        store.end_evaluation(EvalResult(**ending))  # its mean moves on to the frontier
        assert look().trials.loc[1, "seeds"] == 2
        new = {"seed": 0, "source": "x", "params": {}, "until_flops": 1e9, "cost": {}}
        store.add_trial(study.id, FFNSpec(d_ff=8), **new)
        look()
        store.hold_study(study.id, "somebody")
        look()


def test_a_study_that_was_put_back_or_made_anew_is_read_whole(url: str, fill, tmp_path) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        follower = Follower()
        found = follower.read(store, "demo")
        follower._study = replace(found.study, uid="of another study of that name")
        assert follower.read(store, "demo").trials.equals(found.trials)
        # As when an older copy of the database is written over this one.
        with store._writing() as connection:
            last = int(found.evaluations.index[-1])
            connection.exec_driver_sql(f"DELETE FROM evaluation WHERE id = {last}")
            connection.exec_driver_sql("DELETE FROM trial WHERE number = 4")
        older = follower.read(store, "demo")
        assert (len(older.evaluations), len(older.trials)) == (4, 4)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("spec", "'null'", "trial 2 of study 'demo' cannot be read: its spec is None"),
        ("spec", "'{\"d_ff\": 1'", "trial 2 of study 'demo' cannot be read"),
        ("spec", '\'{"d_ff": 8, "depth": 0}\'', "trial 2 of study 'demo' cannot be read: depth"),
        ("cost", "'[]'", "trial 2 of study 'demo' cannot be read: its cost is"),
        ("cost", '\'{"active_flops": "x"}\'', "its cost holds 'x', not a number"),
        ("bits_per_byte", "'much'", "its bits_per_byte holds 'much', not a number"),
    ],
)
def test_a_trial_of_nonsense_is_named(url: str, fill, column, value, said) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.FINISHED)
        with store._writing() as connection:
            text = f"UPDATE trial SET {column} = {value} WHERE number = 2"
            connection.exec_driver_sql(text)
        with pytest.raises(BrokenRecord) as error:
            Follower().read(store, "demo")
    assert said in str(error.value) and "restore the database" in str(error.value)


def test_a_measure_that_is_no_number_is_on_no_frontier(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.FINISHED)
        with store._writing() as connection:
            # SQLite keeps a NaN as NULL, and has an infinity.
            connection.exec_driver_sql("UPDATE trial SET bits_per_byte = NULL WHERE number = 1")
            connection.exec_driver_sql("UPDATE trial SET bits_per_byte = -9e999 WHERE number = 2")
        found = Follower().read(store, "demo")
        # The one left is on the frontier, whatever the evaluations behind the others say.
        assert found.front == [0]
    assert np.isnan(found.trials.loc[1, "bits_per_byte"])


def test_knobs_are_flat_and_have_their_defaults(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        found = Follower().read(store, "demo")
        trials = store.trials(found.study.id)
    knobs = found.knobs
    assert found.knobs is knobs, "made once"
    for trial in trials:
        expected = {"placement": "all", "cut": "contiguous"} | trial.spec.to_dict()
        expected |= expected.pop("selection")
        row = {n: v for n, v in knobs.loc[trial.number].items() if not pd.isna(v)}
        assert row == expected
    old = '{"d_ff": 96, "selection": {"method": "topk", "k": 2}, "expert_width": 8}'
    specs = replace(found).specs
    specs._texts = np.array([old], dtype=object)
    specs._numbers = np.array([0])
    filled = specs.knobs().loc[0]
    assert (filled["depth"], filled["gate"], filled["k"]) == (1, "softmax", 2)


def test_a_label_is_that_of_the_design(url: str) -> None:
    with Store.open(url) as store:
        study = fill_many(store, 60, 1)
        specs = [trial.spec for trial in store.trials(study.id, stats=False)]
    assert [label_of(spec.to_dict()) for spec in specs] == [spec.label for spec in specs]
    assert label_of({"d_ff": 96}) == FFNSpec(d_ff=96).label
    for nonsense in (None, {}, {"d_ff": 8, "selection": {"method": "none of them"}}):
        with pytest.raises((TypeError, AttributeError, ValueError)):
            label_of(nonsense)  # type: ignore[arg-type]


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_a_front_that_is_kept_is_that_of_all_points(objectives: int) -> None:
    source, front = random.Random(objectives), Front()
    values: dict[int, tuple[float, ...]] = {}
    compared = []
    for step in range(120):
        number = step if source.random() < 0.8 or not values else source.choice(list(values))
        values[number] = tuple(float(source.randrange(12)) for _ in range(objectives))
        if step % 17 == 16:
            del values[source.choice(list(values))]  # it breaks a bound now
        numbers = sorted(values)
        points = [values[each] for each in numbers]
        found = front.update(np.array(numbers), np.array(points))
        kept = [each for each, on in zip(numbers, non_dominated(points), strict=True) if on]
        assert found.tolist() == kept
        compared.append(front.compared)
    assert min(compared[60:]) < 40, "most are compared with the frontier alone"


def test_chances_are_drawn_again_only_where_something_changed(url, monkeypatch) -> None:
    from dashboard.data import sureness

    with Store.open(url) as store:
        study = fill_many(store, 40, 1, TWO_EACH)
        drawn, chances = [], sureness.chances
        monkeypatch.setattr(sureness, "chances", lambda *given: drawn.append(1) or chances(*given))
        follower = Follower()
        before = follower.read(store, "reading")
        new = {"seed": 0, "source": "x", "params": {}, "until_flops": 1e9, "cost": {}}
        _, begun = store.add_trial(study.id, FFNSpec(d_ff=8), **new)
        paused = {"evaluation": begun.id, "status": Status.FINISHED, "bits_per_byte": 1.0}
        store.end_evaluation(EvalResult(**paused))  # at the lowest rung
        after = follower.read(store, "reading")
        assert after.stamp != before.stamp and after.chances == before.chances
        assert len(drawn) == 1
        on_front = store.trial(study.id, after.front[0])
        level = after.evaluations["until_flops"].max()
        more = {"seed": 5, "rung": study.top, "until_flops": level}
        id = store.add_evaluation(study.id, on_front.id, **more).id
        repeat = {"evaluation": id, "status": Status.FINISHED, "bits_per_byte": 1.0}
        store.end_evaluation(EvalResult(**repeat))
        assert_says_what_the_records_say(store, follower.read(store, "reading"))
        assert len(drawn) == 2


def test_what_is_drawn_of_passed_readings_is_forgotten_first(url: str) -> None:
    source = Source(url)
    source.once(("walk", "one"), lambda: "kept")
    for stamp in range(5 * KEPT_ALIKE):
        source.once(("figure", stamp), lambda: stamp)  # noqa: B023
    assert source.once(("walk", "one"), lambda: "made again") == "kept"
    assert source.once(("figure", 0), lambda: "made again") == "made again"
    assert source.once(("figure", 5 * KEPT_ALIKE - 1), lambda: "again") == 5 * KEPT_ALIKE - 1


def test_the_data_need_no_page_and_no_workers() -> None:
    program = (
        "import sys, dashboard.data.source, nas.store, nas.views; "
        "print([m for m in ('torch', 'triton', 'ray', 'streamlit') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=WAIT_S)
    assert done.stdout.strip() == "[]"
