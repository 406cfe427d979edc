"""One trial's facts as frames and texts: what it is, costs, did, and how its experts were used."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import yaml

from dashboard.data.reading import Reading
from nas.search.objectives import OBJECTIVES
from nas.store import EvaluationRecord, StudyRecord, TrialRecord
from nas.views.certainty import chance_row, neighbour_words
from nas.views.style import si
from search_space.backbone import Backbone
from search_space.contract import Status
from search_space.native import native_form
from search_space.spec import FFNSpec

# Of a trial's costs: words, and what the figures are of.
COSTS = {
    "active_flops": ("Active FLOPs", "a token in inference"),
    "forward_flops": ("Forward FLOPs", "a token in training"),
    "training_flops": ("Training FLOPs", "a token"),
    "total_params": ("Parameters", "of the model"),
    "active_params": ("Active parameters", "a token"),
    "param_bytes": ("Bytes of parameters", "of the model"),
    "activation_bytes": ("Bytes kept for backward", "a token"),
    "decode_bytes": ("Bytes read", "a token in decoding"),
}
_DIGITS = re.compile(r"\d+")


def evaluations_of(reading: Reading, number: int) -> list[EvaluationRecord]:
    """The trial's evaluations in the order in which they began, as records."""
    own = reading.of_trial(number)
    rows = own[[each.name for each in fields(EvaluationRecord) if each.name != "id"]]
    rows = rows.astype(object)
    rows = rows.where(rows.notna(), None)
    return [
        _evaluation(int(id), {str(name): value for name, value in values.items()})
        for id, values in zip(rows.index, rows.to_dict("records"), strict=True)
    ]


def _evaluation(id: int, values: Mapping[str, Any]) -> EvaluationRecord:
    return EvaluationRecord(id=id, **{**values, "status": Status(values["status"])})


def runs_frame(reading: Reading, number: int) -> pd.DataFrame:
    """One row an evaluation, by seed in the order in which the runs began, then by rung: how it
    ended, how often it was taken up, how many workers it lost."""
    own = reading.of_trial(number)
    order = {seed: place for place, seed in enumerate(dict.fromkeys(own["seed"]))}
    own = own.assign(run=own["seed"].map(order)).sort_values(["run", "rung"], kind="stable")
    columns = ["seed", "rung", "until_flops", "status", "attempt", "losses", "bits_per_byte"]
    columns += ["flops", "seconds", "created_at", "ended_at", "error"]
    return own[columns].reset_index(drop=True)


def spec_text(spec: FFNSpec) -> str:
    """The design as a study file's `warm_start` takes it."""
    text: str = yaml.safe_dump({"warm_start": [spec.to_dict()]}, sort_keys=False)
    return text


def spec_frame(study: StudyRecord, spec: FFNSpec) -> pd.DataFrame:
    """The whole design, one (field, value) row each; selection knobs are indented by a dot. The
    last row says which class of transformers computes the same, or why none does."""
    plain = spec.to_dict()
    selection = plain.pop("selection")
    rows = [(field, knob_words(value)) for field, value in plain.items()]
    rows.append(("selection", selection.pop("method")))
    rows += [(f"· {field}", knob_words(value)) for field, value in selection.items()]
    backbone = Backbone.from_dict(study.config.get("backbone") or {})
    rows.append(("native form", native_form(spec, backbone).words))
    return pd.DataFrame(rows, columns=["field", "value"])


def outcome_frame(reading: Reading, trial: TrialRecord) -> pd.DataFrame:
    """How the design did, one (measure, value) row each."""
    row, study = reading.trials.loc[trial.number], reading.study
    rows = [("status", trial.status.value), ("proposed by", trial.source)]
    if row["infeasible"]:
        rows.insert(1, ("infeasible", str(row["infeasible"])))
    if trial.rung is not None:
        rows += [("rung", f"{trial.rung} of 0 to {study.top}")] if study.rungs > 1 else []
        rows.append(("seeds", str(trial.seeds)))
    if trial.bits_per_byte is not None:
        rows.append(("Bits per byte", f"{trial.bits_per_byte:.4f}"))
    if pd.notna(row["noise"]):
        rows.append(("± one standard error", f"{row['noise']:.4f}"))
    if study.deviation is not None:
        rows.append(("Deviation of one seed", f"{study.deviation:.4f}"))
    for name in study.objectives:
        figure = OBJECTIVES[name].value(trial) if name not in ("bits_per_byte", *COSTS) else None
        rows += [(OBJECTIVES[name].title, si(figure))] if figure is not None else []
    rows += _chance_rows(chance_row(reading.chances.get(trial.number)))
    rows.append(("FLOPs spent", si(trial.flops)))
    return pd.DataFrame(rows + _result_rows(trial), columns=["measure", "value"])


