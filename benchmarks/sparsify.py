"""A dense pretrained model made sparse in the published ways, trained on alike, and compared.

`python -m benchmarks.sparsify --base FOLDER --text SOURCE --state FOLDER --markdown --json FILE`:
the base is what `benchmarks.base_model` wrote. 8 experts of its FFN's units; DSMoE, top-k, Avg-K
and ReLU routing at activities of about 0.5 and 0.3, beside the model as it is and two structured
prunings; contiguous and clustered cuts; DSMoE's threshold from 0.2 to 0.8. All are trained on for a
tenth of the base's FLOPs, with three seeds, and measured on the same windows. The same line again
goes on where a cut run ended. `--picture FILE` draws what `--json` wrote.
"""

from __future__ import annotations

import contextlib
import math
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import ClassVar

from rich.console import Console

from benchmarks.preset_comparison import Comparison, Outcomes
from benchmarks.preset_rows import markdown, rows
from benchmarks.presets import compare, kept_in
from benchmarks.report import Row, parser, publish
from nas.base_model import read_base
from nas.config import StudyConfig
from nas.machines import Workers
from nas.search.settings import Budget
from nas.store import Store
from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.corpus import STDLIB, CorpusSpec
from search_space.cuts import EXPERTS, cut_into, pruned
from search_space.errors import InputError, WorkFailed, require
from search_space.methods.avgk import AvgK
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.placement import reference
from search_space.space import SearchSpace
from search_space.spec import FFNSpec

LENGTH = 256
TAUS = (0.2, 0.35, 0.65, 0.8)


def designs(backbone: Backbone) -> dict[str, FFNSpec]:
    """Those that are compared, by name: `half` and `third` say how much of the FFN is meant to be
    read; experts being 8, a third is 2 or 3 of them."""
    units = backbone.reference_d_ff
    third = {"lower": 2, "upper": 3}
    top = {"half": 4, "third, lower": third["lower"], "third, upper": third["upper"]}
    out = {"original": reference(backbone)}
    for words, k in top.items():
        routed = TopK(k=k, normalize=True, balance_weight=0.01)
        out[f"topk {words}"] = cut_into(backbone, EXPERTS, routed)
        out[f"avgk {words}"] = cut_into(backbone, EXPERTS, AvgK(k=k))
    for words, share in (("half", 0.5), ("third", 0.3)):
        relu = ReLURouting(target_activity=share)
        out[f"remoe {words}"] = cut_into(backbone, EXPERTS, relu)
        for cut in ("magnitude", "activation"):
            out[f"pruned by {cut}, {words}"] = pruned(backbone, round(share * units), cut)
    for weight in (0.1, 1.0):
        out[f"dsmoe lambda {weight:g}"] = _dsmoe(backbone, weight, 0.5)
    for tau in TAUS:
        out[f"dsmoe tau {tau:g}"] = _dsmoe(backbone, 1.0, tau)
    clustered = {
        name: replace(out[name], cut="clustered")
        for name in ("topk half", "avgk half", "dsmoe lambda 1")
    }
    return out | {f"{name}, clustered": spec for name, spec in clustered.items()}


def _dsmoe(backbone: Backbone, weight: float, tau: float) -> FFNSpec:
    return cut_into(backbone, EXPERTS, StraightThrough(sparsity_weight=weight, tau=tau))


@dataclass(frozen=True, kw_only=True)
class Sparsified(Comparison):
    """Designs cut from one base.

    base: its folder.
    """

    baseline: ClassVar[str] = "original"
    base: str

    def spec(self, preset: str) -> FFNSpec:
        """The design of that name."""
        return designs(self.backbone)[preset]

    def check_presets(self) -> None:
        """Refuse a name that is none."""
        known = designs(self.backbone)
        for name in self.presets:
            require(name in known, f"designs: none is named {name!r}; known: {', '.join(known)}")

    def study(self, seed: int, text: CorpusSpec, workers: int | None) -> StudyConfig:
        """All designs with one seed."""
        trials = len(self.presets)
        budget = Budget(trials=trials, trial_flops=self.flops, flops=2 * trials * self.flops)
        return StudyConfig(
            name=f"sparsify-{seed}",
            kind="sparsify",
            base_model=self.base,
            seed=seed,
            budget=budget,
            corpus=text,
            backbone=self.backbone,
            recipe=self.recipe,
            space=SearchSpace(match="units"),
            warm_start=tuple(self.spec(name) for name in self.presets),
            workers=Workers(count=workers or 0, device="cpu"),
            eval_tokens=self.eval_tokens,
        )


