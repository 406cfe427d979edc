"""The pages from which a study is launched, driven and exported, without a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from actions_tools import STUDY, TEXT, ended, furnish, study_text, until
from depth import LONG
from patience import WAIT_S
from streamlit.testing.v1 import AppTest

from dashboard.actions import TOKEN
from dashboard.actions.permission import Asker
from dashboard.actions.process import Actions
from dashboard.actions.study_form import entries, from_yaml, sections
from dashboard.data.files import frontier_csv, frontier_json, frontier_svg, report_html
from nas.store import Facts, Store, StudyState
from search_space.contract import TRAINING

pytestmark = pytest.mark.slow

URL = "sqlite:///nas.db"
HOME = Asker(address="127.0.0.1", host="127.0.0.1", origin="", remote="", forwarded=False)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory of a server, with quick workers."""
    furnish(tmp_path, monkeypatch)
    monkeypatch.setenv("NAS_DB", URL)
    return tmp_path


@pytest.fixture
def at_home(monkeypatch) -> None:
    """The reader sits at the server's machine."""
    monkeypatch.setattr("dashboard.actions.permission.this_session", lambda: HOME)


def script(path: str, study: str) -> None:
    """A page of the menu, or the buttons of a study."""
    import os

    from dashboard import links
    from dashboard.actions.buttons import draw_buttons
    from dashboard.actions.permission import draw_ways_in
    from dashboard.context import Context
    from dashboard.data.source import Source
    from dashboard.pages import PAGES

    source = Source(os.environ["NAS_DB"])
    links.recall()
    draw_ways_in()
    chosen = next((s for s in source.studies() if s.name == study), None) if study else None
    if path == "buttons":
        draw_buttons(Context(source, chosen), chosen)
    else:
        next(page for page in PAGES if page.path == path).draw(Context(source, chosen))


def open_page(path: str, study: str = "") -> AppTest:
    page = AppTest.from_function(script, default_timeout=WAIT_S, args=(path, study)).run()
    assert not page.exception, page.exception
    return page


def press(page: AppTest, key: str) -> None:
    page.button(key=key).click().run()
    assert not page.exception, page.exception


def texts(page: AppTest) -> str:
    kinds = (page.error, page.warning, page.info, page.caption, page.markdown, page.code)
    return "\n".join(str(each.value) for kind in kinds for each in kind)


def finished_study(fill: Any) -> None:
    with Store.open(URL) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        store.update_study(study.id, facts=Facts(training=TRAINING))
        store.update_study(study.id, state=StudyState.STOPPED)


def test_who_only_reads_is_told_what_turns_actions_on(folder, fill, monkeypatch):
    finished_study(fill)
    for path in ("launch", "export"):
        page = open_page(path, "demo")
        assert page.button(key=path).disabled
        assert "Actions are off, for this page is not open on the server" in texts(page)
    monkeypatch.setenv(TOKEN, "sixteen letters!")
    page = open_page("buttons", "demo")
    assert page.button(key="resume-1").disabled
    page.text_input(key="action-token").set_value("sixteen letters?").run()
    assert page.button(key="resume-1").disabled
    assert "That is not the token." in texts(page)
    page.text_input(key="action-token").set_value("sixteen letters!").run()
    assert not page.button(key="resume-1").disabled
    assert "sixteen letters!" not in str(page.session_state)
    monkeypatch.setenv(TOKEN, "")  # the page was drawn while the session might act
    press(page, "resume-1")
    assert Actions(URL, folder).all() == []
    assert "Actions are off" in texts(page)


def test_two_people_press_stop(folder, at_home, fill):
    with Store.open(URL) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        store.update_study(study.id, facts=Facts(training=TRAINING))
    one, two, late = (open_page("buttons", "demo") for _ in range(3))
    assert not one.button(key="stop-1").disabled
    press(one, "stop-1")
    press(two, "stop-1")
    (stop,) = Actions(URL, folder).all()  # the second one was told, and started nothing
    said = texts(two)
    assert "is under way already" in said or "Only a running study can be stopped" in said
    assert ended(stop) == 0, stop.output()
    press(late, "stop-1")  # on a page that was drawn while it ran
    assert "nothing was started. Only a running study can be stopped: it is stopped." in texts(late)
    page = open_page("buttons", "demo")
    assert "`nas stop demo`" in texts(page) or "nas stop demo" in texts(page)
    assert page.button(key="stop-1").disabled
    assert not page.button(key="resume-1").disabled
    page.text_input(key="extend-flops-1").set_value("much")
    next(b for b in page.button if b.label == "Extend").click().run()
    assert "more training FLOPs is a number above 0" in texts(page)


def test_a_form_with_every_field_wrong_is_sentences(folder, at_home):
    Store.open(URL).close()
    page = open_page("launch")
    assert not page.button(key="launch").disabled
    assert "training FLOPs, at most" in texts(page)
    wrong = 0
    for each in entries():
        if each.kind in ("number", "list"):
            page.session_state[f"launch-{each.key}"] = "no `word` <b>"
            wrong += 1
    page.run()
    assert not page.exception
    assert page.button(key="launch").disabled
    assert any("Recipe" in each.label and "wrong)" in each.label for each in page.expander)
    for name in sections():
        page.session_state[f"launch-section-{name}"] = True
    page.run()
    assert sum("Wrong:" in each.value for each in page.caption) == wrong
    said = "``budget.trials must be a whole number of at least 1: got 'no `word` <b>'``"
    assert said in texts(page)


