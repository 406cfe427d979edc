"""The launch form on the page: a widget a field, with what is wrong beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from dashboard.actions.study_form import (
    COMMON,
    START,
    Entry,
    Path,
    Values,
    entries,
    label_of,
    sections,
    warm_starts,
)
from dashboard.folded import folded
from dashboard.text import verbatim

_HELD = "launch-values"  # of the session: a widget's state goes when another page is drawn
_GROUPS = (
    ("The study", ("name", "objectives", "warm_start")),
    ("What it may spend", ("budget",)),
    ("Text and proxy", ("corpus", "backbone")),
    ("Designs", ("space", "constraints")),
    ("Machines", ("workers",)),
)
_ABOUT = {
    "study": "Seed, kind and sampler",
    "budget": "Budget: more of it",
    "corpus": "Corpus: which text, and how it is split",
    "backbone": "Backbone: the proxy model around the FFN",
    "recipe": "Recipe: how proxies are trained",
    "space": "Space: the designs that are searched",
    "constraints": "Constraints: upper bounds, as ratios of the model with the dense FFN",
    "workers": "Workers: the machines",
}
_LABEL = 70  # characters of a meaning that stand above a field; all of it is in its help
_BOUND = "an upper bound on {}, as a ratio of the model with the dense FFN; empty is none"


# A field that is drawn has its value in the session's state, under its key. Streamlit forgets that
# once the field is not drawn: its section is closed, or the reader is on another page. What such a
# field held is kept apart, and nothing is written under its key, which would outlive it.


def fill_form(values: Values) -> None:
    """Let the form hold these values and nothing else."""
    st.session_state[_HELD] = dict(values)
    for each in entries():
        if _key(each) in st.session_state:
            st.session_state[_key(each)] = _filled(each, values)


def form_values() -> Values:
    """What the form holds."""
    held: Values = st.session_state.get(_HELD, START)
    values: Values = {}
    for each in entries():
        key = _key(each)
        drawn = key in st.session_state
        values[each.path] = st.session_state[key] if drawn else _filled(each, held)
    st.session_state[_HELD] = values
    return values


def _filled(entry: Entry, values: Values) -> Any:
    empty: Any = [] if entry.kind == "words" else ""
    return values.get(entry.path, entry.default if entry.kind == "choice" else empty)


def draw_form(wrong: Mapping[Path, str]) -> None:
    """The fields: the common ones in groups, the others by section, once it is opened. Only after
    `form_values`.

    wrong: by field, what is wrong with what it holds.
    """
    common = {each.path: each for each in entries() if each.path in COMMON}
    for title, names in _GROUPS:
        st.markdown(f"**{title}**")
        own = [common[path] for path in COMMON if path[0] in names]
        _draw_in_columns(own, wrong)
    st.markdown("**Everything else**, each with its default")
    for name, others in sections().items():
        bad = sum(each.path in wrong for each in others)
        title = _ABOUT.get(name, f"Space: the keys of {name.removeprefix('space: ')} alone")
        title += f" :red[({bad} wrong)]" if bad else ""
        folded(title, f"launch-section-{name}", partial(_draw_in_columns, others, wrong))


def _draw_in_columns(some: Sequence[Entry], wrong: Mapping[Path, str]) -> None:
    columns = st.columns(2)
    for place, each in enumerate(some):
        with columns[place % 2]:
            _draw(each)
            if each.path in wrong:
                st.caption(f":red[:material/error: Wrong:] {verbatim(wrong[each.path])}")


def _draw(entry: Entry) -> None:
    key = _key(entry)
    if key not in st.session_state:
        st.session_state[key] = st.session_state[_HELD][entry.path]
    held = st.session_state[key]
    options: dict[str, Any] = {"key": key, "help": _help(entry)}
    if entry.kind == "choice":
        known = list(entry.options)
        if held is not None and held not in known:
            known.append(str(held))  # of an uploaded file, to be refused beside it
        st.selectbox(_label(entry), known, **options)
    elif entry.kind == "words":
        known = list(entry.options)
        words: Callable[[str], str] = str
        if entry.path == ("warm_start",):
            kind = str(st.session_state[_HELD][("kind",)])
            known, words = list(warm_starts(kind)), partial(label_of, kind=kind)
        known += [word for word in held or () if word not in known]
        st.multiselect(
            _label(entry),
            known,
            format_func=words,
            placeholder=_placeholder(entry),
            accept_new_options=entry.path in (("space", "methods"), ("warm_start",)),
            **options,
        )
    else:
        st.text_input(
            _label(entry),
            placeholder=_placeholder(entry),
            live="400ms",
            max_chars=10_000 if entry.kind == "text" else 500,
            **options,
        )


def _placeholder(entry: Entry) -> str:
    if entry.needed:
        return "needed"
    if entry.path[0] == "constraints":
        return "no bound"
    return entry.default_words or "none"


def _label(entry: Entry) -> str:
    meaning = _meaning(entry).replace("`", "")
    for end in (". ", "; ", ": "):
        meaning = meaning.partition(end)[0]
    meaning = meaning.rstrip(".")
    if len(meaning) > _LABEL:
        meaning = f"{meaning[:_LABEL].rpartition(' ')[0]} ..."
    return f"**{entry.key}**: {meaning}"


def _meaning(entry: Entry) -> str:
    if entry.path[0] == "constraints":
        return _BOUND.format(entry.meaning.rstrip("."))
    return entry.meaning


def _help(entry: Entry) -> str:
    default = "It has no default." if entry.needed else f"Default: {entry.default_words or 'none'}."
    how = {
        "list": " Typed as `1, 2, 4`, or as `{low: 0.1, high: 1, log: true}` where it is a weight.",
        "number": " FLOPs and the like may be typed as `1e12`.",
    }.get(entry.kind, "")
    return f"{_meaning(entry)} {default}{how}"


def _key(entry: Entry) -> str:
    return f"launch-{entry.key}"
