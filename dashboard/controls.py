"""Widgets whose values live in the link: a choice, a switch, a pick of trials.

The link is the truth: a widget shows what it says and writes to it when the reader changes it. So
a value outlives its page, a link opened elsewhere shows the same, and what depends on a widget can
be drawn before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from dashboard import links
from dashboard.data.reading import Reading
from dashboard.text import verbatim

_SAID = "said"


@dataclass(frozen=True)
class Choice:
    """A select box whose value is the link's parameter `name`.

    options: makes their words by value; it is asked only where that matters. A value that is none
        of them is the default, which is one.
    """

    label: str
    name: str
    options: Callable[[], Mapping[str, str]]
    default: str
    help: str | None = None
    disabled: bool = False

    @property
    def value(self) -> str:
        """What is chosen, whether the box is drawn or not."""
        wanted = links.get(self.name, self.default)
        return wanted if wanted == self.default or wanted in self.options() else self.default

    def draw(self) -> None:
        """The box."""
        key, options = f"link-{self.name}", self.options()
        st.session_state[key] = self.value

        def changed() -> None:
            value = st.session_state[key]
            links.put(self.name, "" if value == self.default else value)

        st.selectbox(
            self.label,
            list(options),
            key=key,
            format_func=lambda value: options.get(value, str(value)),
            on_change=changed,
            help=self.help,
            disabled=self.disabled,
        )


@dataclass(frozen=True)
class Switch:
    """A toggle: the link's parameter `name` has the value `on`, or nothing."""

    label: str
    name: str
    on: str
    help: str | None = None

    @property
    def value(self) -> bool:
        """Whether it is on."""
        return links.get(self.name) == self.on

    def draw(self) -> None:
        """The toggle."""
        key = f"link-{self.name}"
        st.session_state[key] = self.value

        def changed() -> None:
            links.put(self.name, self.on if st.session_state[key] else "")

        st.toggle(self.label, key=key, on_change=changed, help=self.help)


@dataclass(frozen=True)
class Letters:
    """Some of a few letters, kept together in one parameter: "xy", or "-" for none."""

    label: str
    name: str
    options: Mapping[str, str]
    default: str

    @property
    def value(self) -> str:
        """Those that are chosen, in the order of the options."""
        wanted = links.get(self.name, self.default)
        return "".join(letter for letter in self.options if letter in wanted)

    def draw(self) -> None:
        """A button each."""
        key = f"link-{self.name}"
        st.session_state[key] = list(self.value)

        def changed() -> None:
            value = "".join(st.session_state[key]) or "-"
            links.put(self.name, "" if value == self.default else value)

        st.pills(
            self.label,
            list(self.options),
            selection_mode="multi",
            key=key,
            format_func=lambda value: self.options.get(value, str(value)),
            on_change=changed,
        )


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