def test_what_is_typed_in_a_section_outlives_its_closing(folder, at_home):
    Store.open(URL).close()
    page = open_page("launch")
    assert "launch-recipe.weight_decay" not in {each.key for each in page.text_input}
    page.session_state["launch-section-recipe"] = True
    page.run()
    page.text_input(key="launch-recipe.weight_decay").set_value("0.25").run()
    page.session_state["launch-section-recipe"] = False
    page.run()
    page.text_input(key="launch-name").set_value("closed").run()
    assert not page.exception
    shown = page.text[-1].value
    assert "weight_decay: 0.25" in shown and "name: closed" in shown
    page.session_state["launch-section-recipe"] = True
    assert page.run().text_input(key="launch-recipe.weight_decay").value == "0.25"


@LONG
def test_a_study_is_launched_from_the_form_and_shows_itself(folder, at_home, monkeypatch):
    went = []
    monkeypatch.setattr("dashboard.links.go", went.append)
    Store.open(URL).close()
    page = open_page("launch")
    for path, value in from_yaml(study_text(), "tiny").items():
        page.session_state[f"launch-{'.'.join(path)}"] = value
    page.run()
    shown = page.text[-1].value
    press(page, "launch")
    (launched,) = Actions(URL, folder).all()
    assert (launched.folder / "study.yaml").read_text().rstrip() == shown
    press(page, "launch")
    assert "nas launch tiny is under way already" in texts(page)

    def stored() -> bool:
        with Store.open(URL, create=False) as store:
            return bool(store.studies())

    assert until(stored), launched.output()
    page.run()
    assert went == ["live"]
    assert page.session_state["link"]["study"] == "tiny"
    launched.cancel()
    assert ended(launched) in (130, 0), launched.output()
    assert "tiny" in texts(page.run())


@LONG
def test_a_study_that_cuts_a_pretrained_model_is_priced_and_launched_from_the_form(
    folder, at_home, monkeypatch
):
    from transformers import LlamaConfig, LlamaForCausalLM

    from workers.corpus.tokenizer import train_bpe

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    LlamaForCausalLM(LlamaConfig(**shape, **heads, **ends, vocab_size=300)).save_pretrained("base")
    train_bpe([TEXT], 300).save("base/tokenizer.json")
    changes = {"kind": "sparsify", "base_model": "base", "backbone": {"seq_len": 32}}
    changes |= {"warm_start": ["original", "dsmoe"], "name": "cut", "budget": {"trials": 2}}
    changes["budget"] |= {"trial_flops": 2e8}
    text = study_text(**changes).replace(yaml.safe_dump({"space": STUDY["space"]}), "")
    monkeypatch.setattr("dashboard.links.go", lambda page: None)
    Store.open(URL).close()
    page = open_page("launch")
    page.session_state["launch-kind"] = "sparsify"  # the warm starts to choose from follow it
    page.run()
    for path, value in from_yaml(text, "cut").items():
        page.session_state[f"launch-{'.'.join(path)}"] = value
    page.run()
    assert not page.exception
    offered = page.multiselect(key="launch-warm_start").options
    assert any(word.startswith("llama_moe: LLaMA-MoE (Zhu") for word in offered)
    assert not page.button(key="launch").disabled, texts(page)
    assert "training FLOPs, at most" in texts(page)
    press(page, "launch")
    (launched,) = Actions(URL, folder).all()
    assert ended(launched) == 0, launched.output()
    with Store.open(URL, create=False) as store:
        (study,) = store.studies()
        trials = store.trials(study.id)
        assert [trial.spec.selection.method for trial in trials] == ["dense", "straight_through"]
    for each in ("trial", "frontier", "export"):
        open_page(each, "cut")


def test_export_says_what_there_is_and_what_it_costs(folder, at_home, fill):
    finished_study(fill)
    page = open_page("export", "demo")
    assert page.selectbox(key="export-trial").value == 1  # the best
    assert "none: " in page.radio(key="export-form").proto.captions[1]
    page.radio(key="export-form").set_value("native").run()
    assert "there is no native form of" in texts(page)
    assert page.button(key="export").disabled
    page.radio(key="export-form").set_value("auto").run()
    (folder / "taken").mkdir()
    (folder / "taken/file").touch()
    page.text_input(key="export-folder").set_value("taken").run()
    assert "holds files; choose another --to" in texts(page)
    page.text_input(key="export-folder").set_value("model").run()
    assert str(folder / "model") in texts(page)
    page.radio(key="export-what").set_value("The design at another size, not trained").run()
    assert "another size needs a field of the backbone" in texts(page)
    page.text_input(key="export-size-d_model").set_value("257").run()
    assert "d_model must be a multiple" in texts(page)
    page.text_input(key="export-size-d_model").set_value("256").run()
    metrics = {each.label: each.value for each in page.metric}
    assert metrics["Parameters"].endswith("M")
    press(page, "export")
    (export,) = Actions(URL, folder).all()
    assert "--backbone=d_model=256" in export.arguments
    export.cancel()
    assert ended(export) is not None
    assert "Its process is gone" in texts(page.run()) or "was stopped" in texts(page)


def test_the_files_of_a_study(folder, fill):
    finished_study(fill)
    rows = json.loads(frontier_json(URL, "demo"))
    assert [row["trial"] for row in rows] == [2, 1]
    lines = frontier_csv(URL, "demo").splitlines()
    assert len(lines) == 3 and lines[0].startswith("trial,design,bits_per_byte")
    assert frontier_svg(URL, "demo").startswith("<svg")
    assert "Study demo" in report_html(URL, "demo")
