"""A study on one page that can be mailed: what it searched, what it found, and how to do it again.

The page is one file without scripts: mail programs and offline readers show all of it. Its figures
are SVG, its colours follow the reader's choice of light or dark, and it asks no network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from nas.search.bounds import limits
from nas.search.objectives import shown_objectives
from nas.search.pareto import best, frontier
from nas.store import EvaluationRecord, Ledger, Store, StudyRecord, TrialRecord
from nas.views.certainty import neighbour_words
from nas.views.frontier_rows import Row, frontier_rows
from nas.views.noise import noise
from nas.views.pareto import pareto_data
from nas.views.report_page import cell, details, number, page, section, table
from nas.views.runs import runs_data
from nas.views.style import si
from nas.views.svg import figure_svg
from nas.yaml_file import write_yaml
from search_space.contract import FAILURES, Status
from search_space.secrets import redacted

FAILURES_SHOWN = 20  # of a kind of error, one stands for all
NOTHING = "-"


@dataclass(frozen=True)
class _Study:
    """All that the page is made of, read once."""

    study: StudyRecord
    trials: Sequence[TrialRecord]
    evaluations: Sequence[EvaluationRecord]
    ledger: Ledger
    rows: Sequence[Row]


def report(store: Store, study: StudyRecord) -> str:
    """The page, as HTML."""
    found = _Study(
        study,
        store.trials(study.id, stats=False),
        store.evaluations(study.id),
        store.ledger(study.id),
        frontier_rows(store, study),
    )
    parts = [
        _headline(found),
        section("The frontier", _frontier(found)),
        section("Runs over the rungs", _runs(found)) if study.top else "",
        section("What it spent", _budget(found)),
        section("What failed", _failures(found)),
        section("What was searched, and on what", _conditions(study)),
        section("Do it again", _again(found)),
    ]
    return page(f"Study {study.name}", _subtitle(study), [part for part in parts if part])


def _subtitle(study: StudyRecord) -> str:
    ended = f", ended {_minute(study.ended_at)}" if study.ended_at else ""
    machine = f", on {study.facts.machine}" if study.facts.machine else ""
    return f"{study.state.value}; started {_minute(study.created_at)}{ended}{machine}"


def _minute(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M} UTC"


def _headline(found: _Study) -> str:
    study, bounds = found.study, limits(found.study)
    counts = Counter(trial.status for trial in found.trials)
    first = best(found.trials, bounds)
    finished = f"{counts[Status.FINISHED]:,} of {len(found.trials):,}"
    quality, beside = NOTHING, ""
    if first is not None and first.bits_per_byte is not None:
        error = noise(study, first)
        quality = f"{first.bits_per_byte:.4f}" + (f" ± {error:.4f}" if error is not None else "")
        beside = f"trial {first.number}: {first.spec.label}"
    ngram = study.facts.best_ngram
    tiles = [
        ("Best bits per byte", quality, beside),
        ("Best n-gram model", f"{ngram[1]:.4f}" if ngram else NOTHING, _order(ngram)),
        ("On the frontier", f"{len(found.rows):,}", "designs"),
        ("Designs at the top rung", finished, f"{counts[Status.PAUSED]:,} paused below it"),
        ("Training FLOPs", si(found.ledger.spent), f"of {si(found.ledger.budget)}"),
    ]
    return (
        '<dl class="tiles">'
        + "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>"
            for name, value, more in tiles
        )
        + "</dl>"
    )


def _order(ngram: tuple[str, float] | None) -> str:
    return f"of bytes, order {ngram[0]}, of the same text" if ngram else ""


def _frontier(found: _Study) -> str:
    if not found.rows:
        return "<p>No design has reached the top rung within the study's bounds yet.</p>"
    study = found.study
    numbers = {row["trial"] for row in found.rows}
    title = "Quality against cost: designs measured at the top rung"
    drawn = figure_svg(pareto_data(study, found.trials), title, linked=numbers, alone=False)
    costs = [o for o in shown_objectives(study.objectives, "table") if o.name != "bits_per_byte"]
    heads = ["trial", "design", "bits/byte", "±", "seeds", "P(frontier)", "less the next cheaper"]
    heads += ["less the next dearer", *(o.column for o in costs), "proposed by"]
    lines = []
    for row in found.rows:
        cells = [number(row["trial"]), cell(row["design"]), number(_four(row["bits_per_byte"]))]
        cells += [number(_four(row["±"])), number(row["seeds"])]
        chance = row["p_frontier"]
        cells.append(number(NOTHING if chance is None else f"{chance:.2f}"))
        cells += [number(neighbour_words(row[side]) or NOTHING) for side in ("cheaper", "dearer")]
        cells += [number(si(row[o.name]) if row[o.name] is not None else NOTHING) for o in costs]
        cells.append(cell(row["source"]))
        lines.append((f"trial-{row['trial']}", cells))
    words = (
        "<p>Solid points are on the frontier of all the study's objectives; point at one to read "
        "it, choose it to find its row. Faded ones are dominated. A bar is one standard error. "
        "P(frontier) is how likely a design is on the true frontier. What parts two neighbours, "
        "in bits per byte, is measured on the same validation windows, and has its own error.</p>"
    )
    return f'<div class="figure">{drawn}</div>{words}{table(heads, lines)}'


def _four(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def _runs(found: _Study) -> str:
    if not any(each.bits_per_byte is not None for each in found.evaluations):
        return "<p>Nothing has been measured yet.</p>"
    drawn = figure_svg(
        runs_data(found.study, found.trials, found.evaluations),
        "Bits per byte of each run at the rungs that it came to",
        alone=False,
    )
    return (
        f'<div class="figure">{drawn}</div><p>A line is a run. Thick: designs on the frontier. '
        "Faint: runs that paused below the top rung. A cross: a run that failed.</p>"
    )


def _budget(found: _Study) -> str:
    ledger = found.ledger
    shares = [
        ("budget", ledger.budget),
        ("spent", ledger.spent),
        ("held by what runs", ledger.reserved),
        ("left", ledger.left),
    ]
    whole = ledger.budget or 1.0
    account = table(
        ["training FLOPs", "", "share"],
        [("", [cell(name), number(si(v)), number(f"{v / whole:.0%}")]) for name, v in shares],
    )
    lines = []
    for rung in range(found.study.rungs):
        mine = [each for each in found.evaluations if each.rung == rung]
        until = max((each.until_flops for each in mine), default=None)
        first = sum(each.seed == found.study.seed for each in mine)
        cells = [number(rung), number(NOTHING if until is None else si(until)), number(first)]
        cells += [number(len(mine) - first), number(sum(e.status in FAILURES for e in mine))]
        cells += [number(si(sum(each.flops for each in mine)))]
        cells += [number(f"{sum(each.seconds for each in mine) / 3600:.2f}")]
        lines.append(("", cells))
    heads = ["rung", "FLOPs of a run", "designs", "further seeds", "failed"]
    return account + table([*heads, "FLOPs spent", "hours of workers"], lines)


def _failures(found: _Study) -> str:
    failed = [each for each in found.evaluations if each.status in FAILURES]
    if not failed:
        return "<p>Nothing failed.</p>"
    kinds: dict[tuple[str, str], list[EvaluationRecord]] = {}
    for each in failed:
        kinds.setdefault((each.status.value, redacted(each.error)), []).append(each)
    shown = sorted(kinds.items(), key=lambda item: -len(item[1]))
    lines = []
    for (status, error), own in shown[:FAILURES_SHOWN]:
        trials = sorted({each.trial for each in own})
        few = ", ".join(map(str, trials[:10])) + (" ..." if len(trials) > 10 else "")
        cells = [cell(status), number(len(own)), cell(few), cell(error or NOTHING)]
        lines.append(("", cells))
    rest = len(shown) - FAILURES_SHOWN
    more = f"<p>And {rest:,} other errors.</p>" if rest > 0 else ""
    return table(["how", "evaluations", "trials", "what it said"], lines) + more


def _conditions(study: StudyRecord) -> str:
    facts, config = study.facts, study.config
    corpus = facts.corpus
    tokens = ", ".join(f"{count:,} {split}" for split, count in corpus.tokens.items())
    backbone = config.get("backbone") or {}
    shape = ", ".join(f"{k} {v}" for k, v in backbone.items() if k != "base")
    bounds = limits(study)
    rows: list[tuple[str, Any]] = [
        ("kind", config.get("kind", "pretrain")),
        ("base model", config.get("base_model") or NOTHING),
        ("text", redacted(corpus.source) or NOTHING),
        ("its hash", corpus.hash or NOTHING),
        ("tokens", tokens or NOTHING),
        ("n-gram models", _ngrams(study)),
        ("proxy", shape or NOTHING),
        ("objectives", ", ".join(study.objectives)),
        ("bounds", ", ".join(f"{k} at most {si(v)}" for k, v in bounds.items()) or "none"),
        ("deviation of one seed", _four(study.deviation) + " bits per byte"),
        ("seed", study.seed),
        ("uid", study.uid),
    ]
    lines = [("", [cell(name), cell(value)]) for name, value in rows if value != NOTHING]
    notes = "".join(f"<li>{escape(redacted(note))}</li>" for note in corpus.notes)
    left_out = f"<p>Of the text:</p><ul>{notes}</ul>" if notes else ""
    return table([], lines) + left_out


def _ngrams(study: StudyRecord) -> str:
    grams = sorted(study.facts.ngram_bits_per_byte.items())
    return ", ".join(f"order {n}: {bits:.3f}" for n, bits in grams) or NOTHING


def _again(found: _Study) -> str:
    study = found.study
    front = frontier(found.trials, study.objectives, limits(study))
    point = f" --trial {front[0].number}" if front else ""
    commands = (
        f"nas launch study.yaml          # the file below; ffn-nas {_version()}\n"
        f"nas export {study.name}{point} --to model   # from the study's own database\n"
    )
    text = write_yaml(_file_of(study))
    said = (
        "<p>With one worker the same file, text and version give the same trials. With several, "
        "the order in which evaluations end plays a part.</p>"
    )
    return (
        f"<pre>{escape(commands)}</pre>{said}"
        f"{details('study.yaml', f'<pre>{escape(redacted(text))}</pre>')}"
    )


def _file_of(study: StudyRecord) -> dict[str, Any]:
    """The study's configuration as a file has it: without what was read of a pretrained model."""
    config = {"name": study.name} | dict(study.config)
    backbone = dict(config.get("backbone") or {})
    if backbone.pop("base", None) is not None:
        config["backbone"] = {"seq_len": backbone["seq_len"]}
        corpus = dict(config.get("corpus") or {})
        corpus.pop("tokenizer", None)
        config["corpus"] = corpus
    return config | {"name": study.name}


def _version() -> str:
    try:
        return version("ffn-nas")
    except PackageNotFoundError:  # run from a checkout
        return "of a checkout"
