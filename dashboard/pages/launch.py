"""Launch a study: its file as a form, what it will cost, and the start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from dashboard import links
from dashboard.actions.following import actions, draw_actions, recent
from dashboard.actions.permission import require_permission, why_not
from dashboard.context import Context, once
from dashboard.text import verbatim
from nas.store import NoStudiesYet, StudyRecord
from nas.store.names import free_name
from nas.views.style import si
from search_space.errors import InputError, WorkFailed

if TYPE_CHECKING:
    from nas.config import StudyConfig

FILE_NAME = "study.yaml"
_STARTED, _SAID = "launch-started", "launch-said"
_UPLOAD, _LIKE, _SAID_OF_FILE = "launch-upload", "launch-like", "launch-said-of-file"


def draw(context: Context) -> None:
    """The page."""
    st.title("Launch a study")
    once(_board, context)


def _board(context: Context) -> None:
    # Here, not above: the schema of a study's file takes a second to load, and one page needs it.
    from dashboard.actions.study_form import check, rules, to_yaml
    from dashboard.actions.study_widgets import draw_form, form_values

    studies = _studies(context)
    _draw_beginnings(studies)
    values = form_values()
    text, config = to_yaml(values), None
    # A pretrained model is fetched and read before its study is checked: that takes what acting
    # takes.
    why = why_not() if values[("base_model",)] else ""
    if not why:
        config, why = check(text)
    form, outcome = st.columns([3, 2], gap="large")
    with form:
        draw_form(rules(values) if config is None else {})
    with outcome:
        _draw_outcome(context, studies, text, config, why)


def _studies(context: Context) -> list[StudyRecord]:
    try:
        return context.source.studies()
    except NoStudiesYet:
        return []


def _draw_beginnings(studies: Sequence[StudyRecord]) -> None:
    """Where a form may begin, besides where it stands."""
    with st.expander("Begin with a file, or with an earlier study", key="launch-begin"):
        upload, like = st.columns(2)
        upload.file_uploader(
            "A study's file (YAML)",
            type=["yaml", "yml"],
            key=_UPLOAD,
            on_change=_take_upload,
            max_upload_size=1,
            help="The form then holds what it says. Its comments are not kept.",
        )
        if studies:
            names = {study.name: study for study in studies}
            like.selectbox("The configuration of", list(names), key=_LIKE)
            like.button("Take it", on_click=_take_study, args=(names,), key="launch-take")
    sentence = st.session_state.get(_SAID_OF_FILE)
    if sentence:
        st.error(verbatim(sentence))


def _take_upload() -> None:
    from dashboard.actions.study_form import from_yaml

    file = st.session_state.get(_UPLOAD)
    if file is None:
        return

    def read() -> Any:
        try:
            return from_yaml(file.getvalue().decode("utf-8-sig"), file.name)
        except UnicodeDecodeError:
            raise InputError(f"{file.name} is not text in UTF-8; save it as such") from None

    _take(read)


def _take_study(names: dict[str, StudyRecord]) -> None:
    from dashboard.actions.study_form import of_stored

    chosen = names[st.session_state[_LIKE]]
    _take(lambda: of_stored(chosen.name, chosen.config))


def _take(read: Any) -> None:
    from dashboard.actions.study_widgets import fill_form

    st.session_state[_SAID_OF_FILE] = ""
    try:
        fill_form(read())
    except InputError as error:
        st.session_state[_SAID_OF_FILE] = f"{error}; the form is as it was"


def _draw_outcome(
    context: Context,
    studies: Sequence[StudyRecord],
    text: str,
    config: StudyConfig | None,
    why: str,
) -> None:
    """What the form means: what is wrong with it or what it costs, its file, and the start."""
    st.subheader("What it comes to")
    if config is None:
        st.error(verbatim(why))
    else:
        _draw_forecast(context, studies, config)
    off = why_not()
    st.button(
        "Launch",
        type="primary",
        icon=":material/rocket_launch:",
        key="launch",
        disabled=config is None or bool(off),
        help=off or why or "It runs on whatever becomes of this page and of its server.",
        on_click=_launch,
        args=(context, text),
    )
    if off:
        st.caption(verbatim(off))
    if st.session_state.get(_SAID):
        st.error(verbatim(st.session_state[_SAID]))
    _draw_started(context, studies)
    st.subheader("Its file")
    st.caption("What `nas launch` reads. What is left out has its default.")
    # Not as code: what colours it is a third of the page's scripts, and its colours are faint.
    with st.container(key="launch-file", border=True):
        st.text(text)
    st.download_button(
        "Download the file", text, FILE_NAME, mime="application/yaml", key="launch-download"
    )


def _draw_forecast(context: Context, studies: Sequence[StudyRecord], config: StudyConfig) -> None:
    from dashboard.actions.forecast import duration, forecast, measured_rate

    speeds = context.source.speeds() if studies else {}
    found = forecast(config, measured_rate(config, studies, speeds))
    seconds = found.seconds
    time = "unknown" if seconds is None else f"about {duration(seconds)}"
    st.markdown(
        "| the whole study | |\n| --- | --- |\n"
        f"| training FLOPs, at most | **{si(found.flops)}** |\n"
        f"| time | **{time}** |\n| designs | **{config.budget.trials:,}** |"
    )
    if found.rate is None:
        st.caption(
            "Its time is unknown: no study of this database has measured anything on this machine "
            "with such workers."
        )
    else:
        size = found.rate.ratio
        alike = "about as large" if found.rate.alike else f"{size:.2g} times as costly a token"
        st.caption(
            f"By study {verbatim(found.rate.study)}, where a worker of this machine did "
            f"{si(found.rate.flops_a_second)}FLOP/s over {found.rate.evaluations:,} evaluations. "
            f"{found.workers} work at a time. The new dense model is {alike}"
            + ("." if found.rate.alike else ", so this is rough.")
        )
    lines = [
        f"| {rung} | {level:.3g} | {runs:,.0f} |"
        for rung, (level, runs) in enumerate(zip(found.levels, found.runs, strict=True))
    ]
    st.markdown(
        "| rung | FLOPs of a run | designs there |\n| --- | --- | --- |\n" + "\n".join(lines)
    )
    if config.budget.repeats.share:
        share = config.budget.repeats.share
        st.caption(f"Up to {share:.0%} of the FLOPs go into further seeds of the best designs.")


def _launch(context: Context, text: str) -> None:
    """Start `nas launch` under a name that is free; the command checks all of it again."""
    from dashboard.actions.study_form import check

    st.session_state[_SAID] = ""
    try:
        require_permission()
        config, why = check(text)
        if config is None:
            raise InputError(why)
        name = free_name(config.name, {study.name for study in _studies(context)})
        options = ["--name", name, "--", f"{{folder}}/{FILE_NAME}"]
        actions(context).start("launch", name, options, files={FILE_NAME: text})
        st.session_state[_STARTED] = name
    except (InputError, WorkFailed) as error:
        st.session_state[_SAID] = str(error)


def _draw_started(context: Context, studies: Sequence[StudyRecord]) -> None:
    """What was launched of late; the session's own shows itself on the page Live once it is stored.

    studies: as they were when this part was drawn; a running launch draws it again.
    """
    waits = st.session_state.get(_STARTED)
    if waits and any(study.name == waits for study in studies):
        st.session_state[_STARTED] = None
        links.put("study", waits)
        links.select(())
        links.go("live")
    launched = recent([each for each in actions(context).all() if each.verb == "launch"])
    if waits and any(each.study == waits and each.code is None for each in launched):
        st.fragment(_wait, run_every=1.0)(context, waits)
    draw_actions(launched)
    for each in launched:
        if any(study.name == each.study for study in studies):
            st.button(
                f"Look at {each.study}",
                key=f"launch-look-{each.study}",
                on_click=links.put,
                args=("study", each.study),
            )


def _wait(context: Context, name: str) -> None:
    """Draw the page again once the study is stored."""
    if any(study.name == name for study in _studies(context)):
        st.rerun()
    st.caption(
        f":material/hourglass_top: {verbatim(name)} prepares: its text is read and its workers "
        "start. The page Live comes up when its first design can begin."
    )
