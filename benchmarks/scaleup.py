"""Does a winner among proxies win at a larger size: it and the dense design of equal active FLOPs.

The winner is a preset at d 64, as wide as the dense FFN's active FLOPs allow. Both are trained
there with a proxy's FLOPs, and scaled to a wider model with ten times as many; each size has a
paired difference, negative where the winner is better, with the error of windows and of seeds.

python -m benchmarks.scaleup --json FILE --kept RUNS   # hours on a CPU; RUNS goes on where it was
python -m benchmarks.scaleup --preset mixtral --flops 1e10 --seeds 0   # minutes
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Row, parser, publish
from nas.search.paired import Measurement, difference
from nas.search.seeds import seed_noise
from nas.store import MeasuredRun
from search_space.backbone import Backbone
from search_space.contract import TRAINING, EvalRequest, Recipe
from search_space.corpus import STDLIB, CorpusSpec
from search_space.cost import ffn_cost, model_cost, step_flops
from search_space.errors import InputError, nearest, require
from search_space.matching import MatchedPreset
from search_space.places import corpora_dir
from search_space.presets import PRESETS
from search_space.scaling import enlarged, scaled
from search_space.space.sizing import fit
from search_space.spec import FFNSpec
from workers.corpus import prepare
from workers.evaluate import evaluate

SMALL = Backbone(d_model=64, n_layers=4, n_heads=4, vocab_size=1024, seq_len=128)
LARGE = {"d_model": 256, "n_heads": 8}
UNIT = "bits per byte"
WINNER, DENSE = 0, 1  # numbers of the trials that stand for them


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is compared.

    preset: the winner's name.
    large: fields of the larger backbone.
    flops: of a proxy's training.
    times: as many FLOPs has a training at the larger size.
    """

    preset: str
    small: Backbone = SMALL
    large: dict[str, Any] = dataclasses.field(
        default_factory=lambda: {"d_model": 256, "n_heads": 8}
    )
    flops: float = 6e12
    times: float = 10.0
    seeds: tuple[int, ...] = (0, 1, 2)
    eval_tokens: int = 2**18
    recipe: Recipe = dataclasses.field(default_factory=Recipe)

    def __post_init__(self) -> None:
        known = f"preset: none is named {self.preset!r}; {nearest(self.preset, PRESETS)}"
        require(self.preset in PRESETS and self.preset != "dense", known)
        require(bool(self.seeds), "seeds must be at least one")
        for backbone, spec, flops in self.sizes():
            least = step_flops(spec, backbone, self.recipe.batch_size)
            require(flops >= least, f"flops must pay for one step, {least:.3g}: got {flops:g}")

    def sizes(self) -> Iterator[tuple[Backbone, FFNSpec, float]]:
        """Both sizes: the backbone, the winner in it, and a training's FLOPs."""
        winner = MatchedPreset(self.preset, "active_flops").spec(self.small)
        yield self.small, winner, self.flops
        large = enlarged(self.small, self.large)
        yield large, scaled(winner, self.small, large), self.flops * self.times


def dense_beside(winner: FFNSpec, backbone: Backbone) -> FFNSpec:
    """The dense FFN whose active FLOPs a layer are the winner's, in the layers that have it."""

    def priced(spec: FFNSpec) -> float:
        return ffn_cost(spec, backbone.d_model).active_flops

    def build(n: int) -> FFNSpec:
        return FFNSpec(d_ff=n, placement=winner.placement)

    return fit(build, priced, priced(winner), "active_flops", "choose another preset")


def rows(plan: Plan, text: CorpusSpec, kept: Path | None) -> Iterator[Row]:
    """The table; trains what `kept` does not have."""
    corpus = prepare(text, plan.small.vocab_size, plan.small.seq_len, corpora_dir())
    for backbone, winner, flops in plan.sizes():
        dense = dense_beside(winner, backbone)
        runs: dict[int, list[MeasuredRun]] = {WINNER: [], DENSE: []}
        for seed in plan.seeds:
            for number, spec in ((WINNER, winner), (DENSE, dense)):
                run = _run(plan, spec, backbone, flops, seed, str(corpus.dir), kept)
                runs[number].append(dataclasses.replace(run, trial=number))
        yield from _compared(backbone, (winner, dense), runs)


