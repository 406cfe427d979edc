"""A design that breaks a bound as it was measured is on no frontier and never the best."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest

from dashboard.data.detail import outcome_frame
from dashboard.data.headline import headline
from dashboard.data.source import Source
from nas.command.cli import run
from nas.config import StudyConfig
from nas.search.bounds import excess, limits, violations, words
from nas.search.lessons import lessons
from nas.search.pareto import best, frontier
from nas.store import Store, StudyRecord, StudyState
from nas.study import Study
from nas.views.pareto import pareto_data
from search_space.contract import EvalResult, Status
from search_space.cost import model_cost
from search_space.errors import InputError
from search_space.methods.straight_through import StraightThrough
from search_space.spec import FFNSpec

CONFIG = {
    "name": "bound",
    "budget": {"trials": 2, "trial_flops": 1e12},
    "constraints": {"active_flops": 1.0},
    "backbone": {"d_model": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32},
}
ACTIVE = FFNSpec(d_ff=128, expert_width=16, selection=StraightThrough())


@pytest.fixture
def db(tmp_path: Path) -> str:
    """Trial 0 keeps the bound exactly; trial 1 is better and was measured at 1.7 of it."""
    return fill(tmp_path, CONFIG)


def fill(folder: Path, config: dict, ratios: tuple[float, ...] = (1.0, 1.7)) -> str:
    url = f"sqlite:///{folder}/bound.db"
    settings = StudyConfig.from_dict(config)
    whole = StudyConfig.from_dict(CONFIG).limits()["active_flops"]
    with Store.open(url) as store:
        study = store.create_study("bound", settings.to_dict(), 0, 2e12, list(settings.objectives))
        for spec, bits, ratio in zip((FFNSpec(d_ff=128), ACTIVE), (2.2, 1.9), ratios, strict=True):
            _, evaluation = store.add_trial(
                study.id,
                spec,
                seed=0,
                source="x",
                params={},
                until_flops=1e12,
                cost=model_cost(spec, settings.backbone).to_dict(),
            )
            measures = {"bits_per_byte": bits, "bits_per_byte_se": 0.01, "flops": 1e12}
            measures["active_flops"] = ratio * whole
            store.end_evaluation(
                EvalResult(evaluation=evaluation.id, status=Status.FINISHED, **measures)
            )
        store.update_study(study.id, state=StudyState.FINISHED)
    return url


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert run(list(words)) == 0
    return capsys.readouterr().out


def test_the_commands_leave_it_out_and_say_by_how_much(db: str, capsys) -> None:
    front = json.loads(output(capsys, "pareto", "--db", db, "--json"))
    assert [row["trial"] for row in front] == [0]
    assert front[0]["violations"] == {}
    status = json.loads(output(capsys, "status", "--db", db, "--json"))
    assert (status["best_design"], status["best_bits_per_byte"]) == ("dense 1x128 gelu", 2.2)
    assert (status["frontier"], status["finished"], status["infeasible"]) == (1, 2, 1)
    every = json.loads(output(capsys, "pareto", "--all", "--db", db, "--json"))
    assert [row["frontier"] for row in every] == ["*", ""]
    assert [row["infeasible"] for row in every] == ["", "active_flops 1.70x of the bound"]
    assert every[1]["violations"] == {"active_flops": pytest.approx(0.7)}
    assert "active_flops 1.70x of the bound" in output(capsys, "pareto", "--all", "--db", db)
    shown = json.loads(output(capsys, "show", "--db", db, "--json"))
    assert shown["number"] == 0
    shown = json.loads(output(capsys, "show", "--trial", "1", "--db", db, "--json"))
    assert shown["infeasible"] == "active_flops 1.70x of the bound"


def test_python_and_export_take_the_feasible_one(db: str) -> None:
    with Study.open("bound", db) as study:
        assert study.best().number == 0
        assert study.frontier()["number"].tolist() == [0]
        assert study.trials()["infeasible"].tolist() == ["", "active_flops 1.70x of the bound"]
        with pytest.raises(InputError, match="trial 0 of 'bound'"):
            study.export("nowhere")  # it has no checkpoint: what matters is which was chosen


def test_the_sampler_is_told_the_same_violations(db: str) -> None:
    with Study.open("bound", db) as study:
        trials, bounds = study.records(), study.limits()
        evaluations = study.store.evaluations(study.record.id)
    assert bounds == StudyConfig.from_dict(CONFIG).limits()
    told = lessons(StudyConfig.from_dict(CONFIG).plan(), trials, evaluations).told()
    assert [lesson.violations for lesson in told] == [violations(t, bounds) for t in trials]
    assert [violations(trial, bounds)["active_flops"] for trial in trials] == [
        0.0,
        pytest.approx(0.7),
    ]


def test_the_page_and_the_figure_mark_it(db: str) -> None:
    with Store.open(db, create=False) as store:
        study = store.study("bound")
        trials = store.trials(study.id)
    found = Source(db).reading("bound")
    head = headline(found)
    assert (head.best, head.frontier, head.finished, head.infeasible) == (2.2, 1, 2, 1)
    assert head.hypervolume == 0.0, "one feasible point spans no box"
    frame = found.trials
    assert frame["frontier"].tolist() == [True, False]
    assert frame["infeasible"].tolist() == ["", "active_flops 1.70x of the bound"]
    outcome = dict(outcome_frame(found, trials[1]).itertuples(index=False))
    assert outcome["infeasible"] == "active_flops 1.70x of the bound"
    figure = go.Figure(pareto_data(study, trials))
    hollow = next(trace for trace in figure.data if trace.name == "breaks a bound")
    assert [list(row) for row in hollow.customdata] == [[1]]
    assert hollow.marker.symbol[0].endswith("-open") and hollow.showlegend is not False
    assert "infeasible: active_flops 1.70x of the bound" in hollow.text[0]
    line = next(trace for trace in figure.data if trace.mode == "lines")
    assert line.y == (2.2,)


def test_a_study_of_broken_bounds_alone_has_no_best(tmp_path: Path, capsys) -> None:
    url = fill(tmp_path, CONFIG, ratios=(1.2, 1.7))
    with (
        Study.open("bound", url) as study,
        pytest.raises(InputError, match="keeps its constraints"),
    ):
        study.best()
    assert json.loads(output(capsys, "pareto", "--db", url, "--json")) == []
    assert json.loads(output(capsys, "status", "--db", url, "--json"))["best_design"] is None


def test_without_bounds_nothing_changes(tmp_path: Path, capsys) -> None:
    free = {name: value for name, value in CONFIG.items() if name != "constraints"}
    url = fill(tmp_path, free)
    front = json.loads(output(capsys, "pareto", "--db", url, "--json"))
    assert [row["trial"] for row in front] == [0, 1]
    assert json.loads(output(capsys, "status", "--db", url, "--json"))["infeasible"] == 0


def test_every_kind_of_bound_counts(db: str) -> None:
    with Study.open("bound", db) as study:
        trial = study.records()[0]
    for name in ("active_flops", "total_params", "training_flops"):
        figure = trial.active_flops if name == "active_flops" else trial.cost[name]
        assert excess(trial, {name: figure}) == {}
        assert excess(trial, {name: figure * (1 - 1e-12)}) == {}, "rounding is no violation"
        assert excess(trial, {name: figure / 2}) == {name: pytest.approx(1.0)}
        assert best([trial], {name: figure / 2}) is None
        assert frontier([trial], ["bits_per_byte"], {name: figure / 2}) == []
    stopped = replace(trial, status=Status.STOPPED)
    assert violations(stopped, {"total_params": 1.0}) == {}


def test_bounds_are_read_from_the_stored_configuration(db: str) -> None:
    with Store.open(db, create=False) as store:
        study = store.study("bound")
    old: StudyRecord = replace(study, config={})
    assert limits(old) == {}
    for ratios in ({"active_flops": "x"}, {"active_flops": 0}, {"colour": 1.0}):
        with pytest.raises(InputError) as caught:
            limits(replace(study, config=study.config | {"constraints": ratios}))
        assert "\n" not in str(caught.value)


def test_the_excess_in_words() -> None:
    assert words({}) == ""
    both = {"active_flops": 0.7, "total_params": 0.0012}
    assert words(both) == "active_flops 1.70x of the bound, total_params 100.12% of the bound"
