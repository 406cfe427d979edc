"""Take a design along: as a model, and the frontier and the study as files."""

from __future__ import annotations

import json
from pathlib import Path

import streamlit as st

from dashboard import links
from dashboard.actions.following import actions, draw_actions, recent
from dashboard.actions.permission import require_permission, why_not
from dashboard.actions.picture import draw_picture
from dashboard.actions.sizes import SIZES, changes, option, sized
from dashboard.context import Context, once
from dashboard.data.files import frontier_csv, frontier_json, report_html
from dashboard.data.reading import Reading
from dashboard.pace import REFRESH_S
from dashboard.text import verbatim
from nas.models.new_folder import check_target
from nas.store import StudyRecord
from nas.views.style import si
from search_space.backbone import Backbone
from search_space.errors import InputError, WorkFailed
from search_space.native import NativeForm, native_form
from search_space.spec import FFNSpec

PROXY, OTHER_SIZE = "The trained proxy", "The design at another size, not trained"
_SAID = "export-said"
_SNIPPET = """from transformers import AutoModelForCausalLM, AutoTokenizer

folder = {folder!r}
model = AutoModelForCausalLM.from_pretrained(folder{trust})
tokenizer = AutoTokenizer.from_pretrained(folder{trust})
"""


def draw(context: Context) -> None:
    """The page."""
    st.title("Export")
    if context.study is None:
        st.info("No studies yet. Start one on the page Launch, or with: `nas launch STUDY.yaml`")
        return
    once(_model, context, context.study)
    once(_files, context, context.study)


# A design as a model.


def _model(context: Context, study: StudyRecord) -> None:
    st.subheader("A design as a model that transformers loads")
    reading = context.reading()
    number = _choose(reading)
    if number is None:
        st.info(
            "No design has finished yet, so there is none to export. Follow the study on the page "
            "Live; this one goes on by itself when the frontier has a point."
        )
        st.fragment(_wait, run_every=REFRESH_S)(context)
        return
    spec = FFNSpec.from_dict(dict(reading.specs[number]))
    backbone = Backbone.from_dict(study.config.get("backbone") or {})
    what = st.radio(
        "What of it",
        [PROXY, OTHER_SIZE],
        key="export-what",
        horizontal=True,
        label_visibility="collapsed",
    )
    try:
        options = _proxy(spec, backbone) if what == PROXY else _other_size(spec, backbone)
        wrong = ""
    except InputError as error:
        options, wrong = [], str(error)
    folder, wrong_folder = _folder(study, number)
    check = st.checkbox(
        "Check it in a fresh process",
        value=True,
        key="export-check",
        help="Loads it without this project and compares its logits, its parameters and its loss "
        "with those of the study.",
    )
    options += [f"--to={folder}", f"--trial={number}", *([] if check else ["--no-verify"])]
    off = wrong or wrong_folder or why_not()
    if wrong:
        st.error(verbatim(wrong))
    st.button(
        "Export",
        type="primary",
        icon=":material/save:",
        key="export",
        disabled=bool(off),
        help=off or "It goes on whatever becomes of this page.",
        on_click=_export,
        args=(context, study.name, options, str(folder)),
    )
    if why_not():
        st.caption(verbatim(why_not()))
    if st.session_state.get(_SAID):
        st.error(verbatim(st.session_state[_SAID]))
    _draw_exports(context, study)


def _wait(context: Context) -> None:
    """Draw the page again once there is something to export."""
    if context.reading().front:
        st.rerun()


def _choose(reading: Reading) -> int | None:
    """The trial to export: what is selected, or else of the frontier the best."""
    front = reading.front
    selected = [n for n in links.selected() if n in reading.trials.index]
    offered = list(dict.fromkeys([*selected, *front]))
    if not offered:
        return None
    best = min(front, key=lambda n: reading.trials["bits_per_byte"][n]) if front else offered[0]
    if st.session_state.get("export-trial") not in offered:
        st.session_state["export-trial"] = selected[0] if selected else best

    def words(number: int) -> str:
        row = reading.trials.loc[number]
        bits = (
            ""
            if row["bits_per_byte"] != row["bits_per_byte"]
            else f", {row['bits_per_byte']:.4f} bits/byte"
        )
        where = "" if number in front else " (not on the frontier)"
        return f"#{number} {row['design']}{bits}{where}"

    chosen = st.selectbox(
        "Design",
        offered,
        key="export-trial",
        format_func=words,
        help="The frontier's, and those that are selected on other pages.",
    )
    return int(chosen)