def more_rows(comparison: Sparsified, outcomes: Outcomes, store: Store) -> list[Row]:
    """Perplexity of each design, and how much of each layer is read."""
    out, activity = [], _activity(comparison, store)
    tokens = comparison.backbone.seq_len
    for name in comparison.presets:
        runs = [o.run for (own, _), o in outcomes.items() if own == name and o.run is not None]
        losses = [math.fsum(run.windows) / len(run.windows) / tokens for run in runs]
        if losses:
            out.append(Row(f"{name}: perplexity", math.exp(mean(losses)), "a token"))
        layers = activity.get(name)
        if layers:
            out.append(Row(f"{name}: activity", mean(layers)))
            out.append(Row(f"{name}: by layer", " ".join(f"{share:.2f}" for share in layers)))
    return out


def _activity(comparison: Sparsified, store: Store) -> dict[str, list[float]]:
    """By design, the share of experts that each layer reads, the mean over the seeds."""
    names = {comparison.spec(name).key: name for name in comparison.presets}
    seen: dict[str, list[list[float]]] = {}
    for study in store.studies():
        for trial in store.trials(study.id):
            if trial.result is not None and trial.key in names and trial.result.activity:
                seen.setdefault(names[trial.key], []).append(list(trial.result.activity))
    return {name: [mean(layer) for layer in zip(*runs, strict=True)] for name, runs in seen.items()}


def _recipe(text: str) -> Recipe:
    if not text:
        return Recipe()
    lr, matrix_lr = (float(word) for word in text.split(","))
    return Recipe(lr=lr, matrix_lr=matrix_lr)


def main(arguments: list[str] | None = None) -> int:
    """The command; exit code 1 where a trial did not finish, 2 for bad arguments."""
    options = parser(__doc__)
    add = options.add_argument
    add("--base", required=True, metavar="FOLDER", help="the dense model")
    add("--text", default=STDLIB, help="default: Python's library")
    add("--flops", type=float, default=3e12, help="training FLOPs of a design")
    add("--seeds", default="0,1,2")
    add("--designs", default="", help="names, parted by semicolons; default: all")
    add("--recipe", default="", help="lr,matrix_lr in place of the rule's")
    add("--eval-tokens", type=int, default=2**17)
    add("--workers", type=int)
    add("--state", type=Path, help="keep the studies here, and go on with them")
    add("--picture", type=Path, help="draw the designs of --json here, too")
    add("--markdown", action="store_true", help="the table to stdout, the rows to stderr")
    asked = options.parse_args(arguments)
    try:
        backbone = read_base(asked.base, LENGTH)
        assert backbone.base is not None
        comparison = Sparsified(
            presets=tuple(asked.designs.split(";")) if asked.designs else tuple(designs(backbone)),
            seeds=tuple(int(word) for word in asked.seeds.split(",")),
            match=None,
            flops=asked.flops,
            backbone=backbone,
            recipe=_recipe(asked.recipe),
            eval_tokens=asked.eval_tokens,
            base=backbone.base.model,
        )
        text = CorpusSpec(source=asked.text, tokenizer=backbone.base.model)
        console = Console(stderr=True)
        with kept_in(asked.state) as store:
            outcomes = compare(
                comparison, text, store=store, workers=asked.workers, console=console
            )
            found = [*rows(comparison, outcomes), *more_rows(comparison, outcomes, store)]
    except (InputError, WorkFailed) as error:
        print(f"benchmarks.sparsify: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    with contextlib.redirect_stdout(sys.stderr if asked.markdown else sys.stdout):
        code = publish(found, asked.json)
    if asked.markdown:
        print(markdown(comparison, outcomes))
    if asked.picture and asked.json:
        from benchmarks.rates_picture import save  # needs a browser, which measuring does not
        from benchmarks.sparsify_picture import draw

        save(draw(asked.json), asked.picture)
    return code


if __name__ == "__main__":
    sys.exit(main())
