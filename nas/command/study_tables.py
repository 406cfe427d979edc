"""Rows of studies and trials, as `list`, `status`, `pareto` and `show` print them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from nas.command.tables import Row, print_record, print_rows
from nas.command.terminal import echo
from nas.process.holder import is_gone
from nas.process.holder import words as holder_words
from nas.search.bounds import excess, limits
from nas.search.bounds import words as bound_words
from nas.search.pareto import best, frontier
from nas.search.rungs import levels
from nas.store import EvaluationRecord, Store, StudyRecord, TrialRecord
from nas.store.tallies import Tally
from nas.study import Study
from nas.views.certainty import frontier_chances, neighbour_words
from nas.views.comparison import Comparison
from nas.views.copied import Copied, copying_note
from nas.views.frontier_rows import frontier_row, frontier_rows
from nas.views.trial_rows import run_row, trial_row
from search_space.contract import FAILURES, Status
from search_space.native import native_form

MOST_LOADS = 64  # of a layer's experts that `show` prints one by one
LOG_LINES = 100  # of an evaluation that `show` prints: the newest
# Of a study's row, the columns of the table of studies.
LISTED = (
    *("study", "state", "trials", "finished", "paused", "running", "stopped", "not_finished"),
    *("infeasible", "flops_spent", "flops_budget", "best_bits_per_byte", "best_design"),
    *("frontier", "started"),
)


def study_row(store: Store, study: StudyRecord) -> Row:
    """One study as `list` and `status` show it.

    `trials` are designs; of them `finished` at the top rung, `paused` below it, `stopped` are to be
    taken up, and `not_finished` ended without a result. `running` are evaluations. `repeats` are
    further seeds that were measured. FLOPs are training FLOPs. `deviation` is of one seed, in bits
    per byte. The columns that are compared are read, not the trials.
    """
    trials, ledger, bounds = store.measures(study.id), store.ledger(study.id), limits(study)
    tallies = store.tallies(study.id)
    kept = [trial for trial in trials if not excess(trial, bounds)]
    first = best(kept)
    counts = Counter(trial.status for trial in trials)
    return {
        "study": study.name,
        "state": study.state.value,
        "trials": len(trials),
        "finished": counts[Status.FINISHED],
        "paused": counts[Status.PAUSED],
        "running": _count(tallies, Status.RUNNING),
        "stopped": counts[Status.STOPPED],
        "not_finished": sum(counts[status] for status in FAILURES),
        "infeasible": len(trials) - len(kept),
        "rungs": _rung_rows(study, tallies),
        "repeats": _count([each for each in tallies if each.repeat], Status.FINISHED),
        "deviation": study.deviation,
        "flops_spent": ledger.spent,
        "flops_reserved": ledger.reserved,
        "flops_budget": ledger.budget,
        "best_bits_per_byte": first.bits_per_byte if first else None,
        "best_design": store.some_trials(study.id, [first.number])[0].spec.label if first else None,
        "frontier": len(frontier(kept, study.objectives)),
        "held_by": _holder(store, study),
        "held_since": _time(study.owner_since) if study.owner else None,
        "started": _time(study.created_at),
    }


def _count(tallies: list[Tally], *statuses: Status) -> int:
    return sum(each.count for each in tallies if each.status in statuses)


def _rung_rows(study: StudyRecord, tallies: list[Tally]) -> list[Row]:
    """A row a rung, the lowest first: its FLOPs, and its evaluations of all seeds by status."""
    budget = study.config.get("budget") or {}
    flops: tuple[float | None, ...] = (None,) * study.rungs
    if "trial_flops" in budget:
        flops = levels(budget["trial_flops"], study.rungs, budget.get("reduction", 3.0))
    rows = []
    for rung, until in enumerate(flops):
        mine = [each for each in tallies if each.rung == rung]
        rows.append(
            {
                "rung": rung,
                "until_flops": until,
                "running": _count(mine, Status.RUNNING),
                "finished": _count(mine, Status.FINISHED),
                "stopped": _count(mine, Status.STOPPED),
                "not_finished": _count(mine, *FAILURES),
            }
        )
    return rows


def _holder(store: Store, study: StudyRecord) -> str | None:
    """Who drives the study, and whether that process is known to be gone; None for nobody."""
    if not study.owner:
        return None
    gone = is_gone(study.owner) or store.lease_left(study.id) <= 0
    return holder_words(study.owner) + (f", gone; nas resume {study.name}" if gone else "")


def _time(when: Any) -> str | None:
    return when.isoformat(timespec="seconds") if when is not None else None


def in_words(row: Row) -> Row:
    """A study's row for people: a line a rung."""
    shown = dict(row)
    lines = {}
    for each in shown.pop("rungs"):
        flops = f" ({each['until_flops']:.3g} FLOPs)" if each["until_flops"] is not None else ""
        names = ("running", "finished", "stopped", "not_finished")
        counts = ", ".join(f"{each[n]:,} {n.replace('_', ' ')}" for n in names if each[n])
        lines[f"rung {each['rung']}"] = f"{counts or 'nothing yet'}{flops}"
    place = list(shown).index("repeats")
    items = list(shown.items())
    return dict([*items[:place], *lines.items(), *items[place:]])


