"""The pages about designs, run without a browser: frontier, trial and compare."""

from __future__ import annotations

import os

import pytest
import yaml
from patience import WAIT_S
from streamlit.testing.v1 import AppTest

from nas.store import Store, StudyState
from search_space.backbone import Backbone
from search_space.contract import EvalResult, Status
from search_space.cost import model_cost
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow


def alone() -> None:
    """One page of the newest study; what it needs is imported here, where it runs."""
    import os

    import streamlit as st

    from dashboard import links
    from dashboard.context import Context
    from dashboard.data.source import Source
    from dashboard.pages import PAGES

    links.recall()
    source = st.session_state.setdefault("source", Source(os.environ["NAS_DB"]))
    (page,) = (page for page in PAGES if page.path == os.environ["TESTED_PAGE"])
    page.draw(Context(source, source.studies()[0]))
    links.publish()


@pytest.fixture
def page(url: str, monkeypatch: pytest.MonkeyPatch):
    """Opens a page by its path, with the address's parameters."""
    monkeypatch.setenv("NAS_DB", url)

    def opened(path: str, **parameters: str) -> AppTest:
        monkeypatch.setitem(os.environ, "TESTED_PAGE", path)
        app = AppTest.from_function(alone, default_timeout=WAIT_S)
        for name, value in parameters.items():
            app.query_params[name] = value
        app.run()
        assert not app.exception
        return app

    return opened


def choose(box, number: int) -> None:
    box.set_value(next(text for text in box.options if text.split()[0] == f"#{number}")).run()


def figures_of(app: AppTest) -> dict[str, tuple[str, str | None]]:
    return {metric.label: (metric.value, metric.delta) for metric in app.metric}


def test_a_study_without_trials_says_what_comes_or_how_to_go_on(page, url: str) -> None:
    with Store.open(url) as store:
        study = store.create_study("new", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        frontier = page("frontier")
        assert "nas status new" in frontier.info[0].value
        assert "No trial has started yet" in frontier.info[0].value
        assert "nas status new" in page("trial").info[0].value
        store.update_study(study.id, state=StudyState.FAILED)
    said = page("frontier").info[0].value
    assert "No trial was started." in said and "nas launch STUDY.yaml" in said


def test_a_study_where_nothing_was_measured_says_what_comes(page, url: str) -> None:
    with Store.open(url) as store:
        study = store.create_study("sad", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1.0, "cost": {}}
        _, begun = store.add_trial(study.id, FFNSpec(d_ff=8), **more)
        assert "nas status sad" in page("frontier").info[0].value
        store.end_evaluation(EvalResult(evaluation=begun.id, status=Status.FAILED, error="no"))
        store.update_study(study.id, state=StudyState.FINISHED)
    said = page("frontier")
    assert "No design of this study finished" in said.info[0].value
    assert said.dataframe[-1].value["error"].tolist() == ["no"]


def test_a_running_study_shows_everything(page, url: str, fill) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
    app = page("frontier")
    assert app.title[0].value == "demo"
    figures = figures_of(app)
    assert figures["Designs finished"] == ("3", "1 running, 1 failed")
    assert figures["Training FLOPs spent"] == ("4T", "40% of 10T")
    assert figures["Best bits per byte"] == ("2.000", "± 0.010, 5-gram: 1.900")
    assert figures["Pareto frontier"] == ("2", "designs")
    headers = [header.value for header in app.subheader]
    wanted = ["Quality against cost", "How it came about", "Trials"]
    assert headers == wanted, "of one rung there are no runs to show"
    assert len(app.dataframe[-1].value) == 5

    # The filters of the table, all on the server.
    app.text_input(key=f"search-{study.id}").set_value("topk 8/").run()
    assert app.dataframe[-1].value["trial"].tolist() == [1]
    app.text_input(key=f"search-{study.id}").set_value("finite").run()
    assert app.dataframe[-1].value["trial"].tolist() == [3], "words of an error are found"
    app.text_input(key=f"search-{study.id}").set_value("").run()
    app.selectbox(key=f"only-{study.id}").set_value("frontier").run()
    app.selectbox(key=f"sort-{study.id}").set_value("bits_per_byte").run()
    assert app.dataframe[-1].value["trial"].tolist() == [1, 2]

    # A typed number selects, another axis is drawn, and the link has both.
    picked = app.multiselect(key=f"picked-{study.id}")
    picked.set_value(["#3", "#99"]).run()
    assert not app.exception
    assert [toast.value for toast in app.toast] == ["`This study has no trial '#99'`"]
    assert any("#3 topk 1/16x128 gelu" in each.value for each in app.markdown)
    app.selectbox(key="link-y").set_value("total_params").run()
    app.button(key="clear-selection").click().run()
    assert not app.exception
    assert dict(app.query_params) == {"y": "total_params"}


def test_a_link_is_what_was_looked_at_and_nonsense_in_it_is_nothing(page, url, fill) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.FINISHED)
    app = page(
        "frontier", trials="2,1", y="active_flops", x="bits_per_byte", log="y", weak="hidden"
    )
    assert app.selectbox(key="link-y").value == "active_flops"
    assert app.selectbox(key="link-x").value == "bits_per_byte"
    assert app.toggle(key="link-weak").value
    picked = app.multiselect(key=f"picked-{study.id}").value
    assert [text.split()[0] for text in picked] == ["#2", "#1"]
    odd = page("frontier", trials="x,-1,99,2", y="<b>", x="z", z="?", colour="$", rung="9", log="?")
    assert odd.selectbox(key="link-y").value == "bits_per_byte"
    assert odd.selectbox(key="link-colour").value == "method"
    assert [text.split()[0] for text in odd.multiselect(key=f"picked-{study.id}").value] == ["#2"]
    assert page("trial", trials="99,2").selectbox(key=f"trial-{study.id}").value.startswith("#2 ")


