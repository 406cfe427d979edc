"""What was started, on the page: what it says while it runs, and how it ended."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import streamlit as st

from dashboard.actions.permission import require_permission, why_not
from dashboard.actions.process import LOST, Action, Actions
from dashboard.context import Context, again
from dashboard.text import verbatim
from search_space.errors import InputError

SHOWN_S = 3600.0  # that an action stays on the page after it has ended
MOST = 3  # that a page shows


@cache
def _actions(url: str, cwd: Path) -> Actions:
    return Actions(url, cwd)


def actions(context: Context) -> Actions:
    """Those of the server's database."""
    return _actions(context.source.url, Path.cwd())


def recent(found: Sequence[Action]) -> list[Action]:
    """Of actions, the newest first, those that run or ended not long ago."""
    since = time.time() - SHOWN_S
    return [each for each in found if each.code is None or (each.ended or each.began) > since][
        :MOST
    ]


def draw_actions(found: Sequence[Action], live: bool = True) -> None:
    """Each with its output.

    live: keep those that run up to date, and draw the page again when one ends; not in a part of
        the page that is drawn again and again itself.
    """
    for each in found:
        with st.container(border=True, key=f"action-{each.folder.name}"):
            if each.code is not None:
                _ended(each)
            elif live:
                again(_followed, each)
            else:
                _running(each)


def _followed(action: Action) -> None:
    if action.code is not None:
        st.rerun()  # the whole page: what can be done has changed
    _running(action)


def _running(action: Action) -> None:
    _title(action, "runs", ":material/progress_activity:")
    _output(action)
    st.button(
        "Stop this command",
        key=f"cancel-{action.folder.name}",
        on_click=_cancel,
        args=(action,),
        disabled=bool(why_not()),
        help=why_not() or "Ends it as Ctrl-C would: what is half done is put in order first.",
    )


def _cancel(action: Action) -> None:
    try:
        require_permission()
        action.cancel()
    except (InputError, OSError) as error:
        st.error(verbatim(str(error)))


def _ended(action: Action) -> None:
    code = action.code
    if code == 0:
        _title(action, "is done", ":material/check_circle:")
    elif code == 130:
        _title(action, "was stopped", ":material/stop_circle:")
    else:
        _title(action, "failed", ":material/error:")
        if code == LOST:
            st.error(
                "Its process is gone, and did not say how it ended: it was killed, or the machine "
                "was started again."
            )
        else:
            st.error(verbatim(action.last_line or f"It ended with exit code {code}."))
    with st.expander("What it said"):
        _output(action)


def _title(action: Action, how: str, icon: str) -> None:
    began = datetime.fromtimestamp(action.began, UTC)
    ended = action.ended
    took = f", {_duration(ended - action.began)}" if ended else ""
    st.markdown(
        f"{icon} **{verbatim(f'nas {action.verb} {action.study}')}** {how} "
        f"(since {began:%H:%M:%S} UTC{took})"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _output(action: Action) -> None:
    text = action.output()
    st.code(text or "It has said nothing yet.", language=None, wrap_lines=True, height=220)