def _proxy(spec: FFNSpec, backbone: Backbone) -> list[str]:
    native = native_form(spec, backbone)
    exists = isinstance(native, NativeForm)
    forms = {
        "auto": "native where there is such a class, else custom",
        "native": f"a class of transformers that computes the same: {native.words}",
        "custom": "our code beside the weights, loaded with trust_remote_code=True",
    }
    form = st.radio(
        "Form",
        list(forms),
        captions=list(forms.values()),
        key="export-form",
        help="Native models load without code, in vLLM and others, too.",
    )
    dtype = st.radio("Weights", ["float32", "bfloat16"], key="export-dtype", horizontal=True)
    if form == "native" and not exists:
        raise InputError(f"there is no native form of {spec.label}: {native.words}; choose custom")
    return [f"--form={form}", f"--dtype={dtype}"]


def _other_size(spec: FFNSpec, backbone: Backbone) -> list[str]:
    typed = {}
    columns = st.columns(4)
    for place, name in enumerate(SIZES):
        typed[name] = columns[place % 4].text_input(
            name,
            key=f"export-size-{name}",
            placeholder=str(getattr(backbone, name)),
            live="400ms",
            help="Empty: as the study's proxy has it"
            + (", in proportion to d_model." if name == "reference_d_ff" else "."),
        )
    tokenizer = columns[3].text_input(
        "tokenizer",
        key="export-tokenizer",
        placeholder="the study's",
        help="A tokenizer.json, a folder that holds one, or a model's id on the Hub.",
    )
    seed = columns[3].number_input("seed of the weights", 0, 2**31, key="export-seed", step=1)
    changed = changes(typed)
    found = sized(spec, backbone, changed)
    st.caption(
        f"{verbatim(found.spec.label)}: initialised, not trained. By the closed form, which the "
        "built model is held against:"
    )
    shown = {
        "Parameters": si(found.total_params),
        "that a token reads": si(found.active_params),
        "Active FLOPs a token": si(found.active_flops),
        "Training FLOPs a token": si(found.training_flops),
        "On the disk": f"{si(found.bytes)}B",
    }
    for column, (name, value) in zip(st.columns(len(shown)), shown.items(), strict=True):
        column.metric(name, value)
    more = [f"--tokenizer={tokenizer.strip()}"] if tokenizer.strip() else []
    return [f"--backbone={option(changed)}", f"--seed={int(seed)}", *more]


def _folder(study: StudyRecord, number: int) -> tuple[Path, str]:
    """The folder that is typed, and what is wrong with it."""
    proposed = f"{study.name}-trial-{number}"
    typed = st.text_input(
        "New folder",
        key="export-folder",
        placeholder=proposed,
        live="400ms",
        help="On the server's machine. It must not exist, or be empty.",
        disabled=bool(why_not()),  # who only reads is not told which folders there are
    )
    if why_not():
        return Path(proposed), ""
    try:
        folder = Path(Path.cwd(), Path(typed.strip() or proposed).expanduser())
        check_target(folder)
    except (InputError, RuntimeError) as error:  # RuntimeError: of a home that is not known
        st.caption(f":red[:material/error: Wrong:] {verbatim(str(error))}")
        return Path(proposed), str(error)
    st.caption(f"It becomes {verbatim(str(folder))}")
    return folder, ""


def _export(context: Context, name: str, options: list[str], folder: str) -> None:
    st.session_state[_SAID] = ""
    try:
        require_permission()
        actions(context).start("export", name, [*options, "--", name], target=folder)
    except (InputError, WorkFailed) as error:
        st.session_state[_SAID] = str(error)


def _draw_exports(context: Context, study: StudyRecord) -> None:
    found = recent(actions(context).of_study(study.name, "export"))
    draw_actions(found)
    done = next((each for each in found if each.code == 0), None)
    if done is not None and Path(done.target).is_dir():
        st.markdown(f"The newest model is in {verbatim(done.target)}. Load it with:")
        trust = ", trust_remote_code=True" if _has_code(Path(done.target)) else ""
        st.code(_SNIPPET.format(folder=done.target, trust=trust), language="python")


def _has_code(folder: Path) -> bool:
    """Whether the model brings code of its own."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # somebody has changed it since
        return True
    return "auto_map" in config


# Files.


def _files(context: Context, study: StudyRecord) -> None:
    url, name = context.source.url, study.name
    st.subheader("The frontier as a file")
    with st.container(horizontal=True, key="export-tables"):
        st.download_button(
            "CSV", lambda: frontier_csv(url, name), f"{name}-frontier.csv", key="export-csv"
        )
        st.download_button(
            "JSON", lambda: frontier_json(url, name), f"{name}-frontier.json", key="export-json"
        )
    draw_picture(url, name)
    st.subheader("The study on one page, to mail")
    st.caption(
        "One file of some ten kB without scripts: conditions, headline, frontier, runs, budget, "
        f"failures, and how to repeat it. The same as: `nas report {name} --html FILE`"
    )
    st.download_button(
        "Report", lambda: report_html(url, name), f"{name}.html", mime="text/html", key="report"
    )
