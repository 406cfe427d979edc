"""What the command and the page both show: figures, and in `trial_rows` the columns of tables.

Figures are plain data for plotly.js, and Plotly's own objects. Plotly is imported when one is made,
so that importing this package costs nothing.
"""

from __future__ import annotations

from nas.views.curves import CURVE_POINTS, RunCurve, curves_data, run_curves, thinned
from nas.views.noise import noise
from nas.views.pareto import pareto_data, pareto_figure
from nas.views.runs import runs_data, runs_figure
from nas.views.style import colour, shown, si, symbol, write_html

__all__ = [
    "CURVE_POINTS",
    "RunCurve",
    "colour",
    "curves_data",
    "noise",
    "pareto_data",
    "pareto_figure",
    "run_curves",
    "runs_data",
    "runs_figure",
    "shown",
    "si",
    "symbol",
    "thinned",
    "write_html",
]
