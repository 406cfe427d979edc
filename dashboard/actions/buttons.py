"""Stop, resume and extend a study, as its state allows."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import streamlit as st

from dashboard.actions.following import actions, draw_actions, recent
from dashboard.actions.permission import require_permission, why_not
from dashboard.context import Context, again
from dashboard.text import verbatim
from nas.process.holder import is_gone
from nas.store import StudyRecord, StudyState
from nas.views.style import si
from search_space.contract import TRAINING
from search_space.errors import InputError, WorkFailed, require, shown

VERBS = ("launch", "resume", "stop", "extend")
SAID_S = 60.0  # that a sentence about a press stays, however often the page is drawn


@dataclass(frozen=True)
class Possible:
    """For each action why it cannot be done now, in a sentence; "" where it can."""

    stop: str
    resume: str
    extend: str


def possible(study: StudyRecord, lease_left: float) -> Possible:
    """What can be done to a study as it stands.

    lease_left: seconds for which its holder's last sign of life is good.
    """
    held = study.owner != "" and lease_left > 0 and not is_gone(study.owner)
    running = study.state is StudyState.RUNNING
    old = study.facts.training != TRAINING
    another = "It was trained by another version, whose results cannot be compared with new ones."
    if held:
        busy = "It is being driven: stop it first."
        return Possible("" if running else f"It is {study.state}.", busy, busy)
    resume = another if old else ""
    if study.state is StudyState.FINISHED:
        resume = resume or "It is finished: give it more FLOPs first."
    stop = "" if running else f"Only a running study can be stopped: it is {study.state}."
    return Possible(stop, resume, another if old else "")


def draw_buttons(context: Context, study: StudyRecord) -> None:
    """The buttons, why those are off that are, and what was started of late with its output.

    They follow the study: somebody else, or another server, may stop or resume it.
    """
    again(_board, context, study.name, study.state)


def _board(context: Context, name: str, drawn: StudyState) -> None:
    """drawn: the state that the rest of the page shows."""
    study = next((each for each in context.source.studies() if each.name == name), None)
    if study is None:
        st.warning(f"Study {verbatim(name)} is not in the database any more.")
        return
    if study.state is not drawn:
        st.rerun()
    can = possible(study, context.source.lease_left(study.id) if study.owner else 0.0)
    off = why_not()
    with st.container(horizontal=True, key=f"buttons-{study.id}"):
        _button(context, study, "stop", can.stop or off)
        _button(context, study, "resume", can.resume or off)
        _extend(context, study, can.extend or off)
    if off:
        st.caption(verbatim(off))
    sentence, said_at = st.session_state.get(_said(study), ("", 0.0))
    if sentence and time.monotonic() - said_at < SAID_S:
        st.warning(verbatim(sentence))
    draw_actions(recent(actions(context).of_study(study.name, *VERBS)), live=False)


_LOOKS = {
    "stop": ("Stop", ":material/stop:", "What runs is recorded and can be gone on with."),
    "resume": ("Resume", ":material/play_arrow:", "Goes on where it was left."),
}


def _button(context: Context, study: StudyRecord, verb: str, off: str) -> None:
    label, icon, what = _LOOKS[verb]
    st.button(
        label,
        icon=icon,
        key=f"{verb}-{study.id}",
        help=off or what,
        disabled=bool(off),
        on_click=_press,
        args=(context, study.name, verb),
    )


def _extend(context: Context, study: StudyRecord, off: str) -> None:
    spent = study.budget_flops
    with (
        st.popover(
            "Extend", icon=":material/add:", disabled=bool(off), help=off or "Give it more FLOPs."
        ),
        st.form(key=f"extend-{study.id}", border=False),
    ):
        st.text_input(
            "More training FLOPs",
            key=f"extend-flops-{study.id}",
            placeholder=f"such as {spent / 2:.2g}",
            help=f"Beyond its budget of {si(spent)}. It can be resumed then.",
        )
        st.text_input(
            "Designs in all",
            key=f"extend-trials-{study.id}",
            placeholder="as many more as FLOPs",
            help="That it may try, those that it has tried included. Empty: they grow as the "
            "FLOPs do.",
        )
        st.form_submit_button("Extend", on_click=_press, args=(context, study.name, "extend"))


def _press(context: Context, name: str, verb: str) -> None:
    """Start the command; where it cannot be, keep the sentence that says why for the page."""
    study = None
    try:
        require_permission()
        # As it stands now: somebody else may have pressed since this page was drawn.
        study = next((each for each in context.source.studies() if each.name == name), None)
        if study is None:
            raise InputError(f"study {name!r} is not in the database any more")
        can = possible(study, context.source.lease_left(study.id) if study.owner else 0.0)
        reason = getattr(can, verb)
        if reason:
            raise InputError(f"nas {verb} {name}: nothing was started. {reason}")
        actions(context).start(verb, name, [*_options(verb, study.id), "--", name])
    except (InputError, WorkFailed) as error:
        if study is None:
            st.error(verbatim(str(error)))
        else:
            st.session_state[_said(study)] = str(error), time.monotonic()


def _options(verb: str, id: int) -> list[str]:
    if verb != "extend":
        return []
    return extend_options(
        str(st.session_state.get(f"extend-flops-{id}", "")),
        str(st.session_state.get(f"extend-trials-{id}", "")),
    )


def extend_options(flops: str, trials: str) -> list[str]:
    """The options of `nas extend` for what was typed; InputError for what is no number."""
    try:
        value = float(flops)
    except ValueError:
        value = math.nan
    require(
        math.isfinite(value) and value > 0,
        f"more training FLOPs is a number above 0, such as 5e12: got {shown(flops)}",
    )
    if not trials.strip():
        return [f"--flops={value!r}"]
    whole = trials.strip().replace(",", "")
    require(
        whole.isascii() and whole.isdecimal() and 0 < len(whole) < 10 and int(whole) > 0,
        f"designs in all is a whole number above 0: got {shown(trials)}",
    )
    return [f"--flops={value!r}", f"--trials={int(whole)}"]


def _said(study: StudyRecord) -> str:
    return f"said-{study.id}"
