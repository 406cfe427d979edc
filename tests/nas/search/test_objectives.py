"""An objective is one entry of the registry: file, search, tables, figure and page know it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import plotly.graph_objects as go
import pytest
from patience import WAIT_S
from streamlit.testing.v1 import AppTest

import dashboard
from benchmarks.simulated_pool import SimulatedPool
from dashboard.data.detail import outcome_frame
from dashboard.data.source import Source
from nas.command.cli import run
from nas.config import StudyConfig
from nas.running.launcher import launch_study
from nas.search.objectives import OBJECTIVES, closed_form, costs_read, shown_objectives
from nas.store import Store
from nas.study import Study
from nas.views.pareto import pareto_data
from search_space.contract import EvalRequest, EvalResult, Status
from search_space.errors import InputError

pytestmark = pytest.mark.slow

NAME = "weight_kilobytes"
CONFIG = {
    "name": "small",
    "objectives": ["bits_per_byte", NAME],
    "corpus": {"source": "corpus.txt"},
    "backbone": {"d_model": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32},
    "budget": {"trials": 9, "trial_flops": 6e10, "rungs": 2},
    "workers": {"count": 1},
    "seed": 4,
}


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """What a change of `nas/search/objectives.py` would add: parameters and their copies, in kB."""
    added = closed_form(
        NAME,
        "Weights and active weights (kB)",
        "weights, kB",
        costs=("total_params", "active_params"),
        of=lambda total, active: 2 * (total + active) / 1000,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OBJECTIVES, NAME, added)
        yield


def train(request: EvalRequest) -> tuple[float, list[EvalResult]]:
    """Wider designs are better."""
    bits = 3.0 - 1e-4 * request.spec.d_ff - 1e-11 * request.until_flops
    ending = {"evaluation": request.evaluation, "attempt": request.attempt, "bits_per_byte": bits}
    flops = request.until_flops - request.start_flops
    more = {"flops": flops, "trunk_flops": 0.7 * request.until_flops, "bits_per_byte_se": 0.01}
    return 1.0, [EvalResult(status=Status.FINISHED, **ending, **more)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, registered: None) -> str:
    """A finished study that minimised it, over two rungs."""
    folder = tmp_path_factory.mktemp("study")
    url = f"sqlite:///{folder}/nas.db"
    config = StudyConfig.from_dict(CONFIG)
    assert config.objectives[1] == NAME and StudyConfig.from_dict(config.to_dict()) == config
    with pytest.MonkeyPatch.context() as patch, Store.open(url) as store:
        patch.setenv("FFN_NAS_CACHE", str(folder / "cache"))
        launch_study(config, store, pool_factory=lambda config: SimulatedPool(1, train))
    return url


def expected(trial) -> float:
    return 2 * (trial.cost["total_params"] + trial.cost["active_params"]) / 1000


def test_the_search_and_the_frontier_go_by_it(url: str) -> None:
    with Study.open(None, url) as study:
        trials, front = study.records(), study.frontier_records()
        frame = study.trials()
    finished = [trial for trial in trials if trial.status is Status.FINISHED]
    assert 2 <= len(finished) < len(trials), "some were promoted, and not all"
    assert [frame[NAME][t.number] for t in trials] == [expected(t) for t in trials]
    by_hand = [
        t
        for t in finished
        if not any(
            (o.bits_per_byte, expected(o)) != (t.bits_per_byte, expected(t))
            and o.bits_per_byte <= t.bits_per_byte
            and expected(o) <= expected(t)
            for o in finished
        )
    ]
    by_hand.sort(key=lambda t: (expected(t), t.bits_per_byte, t.number))
    assert [t.number for t in front] == [t.number for t in by_hand] and len(front) > 1


def test_the_command_has_its_column(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["pareto", "--db", url]) == 0
    assert "weight kilobytes" in " ".join(capsys.readouterr().out.split())
    for words in (["pareto"], ["pareto", "--all"]):
        assert run([*words, "--json", "--db", url]) == 0
        rows = json.loads(capsys.readouterr().out)
        names = list(rows[0])
        assert names.index("bits_per_byte") < names.index("active_flops") < names.index(NAME)
        assert all(row[NAME] > 0 for row in rows)
    assert run(["show", "--json", "--db", url]) == 0
    assert json.loads(capsys.readouterr().out)[NAME] > 0


def test_the_figure_has_its_axis_and_its_words(url: str) -> None:
    with Study.open(None, url) as study:
        trials = study.records()
        figure = go.Figure(pareto_data(study.record, trials))
    assert figure.layout.xaxis.title.text == "Weights and active weights (kB) (log scale)"
    drawn = {
        each[0]: (x, text)
        for trace in figure.data
        if trace.text is not None and trace.customdata is not None and trace.mode == "markers"
        for each, x, text in zip(trace.customdata, trace.x, trace.text, strict=True)
        if trace.visible != "legendonly"
    }
    assert drawn
    for number, (x, text) in drawn.items():
        assert x == expected(trials[number])
        assert "Weights and active weights (kB): " in text and "Total parameters: " in text


def test_the_page_shows_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(url) as store:
        trials = store.trials(store.study("small").id)
    found = Source(url).reading("small")
    assert found.trials[NAME].tolist() == [expected(trial) for trial in trials]
    measures = dict(outcome_frame(found, trials[0]).itertuples(index=False))
    assert "Weights and active weights (kB)" in measures
    monkeypatch.setenv("NAS_DB", url)
    app = Path(dashboard.__file__).parent / "start" / "page.py"
    page = AppTest.from_file(str(app), default_timeout=WAIT_S).run()
    assert not page.exception
    table = page.dataframe[-1]
    order = list(table.proto.column_order)
    assert NAME in order and "training_flops" not in order and "active_params" not in order
    assert "weights, kB" in table.proto.columns


def test_a_study_without_it_shows_nothing_of_it(registered: None) -> None:
    names = [each.name for each in shown_objectives(["bits_per_byte", "active_flops"], "table")]
    assert names == ["bits_per_byte", "active_flops", "total_params"]
    chosen = shown_objectives(["bits_per_byte", "training_flops"], "table")
    assert [each.name for each in chosen][-1] == "training_flops"
    assert NAME not in {each.name for each in chosen}


def test_a_name_that_is_no_objective_is_refused_with_the_nearest(registered: None) -> None:
    wrong = CONFIG | {"objectives": ["bits_per_byte", "weight_kilobyte"]}
    with pytest.raises(InputError, match=f"did you mean '{NAME}'"):
        StudyConfig.from_dict(wrong)


def test_the_costs_that_are_read_are_known(registered: None) -> None:
    assert costs_read(["bits_per_byte", NAME]) == ("active_params", "total_params")
    assert costs_read(["bits_per_byte"]) == ()
    trial = type("T", (), {"cost": {"total_params": 1.0}})()
    assert OBJECTIVES[NAME].value(trial) is None, "a cost is missing"
