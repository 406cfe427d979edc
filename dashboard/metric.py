"""A number with its name and a note, as the headlines of pages show it."""

from __future__ import annotations

from typing import Literal

from streamlit.delta_generator import DeltaGenerator


def draw_metric(
    place: DeltaGenerator,
    label: str,
    value: str,
    note: str | None,
    hint: str | None = None,
    width: Literal["stretch", "content"] = "stretch",
) -> None:
    """Draw it, as high as its neighbours.

    width: of its place, or of what it says where several stand in one row.
    """
    place.metric(
        label,
        value,
        note,
        delta_color="off",
        delta_arrow="off",
        border=True,
        width=width,
        height="stretch",
        help=hint,
    )
