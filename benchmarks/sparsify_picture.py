"""What making a model sparse costs, as a picture: quality over what a token reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from benchmarks.rates_picture import SIZE
from nas.views.style import GREY, PALETTE

SIDES = ("top right", "bottom right", "middle left")  # of a point: neighbours' names lie apart
MARKS = ("circle", "square", "diamond", "cross", "triangle-up", "star")


def draw(file: Path) -> go.Figure:
    """The designs of a `--json` file of `benchmarks.sparsify`, a colour and a mark a method."""
    found = read(file)
    original = found.pop("original")
    figure = go.Figure()
    methods = list(dict.fromkeys(name.split()[0] for name in found))
    for number, method in enumerate(methods):
        own = {name: row for name, row in found.items() if name.split()[0] == method}
        figure.add_trace(
            go.Scatter(
                x=[row["active"] / original["active"] for row in own.values()],
                y=[row["perplexity"] for row in own.values()],
                text=[name.removeprefix(method).strip() for name in own],
                mode="markers+text",
                textposition=[SIDES[place % len(SIDES)] for place in range(len(own))],
                textfont_size=9,
                marker={"size": 9, "symbol": MARKS[number % len(MARKS)]},
                marker_color=PALETTE[number % len(PALETTE)],
                name=method,
            )
        )
    figure.add_hline(y=original["perplexity"], line_dash="dot", line_color=GREY)
    figure.update_xaxes(title_text="active FLOPs a token, of the dense model's")
    figure.update_yaxes(title_text="perplexity a token (dotted: the dense model, trained on)")
    figure.update_layout(template="plotly_white", legend={"orientation": "h", "y": 1.1}, **SIZE)
    figure.update_layout(height=640, margin_t=40)
    return figure


def read(file: Path) -> dict[str, dict[str, Any]]:
    """By design, its perplexity and its active FLOPs."""
    rows = {row["name"]: row["value"] for row in json.loads(file.read_text())["rows"]}
    names = [name.removesuffix(": perplexity") for name in rows if name.endswith(": perplexity")]
    return {
        name: {"perplexity": rows[f"{name}: perplexity"], "active": rows[f"{name}: active FLOPs"]}
        for name in names
    }