def test_the_chosen_trial_is_shown_with_all_that_is_known_of_it(page, url, fill) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.FINISHED)
    app = page("trial")
    choice = app.selectbox(key=f"trial-{study.id}")
    assert choice.value.startswith("#1 "), "the best trial comes first"
    assert not app.code, "made when its tab is opened"
    app.session_state[f"design-{study.id}"] = "Text to copy"
    copied = yaml.safe_load(app.run().code[0].value)["warm_start"]
    assert FFNSpec.from_dict(copied[0]).label == "topk 8/32x64 gelu"
    headers = [header.value for header in app.subheader]
    wanted = ["The layer", "The design", "Training", "Outcome", "Costs", "How the experts are used"]
    assert headers == wanted
    assert "Nothing was noted" in app.info[-1].value
    choose(choice, 3)
    assert not app.exception
    assert app.error[0].value == "diverged: the loss is not finite at step 3"
    assert app.query_params["trials"] == "3"


def test_a_study_with_rungs_speaks_of_runs_and_rungs(page, url, fill_with_rungs) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "demo")
    app = page("frontier")
    figures = figures_of(app)
    assert figures["Designs finished"] == ("2", "1 running, 1 paused, 1 failed")
    assert figures["Best bits per byte"] == ("2.200", "± 0.100, 2 seeds")
    headers = [header.value for header in app.subheader]
    wanted = ["Quality against cost", "How it came about", "Runs over the rungs", "Trials"]
    assert headers == wanted
    assert "Nothing had been measured then" in page("frontier", at="0").info[0].value
    past = page("frontier", at="2", trials="0,4")
    assert past.dataframe[-1].value["status"].tolist() != app.dataframe[-1].value["status"].tolist()
    assert app.dataframe[-1].value["rung"].tolist() == [2, 2, 0, 0, 0]
    app.selectbox(key="link-rung").set_value("1").run()
    assert not app.exception and app.query_params["rung"] == "1"

    trial = page("trial", trials="0")
    own = next(each.value for each in trial.dataframe if "seed" in each.value)
    assert own["seed"].tolist() == [0, 0, 0, 1]
    assert not trial.error
    choose(trial.selectbox(key=f"trial-{study.id}"), 4)
    assert not trial.exception
    assert trial.error[0].value == "diverged at rung 1: the loss is not finite at step 3"


def test_designs_are_compared_with_the_first(page, url, fill_with_rungs) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "demo")
    few = page("compare", trials="1")
    assert "Choose two designs or more" in few.info[0].value
    app = page("compare", trials="1,0,2,4")
    assert app.subheader[0].value == "Paired differences to #1"
    said = [each.value for each in app.markdown if each.value.startswith("- ")]
    assert len(said) == 3 and "bits per byte" in said[0]
    knobs, figures = (app.dataframe[i].value for i in (0, 1))
    assert list(knobs.columns) == ["what", "#1", "#0", "#2", "#4"]
    assert all(what.startswith("≠ ") for what in knobs["what"])
    app.toggle(key=f"differing-{study.id}").set_value(False).run()
    assert not app.exception
    assert "output_gate" in app.dataframe[0].value["what"].tolist()
    assert len(app.dataframe[1].value) > len(figures)


NASTY = "[/x] $a$ <b> `c` **d** :smile: :red[e] -> -- &amp; ``f`` _g_ # h ~~i~~"


def test_an_error_is_shown_as_code_whatever_is_in_it(page, url) -> None:
    with Store.open(url) as store:
        study = store.create_study("a_b--c_", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
        more = {"seed": 0, "source": NASTY, "params": {}, "until_flops": 1.0, "cost": {}}
        _, begun = store.add_trial(study.id, FFNSpec(d_ff=8), **more)
        store.end_evaluation(EvalResult(evaluation=begun.id, status=Status.FAILED, error=NASTY))
    assert page("trial").error[0].value == f"failed: ```{NASTY}```"
    frontier = page("frontier", trials="0")
    assert frontier.title[0].value == "`a_b--c_`"
    assert any(f"```{NASTY}```" in each.value for each in frontier.markdown), "on its card"


def test_a_design_that_breaks_a_bound_is_marked(page, url) -> None:
    backbone = {"d_model": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32}
    config = {"constraints": {"total_params": 1.0}, "backbone": backbone}
    with Store.open(url) as store:
        study = store.create_study("demo", config, 0, 1e12, ["bits_per_byte", "active_flops"])
        for d_ff, bits in ((128, 2.2), (512, 1.9)):
            spec = FFNSpec(d_ff=d_ff)
            cost = model_cost(spec, Backbone(**backbone)).to_dict()
            more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1.0, "cost": cost}
            _, begun = store.add_trial(study.id, spec, **more)
            ending = {"evaluation": begun.id, "status": Status.FINISHED, "bits_per_byte": bits}
            store.end_evaluation(EvalResult(**ending))
        store.update_study(study.id, state=StudyState.FINISHED)
    frontier = page("frontier")
    figures = figures_of(frontier)
    assert figures["Designs finished"] == ("2", "1 infeasible")
    assert figures["Best bits per byte"][0] == "2.200"
    table = frontier.dataframe[-1].value
    assert table["infeasible"].tolist()[0] == ""
    assert table["infeasible"].tolist()[1].startswith("total_params ")
    trial = page("trial")
    assert trial.selectbox(key=f"trial-{study.id}").value.startswith("#0 ")
    assert list(trial.warning) == []
    choose(trial.selectbox(key=f"trial-{study.id}"), 1)
    assert "breaks a bound of the study" in trial.warning[0].value
