"""Tables for people and for `--json`, and the rows of spaces, presets and costs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from nas.command.terminal import console, echo, plain
from search_space.backbone import Backbone
from search_space.cost import ffn_cost, model_cost
from search_space.errors import InputError, SpecError, nearest, shown
from search_space.plain import parse_json, read_json
from search_space.spec import FFNSpec

if TYPE_CHECKING:
    from search_space.matching import Equal
    from search_space.space import SearchSpace

Row = dict[str, Any]
COUNT_SECONDS = 3.0  # that `nas space` spends on counting


def print_rows(rows: Sequence[Row], as_json: bool, columns: Sequence[str] = ()) -> None:
    """A table, or a JSON list. columns: of the table; all that hold no mapping without any."""
    if as_json:
        echo(json.dumps(list(rows), indent=2))
        return
    if not rows:
        echo("nothing to show yet")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    screen = console()
    columns = columns or [n for n, value in rows[0].items() if not isinstance(value, dict)]
    for name in columns:
        numeric = any(isinstance(row[name], (int, float)) for row in rows)
        title = plain(name.replace("_", " "), screen.encoding)
        table.add_column(title, justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(escape(plain(_cell(row[name]), screen.encoding)) for name in columns))
    screen.print(table)


def print_record(record: Row, as_json: bool) -> None:
    """One thing, a line a field."""
    if as_json:
        echo(json.dumps(record, indent=2))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    screen = console()
    for name, value in record.items():
        shown = escape(plain(_cell(value), screen.encoding))
        table.add_row(f"[bold]{name.replace('_', ' ')}[/]", shown)
    screen.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) < 1e6 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def space_record(space: SearchSpace, backbone: Backbone) -> Row:
    """A space: its parameters, and how many legal designs of each method it offers."""
    from search_space.domain import words
    from search_space.space import count_designs
    from search_space.space.parameters import offered, when

    counts = count_designs(space, backbone, seconds=COUNT_SECONDS)
    return {
        "d_model": backbone.d_model,
        "reference_d_ff": backbone.reference_d_ff,
        "match": space.match,
        "parameters": [
            {
                "parameter": parameter.name,
                "choices": words(space.domains[parameter.name]),
                "asked": when(space, parameter),
                "meaning": parameter.meaning,
            }
            for parameter in offered(space)
        ],
        "counts": [
            {"method": count.method, "designs": count.designs, "complete": count.complete}
            for count in counts
        ],
        "designs": sum(count.designs for count in counts),
        "complete": all(count.complete for count in counts),
    }


def print_space(record: Row, as_json: bool) -> None:
    """What `space_record` found: two tables and what is counted."""
    if as_json:
        echo(json.dumps(record, indent=2))
        return
    print_rows(record["parameters"], as_json=False)
    echo()
    total = {"method": "total", "designs": record["designs"], "complete": record["complete"]}
    rows = [
        {
            "method": row["method"],
            "designs": row["designs"],
            "count": "exact" if row["complete"] else "at least",
        }
        for row in [*record["counts"], total]
    ]
    print_rows(rows, as_json=False)
    echo(
        f"\nCounted: different legal designs at d_model {record['d_model']}, reference width "
        f"{record['reference_d_ff']}, match {record['match']}; a range counts as one value, "
        "constraints are not applied."
    )
    if not record["complete"]:
        echo(f"At least: the count was stopped after {COUNT_SECONDS:g} seconds.")


def preset_rows(d_model: int, match: Equal | None = None) -> list[Row]:
    """Every preset on a backbone of that width.

    match: the cost of the reference FFN that their widths keep; None for the published widths.
    """
    from search_space.matching import matched
    from search_space.native import native_form
    from search_space.presets import PRESETS

    heads = max(1, d_model // 32)
    while d_model % (2 * heads):
        heads -= 1
        if heads == 0:
            raise InputError(f"d_model must be even (rotary pairs): got {d_model}")
    backbone = Backbone(d_model=d_model, n_heads=heads)
    rows = []
    for name, preset in PRESETS.items():
        spec = preset(backbone)
        row: Row = {"preset": name}
        try:
            spec = matched(spec, match, backbone) if match else spec
            row |= {"design": spec.label, "d_ff": spec.d_ff}
            cost = ffn_cost(spec, d_model)
            row |= {"active_flops": cost.active_flops, "total_params": cost.total_params}
            row["native"] = getattr(native_form(spec, backbone), "architecture", None)
        except SpecError as error:
            row |= {"design": f"none: {error}", "d_ff": None, "native": None}
        source = (preset.__doc__ or "").partition("\n")[0].rstrip(".")
        rows.append(row | {"what": source})
    return rows


def cost_record(design: str, backbone: Backbone) -> Row:
    """What a design costs: one FFN layer and the whole model, a token."""
    from search_space.native import native_form

    spec = parse_design(design, backbone)
    layer, model = ffn_cost(spec, backbone.d_model), model_cost(spec, backbone)
    return (
        {"design": spec.label, "key": spec.key, "spec": spec.to_dict()}
        | {"native_form": native_form(spec, backbone).words}
        | {f"ffn_{name}": value for name, value in layer.to_dict().items()}
        | {f"model_{name}": value for name, value in model.to_dict().items()}
    )


def parse_design(design: str, backbone: Backbone) -> FFNSpec:
    """A preset's name, a spec as JSON, or the path of a file that holds one."""
    from search_space.presets import PRESETS

    if design in PRESETS:
        return PRESETS[design](backbone)
    if design.lstrip().startswith("{"):
        try:
            data = parse_json(design, "this one")
        except InputError as error:
            raise InputError(f'a spec is JSON such as {{"d_ff": 512}}: {error}') from None
        return FFNSpec.from_dict(data)
    if not os.path.exists(design):  # not Path.exists, which raises for a name that is too long
        raise InputError(
            f"a design is a preset, a spec as JSON or a file: {shown(design)} is none; "
            f"{nearest(design, PRESETS)}"
        )
    data = read_json(design)
    try:
        return FFNSpec.from_dict(data)
    except InputError as error:
        raise InputError(f"{design}: {error}") from None