def cost_frame(trial: TrialRecord) -> pd.DataFrame:
    """One row a cost: counted before the training, and as measured where the data decide it."""
    rows = []
    for name, (words, of) in COSTS.items():
        if name in trial.cost:
            measured = trial.active_flops if name == "active_flops" else None
            shown = "" if measured is None else si(measured)
            rows.append((f"{words} {of}", si(trial.cost[name]), shown))
    return pd.DataFrame(rows, columns=["cost", "counted", "measured"])


@dataclass(frozen=True, kw_only=True)
class SubLayer:
    """How one FFN sub-layer used its experts, on one batch of validation windows.

    layer, sub: places, from 0.
    load: share of reads by expert.
    active: share of experts read a token; None where it was not noted, as the others.
    usage: share of experts ever read.
    unevenness: 0 is even.
    near_zero: share of the computed activations that are near zero.
    """

    layer: int
    sub: int
    load: Sequence[float]
    active: float | None
    usage: float | None
    unevenness: float | None
    near_zero: float | None

    @property
    def name(self) -> str:
        """For people."""
        return f"layer {self.layer}" + (f", sub-layer {self.sub}" if self.sub >= 0 else "")


def routing(trial: TrialRecord) -> list[SubLayer]:
    """What workers noted of the trial's experts; [] where they noted nothing."""
    noted = trial.result.stats.get("routing") if trial.result is not None else None
    if not isinstance(noted, Mapping):
        return []
    found = []
    for name, said in noted.items():
        places = [int(digits) for digits in _DIGITS.findall(str(name))]
        if not places or not isinstance(said, Mapping):
            continue
        load = said.get("load")
        own = [_number(share) or 0.0 for share in load] if isinstance(load, Sequence) else []
        figures = {key: _number(said.get(key)) for key in ("active", "usage", "unevenness")}
        found.append(
            SubLayer(
                layer=places[0],
                sub=places[1] if len(places) > 1 else -1,
                load=own,
                near_zero=_number(said.get("near_zero")),
                **figures,
            )
        )
    return sorted(found, key=lambda each: (each.layer, each.sub))


def routing_frame(noted: Sequence[SubLayer]) -> pd.DataFrame:
    """One row a sub-layer."""
    rows = [
        (each.name, len(each.load), each.active, each.usage, each.unevenness, each.near_zero)
        for each in noted
    ]
    names = ["sub-layer", "experts", "active", "usage", "unevenness", "near_zero"]
    return pd.DataFrame(rows, columns=names)


def knob_words(value: object) -> str:
    """A knob's value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: Any) -> float | None:
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric and math.isfinite(value) else None


def _chance_rows(chance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is known of the trial's place on the frontier."""
    if chance["p_frontier"] is None:
        return []
    rows = [("Probability of being on the frontier", f"{chance['p_frontier']:.2f}")]
    for name in ("cheaper", "dearer"):
        words = neighbour_words(chance[name])
        if words is not None:
            rows.append((f"Bits per byte less the next {name} design's", words))
    return rows


def _result_rows(trial: TrialRecord) -> list[tuple[str, str]]:
    """What is known of the first run's last ending."""
    result = trial.result
    if result is None:
        return []
    rows = []
    if result.bits_per_byte_se is not None:
        rows.append(("Standard error over windows", f"{result.bits_per_byte_se:.4f}"))
    rows += [
        ("Optimizer FLOPs beside", si(result.optimizer_flops)),
        ("Tokens seen", si(result.tokens)),
        ("Backend", result.backend or "-"),
    ]
    rates = result.stats.get("rates")
    if isinstance(rates, Mapping):
        shown = [f"{name} {value:.3g}" for name, value in rates.items() if _number(value)]
        rows.append(("Learning rates", ", ".join(shown)))
    copying = _number(result.stats.get("copying"))
    if copying is not None:
        rows.append(("Nats a token saved by copying from the context", f"{copying:.2f}"))
    if result.activity:
        rows.append(("Activity by layer", " ".join(f"{share:.2f}" for share in result.activity)))
    if result.checkpoint:
        rows.append(("Checkpoint", result.checkpoint))
    return rows
