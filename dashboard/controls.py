"""Widgets whose values live in the link: a choice, a switch, a pick of trials.

The link is the truth: a widget shows what it says and writes to it when the reader changes it. So
a value outlives its page, and a link opened elsewhere shows the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from dashboard import links
from dashboard.data.reading import Reading
from dashboard.text import verbatim

_SAID = "said"


def choice(
    label: str,
    name: str,
    options: Mapping[str, str],
    default: str,
    help: str | None = None,
    disabled: bool = False,
) -> str:
    """A select box whose value is the link's parameter `name`.

    options: their words by value. A value that is none of them is the default.
    """
    key = f"link-{name}"
    wanted = links.get(name, default)
    st.session_state[key] = wanted if wanted in options else default

    def changed() -> None:
        value = st.session_state[key]
        links.put(name, "" if value == default else value)

    return str(
        st.selectbox(
            label,
            list(options),
            key=key,
            format_func=lambda value: options.get(value, str(value)),
            on_change=changed,
            help=help,
            disabled=disabled,
        )
    )


def switch(label: str, name: str, on: str, help: str | None = None) -> bool:
    """A toggle: the link's parameter `name` has the value `on`, or nothing."""
    key = f"link-{name}"
    st.session_state[key] = links.get(name) == on

    def changed() -> None:
        links.put(name, on if st.session_state[key] else "")

    return bool(st.toggle(label, key=key, on_change=changed, help=help))


def letters(label: str, name: str, options: Mapping[str, str], default: str) -> str:
    """Some of a few letters, kept together in one parameter: "xy", or "-" for none."""
    key = f"link-{name}"
    wanted = links.get(name, default)
    st.session_state[key] = [letter for letter in options if letter in wanted]

    def changed() -> None:
        value = "".join(st.session_state[key]) or "-"
        links.put(name, "" if value == default else value)

    chosen = st.pills(
        label,
        list(options),
        selection_mode="multi",
        key=key,
        format_func=lambda value: options.get(value, str(value)),
        on_change=changed,
    )
    return "".join(chosen)


def pick(
    reading: Reading, label: str, key: str, most: int | None = None, help: str | None = None
) -> list[int]:
    """The selected trials as a list that can be changed: by design, or by typing a number."""
    _speak()
    trials = reading.trials.index
    now = [number for number in links.selected() if number in trials]
    chosen = reading.labels(now)
    choices = list(dict.fromkeys([*chosen, *reading.offered.values()]))
    st.session_state[key] = chosen[:most]

    def changed() -> None:
        _take(st.session_state[key], trials)

    shown = st.multiselect(
        label,
        choices,
        key=key,
        accept_new_options=True,
        select_all=False,  # else Enter takes all that match what was typed
        max_selections=most,
        on_change=changed,
        filter_mode="contains",
        placeholder="Choose designs, or type a trial as #12",
        help=help,
    )
    return [number for text in shown if (number := number_in(text)) is not None]


def pick_one(reading: Reading, label: str, key: str, default: int) -> int:
    """The trial in focus: the first that is selected, else `default`."""
    _speak()
    trials = reading.trials.index
    now = next((number for number in links.selected() if number in trials), default)
    choices = list(dict.fromkeys([*reading.labels([now]), *reading.offered.values()]))
    st.session_state[key] = choices[0]

    def changed() -> None:
        number = number_in(st.session_state[key] or "")
        if number is None or number not in trials:
            _say(f"This study has no trial {st.session_state[key]!r}")
            return
        links.select([number, *(each for each in links.selected() if each != number)])

    st.selectbox(
        label,
        choices,
        key=key,
        accept_new_options=True,
        filter_mode="contains",
        on_change=changed,
        help="Choose a design, or type any trial as #12 and press Enter.",
    )
    return now


def number_in(text: str) -> int | None:
    """The trial's number in a label, or in what a reader typed: `#7  dense 1x64`, `7`."""
    first = text.strip().removeprefix("#").split()
    return int(first[0]) if first and first[0].isdecimal() else None


def _take(texts: Sequence[str], trials: Any) -> None:
    found = [number_in(text) for text in texts]
    unknown = [t for t, n in zip(texts, found, strict=True) if n is None or n not in trials]
    if unknown:
        _say(f"This study has no trial {', '.join(map(repr, unknown))}")
    links.select([number for number in found if number is not None and number in trials])


def select(numbers: Sequence[int]) -> None:
    """What a chart or a table selected; says so when a link cannot carry them all."""
    links.select(numbers)
    if len(numbers) > links.MOST_SELECTED:
        _say(
            f"{len(numbers):,} designs are in that area; the first {links.MOST_SELECTED} of them "
            "are selected"
        )


# A callback must draw nothing: the next drawing of a list of trials says what it has to say.


def _say(text: str) -> None:
    st.session_state[_SAID] = text


def _speak() -> None:
    text = st.session_state.pop(_SAID, None)
    if text is not None:
        st.toast(verbatim(text))