def _compared(
    backbone: Backbone, specs: Sequence[FFNSpec], runs: dict[int, list[MeasuredRun]]
) -> Iterator[Row]:
    where = f"d {backbone.d_model}"
    ours, theirs = (Measurement(tuple(runs[number])) for number in (WINNER, DENSE))
    for spec, measured in zip(specs, (ours, theirs), strict=True):
        cost = model_cost(spec, backbone)
        name = f"{where}, {spec.label}"
        yield Row(name, measured.bits_per_byte, UNIT)
        yield Row(f"{name}: active FLOPs a token", cost.active_flops)
        yield Row(f"{name}: parameters", float(cost.total_params))
    gap = difference(ours, theirs, seed_noise([*runs[WINNER], *runs[DENSE]]))
    low, high = gap.interval()
    yield Row(f"{where}, winner less dense", gap.value, UNIT)
    yield Row(f"{where}, 95% interval", f"{low:+.4f} to {high:+.4f}", UNIT)
    verdict = "beats" if high < 0 else "loses to" if low > 0 else "cannot be told from"
    yield Row(f"{where}, the winner", f"{verdict} the dense design")


def _run(
    plan: Plan,
    spec: FFNSpec,
    backbone: Backbone,
    flops: float,
    seed: int,
    corpus_dir: str,
    kept: Path | None,
) -> MeasuredRun:
    settings = {
        "spec": spec.to_dict(),
        "backbone": backbone.to_dict(),
        "recipe": plan.recipe.to_dict(),
        "flops": flops,
        "seed": seed,
        "eval_tokens": plan.eval_tokens,
        "corpus": Path(corpus_dir).name,
        "training": TRAINING,
    }
    for line in kept.read_text().splitlines() if kept is not None and kept.exists() else ():
        record = json.loads(line)
        if record["settings"] == settings:
            return MeasuredRun(**record["run"])
    request = EvalRequest(
        evaluation=0,
        spec=spec,
        backbone=backbone,
        recipe=plan.recipe,
        corpus_dir=corpus_dir,
        until_flops=flops,
        seed=seed,
        eval_tokens=plan.eval_tokens,
    )
    result = evaluate(request, lambda progress: None)
    if result.bits_per_byte is None:
        raise InputError(f"{spec.label} at d {backbone.d_model}, seed {seed}: {result.error}")
    run = MeasuredRun(
        trial=0,
        seed=seed,
        until_flops=flops,
        bits_per_byte=result.bits_per_byte,
        bits_per_byte_se=result.bits_per_byte_se,
        windows=result.windows,
    )
    told = f"{spec.label} at d {backbone.d_model}, seed {seed}: {run.bits_per_byte:.4f} {UNIT}"
    print(told, file=sys.stderr)
    if kept is not None:
        with kept.open("a") as file:
            file.write(json.dumps({"settings": settings, "run": dataclasses.asdict(run)}) + "\n")
    return run


def _options() -> argparse.Namespace:
    line = parser(__doc__)
    line.add_argument("--preset", default="olmoe", help="the winner's name (olmoe)")
    line.add_argument("--flops", type=float, default=6e12, help="of a proxy's training (6e12)")
    line.add_argument("--times", type=float, default=10.0, help="as many at the larger size (10)")
    line.add_argument("--d-model", type=int, default=256, help="of the larger model (256)")
    line.add_argument("--seeds", default="0,1,2", help="of the trainings (0,1,2)")
    line.add_argument("--corpus", default=STDLIB, help="the text (the standard library's source)")
    line.add_argument("--eval-tokens", type=int, default=2**18)
    line.add_argument("--kept", type=Path, metavar="RUNS", help="a file with a line a training")
    return line.parse_args()


def main() -> int:
    """The command."""
    options = _options()
    try:
        plan = Plan(
            preset=options.preset,
            large=LARGE | {"d_model": options.d_model},
            flops=options.flops,
            times=options.times,
            seeds=tuple(int(seed) for seed in options.seeds.split(",")),
            eval_tokens=options.eval_tokens,
        )
        text = CorpusSpec(source=options.corpus)
    except ValueError as error:  # InputError is one
        print(error, file=sys.stderr)
        return 2
    return publish(rows(plan, text, options.kept), options.json)


if __name__ == "__main__":
    sys.exit(main())
