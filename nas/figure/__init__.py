"""The figures, as plain data for plotly.js and as Plotly figures.

Plotly is imported when a figure is made, so that importing this package costs nothing.
"""

from __future__ import annotations

from nas.figure.curves import CURVE_POINTS, RunCurve, curves_data, run_curves, thinned
from nas.figure.noise import noise
from nas.figure.pareto import pareto_data, pareto_figure
from nas.figure.runs import runs_data, runs_figure
from nas.figure.style import COLOURS, SYMBOLS, shown, si, write_html

__all__ = [
    "COLOURS",
    "CURVE_POINTS",
    "SYMBOLS",
    "RunCurve",
    "curves_data",
    "noise",
    "pareto_data",
    "pareto_figure",
    "run_curves",
    "runs_data",
    "runs_figure",
    "shown",
    "si",
    "thinned",
    "write_html",
]
