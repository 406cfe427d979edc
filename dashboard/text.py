"""Texts of others on the page: errors, names, notes. Every character is shown as it is."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"[A-Za-z0-9]+([ .-][A-Za-z0-9]+)*")  # nothing in it that Markdown reads


_DESIGN = re.compile(r"[A-Za-z0-9]+([ ._=/]+[A-Za-z0-9]+)*")  # in it `_` alone means something


def design_words(label: str) -> str:
    """Markdown that shows a design's label in plain type, or as code what is odd in it."""
    return label.replace("_", r"\_") if _DESIGN.fullmatch(label) else verbatim(label)


def verbatim(text: str) -> str:
    """Markdown that shows `text` itself.

    Escaping marks would not do: Streamlit looks for emoji, arrows and colours in what Markdown
    leaves. It leaves code alone, so whatever is not plain words is shown as code.
    """
    text = " ".join(text.split())
    if not text or _PLAIN.fullmatch(text):
        return text
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    edge = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{edge}{text}{edge}{fence}"