def pareto_rows(study: Study, everything: bool) -> list[Row]:
    """The frontier, or every trial with the frontier and the infeasible ones marked."""
    store, record, bounds = study.store, study.record, study.limits()
    if not everything:
        return frontier_rows(store, record)
    trials = study.records(stats=False)
    known = frontier_chances(store, record, trials, bounds)
    on_front = {trial.number for trial in frontier(trials, record.objectives, bounds)}
    return [
        frontier_row(record, trial, bounds, known.get(trial.number))
        | {
            "status": trial.status.value,
            "frontier": "*" if trial.number in on_front else "",
            "infeasible": bound_words(excess(trial, bounds)),
        }
        for trial in trials
    ]


def print_pareto(rows: list[Row], as_json: bool) -> None:
    """Print the rows of `pareto`. A table has one neighbour, in words: the row above has the other,
    of a frontier. Errors are as short there as the neighbour's. A note says where the frontier's
    trials do not all copy alike."""
    print_rows(rows if as_json else [_pareto_words(row) for row in rows], as_json)
    front = [row for row in rows if row.get("frontier", "*")]
    note = copying_note([Copied(row["trial"], row["copied"], row["seeds"]) for row in front])
    if note and not as_json:
        echo(f"\nNote: {note}.")


def _pareto_words(row: Row) -> Row:
    error = row["±"]
    shown = row | {
        "±": error and round(error, 4),
        "cheaper": neighbour_words(row["cheaper"]),
    }
    names = {"cheaper": "vs_cheaper"}
    hidden = ("dearer", "copied")
    return {names.get(name, name): shown[name] for name in row if name not in hidden}


def trial_details(study: Study, trial: TrialRecord) -> Row:
    """Everything that is known of a trial; `runs` has a row an evaluation, `log` one a line."""
    row = trial_row(trial, study.limits())
    record = {"study": study.name} | row
    record["native_form"] = native_form(trial.spec, study.backbone).words
    record |= {"deviation": study.record.deviation, "cost": trial.cost, "seed": study.record.seed}
    result = trial.result
    if result is not None:
        record |= {
            "steps": result.steps,
            "tokens": result.tokens,
            "optimizer_flops": result.optimizer_flops,
            "activity_by_layer": result.activity,
            "checkpoint": result.checkpoint,
            "checkpoint_error": result.stats.get("checkpoint_error", ""),
            "rates": result.stats.get("rates", {}),
            "copying": result.stats.get("copying"),
            "backend": result.backend,
            "routing": result.stats.get("routing", {}),
        }
    evaluations = study.store.trial_evaluations(trial.id)
    record["runs"] = [run_row(each) for each in evaluations]
    return record | {"log": _log_rows(study.store, evaluations)}


def _log_rows(store: Store, evaluations: Sequence[EvaluationRecord]) -> list[Row]:
    """What was said during each of the evaluations, the newest `LOG_LINES` of one."""
    logs = store.log_lines([each.id for each in evaluations], LOG_LINES)
    return [
        {
            "rung": each.rung,
            "seed": each.seed,
            "attempt": line.attempt,
            "at": _time(line.at),
            "level": line.level,
            "text": line.text,
        }
        for each in evaluations
        for line in logs[each.id].lines
    ]


def print_trial(record: Row, as_json: bool) -> None:
    """What `trial_details` found: a line a field, then tables of its evaluations and its log."""
    if as_json:
        print_record(record, as_json)
        return
    tables = ("runs", "log")
    shown = {name: value for name, value in record.items() if name not in tables}
    if "routing" in shown:
        layers = record["routing"].items()
        shown["routing"] = {layer: _routing_words(stats) for layer, stats in layers}
    print_record(shown, as_json)
    for name in tables:
        if record[name]:
            echo()
            print_rows(record[name], as_json)


def _routing_words(stats: Row) -> Row:
    """A layer's statistics for people: many experts' loads as their range."""
    load = stats.get("load", [])
    if len(load) <= MOST_LOADS:
        return stats
    words = (
        f"{len(load):,} experts: smallest {min(load):g}, median {median(load):g}, largest "
        f"{max(load):g}; {load.count(0):,} unused"
    )
    return stats | {"load": words}


def print_comparison(found: Comparison, as_json: bool) -> None:
    """Two trials beside each other, what they differ by, and the answer in a sentence."""
    if as_json:
        print_record(found.to_dict(), as_json)
        return
    print_rows([asdict(side) for side in (found.a, found.b)], as_json)
    echo()
    low, high = found.interval
    print_record(
        {
            "difference": f"{found.difference:+.4f} ± {found.error:.4f} bits per byte",
            "of it over windows": f"{found.windows_error:.4f}",
            "of it over seeds": f"{found.seeds_error:.4f}",
            "deviation_of_one_seed": f"{found.deviation:.4f}, from a prior and "
            f"{found.repeats} repeats",
            "95% interval": f"{low:+.4f} to {high:+.4f}",
            "p_better": f"{found.p_better:.3f} that trial {found.a.trial} is better",
            "at": f"{found.until_flops:.3g} training FLOPs",
        },
        as_json,
    )
    echo(f"\n{found.sentence}")
