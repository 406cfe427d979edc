"""The parts of a report's page: its style, sections and tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# Light and dark as the reader has it. A row that a point leads to is marked.
_STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #31333f; --soft: #6b6f7b;
        --edge: #d9dce3; --mark: #fff3c4; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0e1117; --ink: #fafafa; --soft: #a5a9b5; --edge: #3a3f4b; --mark: #4a3d10; }
}
body { margin: 0 auto; padding: 2rem 1.5rem; max-width: 64rem; background: var(--paper);
       color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0; } h2 { margin: 2.2rem 0 .6rem; font-size: 1.25rem; }
.subtitle, small, caption, th { color: var(--soft); }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem 2rem; margin: 1.5rem 0 0; }
.tiles dt { color: var(--soft); } .tiles dd { margin: 0; font-size: 1.4rem; }
.tiles small { display: block; font-size: .8rem; max-width: 16rem; }
.figure svg { width: 100%; height: auto; }
.figure a:hover g, .figure a:focus g { stroke: currentColor; stroke-width: 2; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top;
         border-bottom: 1px solid var(--edge); overflow-wrap: break-word; }
th { font-weight: 600; font-size: .85rem; } td.number { text-align: right; white-space: nowrap; }
tr:target { background: var(--mark); }
pre { overflow-x: auto; padding: .8rem; border: 1px solid var(--edge); border-radius: .4rem; }
summary { cursor: pointer; }
@media print { details { display: block; } .figure { break-inside: avoid; } }
"""


def page(title: str, subtitle: str, parts: Sequence[str]) -> str:
    """The whole file. No network is asked for anything: the policy in its head forbids it."""
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<div class="subtitle">{escape(subtitle)}</div>
{body}
</main>
</body>
</html>
"""


def section(title: str, body: str) -> str:
    """A part of the page under a heading."""
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def details(title: str, body: str) -> str:
    """A part that the reader opens."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>"


def cell(value: object) -> str:
    """A cell of a table that holds words."""
    return f"<td>{escape(str(value))}</td>"


def number(value: object) -> str:
    """A cell of a table that holds a figure: to the right, on one line."""
    words = f"{value:,}" if isinstance(value, int) else str(value)
    return f'<td class="number">{escape(words)}</td>'


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table.

    heads: of its columns; none without any.
    rows: each its id, or "", and its cells.
    """
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    lines = []
    for name, cells in rows:
        anchor = f' id="{escape(name)}"' if name else ""
        lines.append(f"<tr{anchor}>{''.join(cells)}</tr>")
    top = f"<thead><tr>{head}</tr></thead>" if heads else ""
    # Where it is wider than the page, the keyboard must reach it to move it.
    wide = 'class="wide" role="region" tabindex="0" aria-label="A table"'
    return f"<div {wide}><table>{top}<tbody>{''.join(lines)}</tbody></table></div>\n"
