"""How the published designs compare under our recipe, at equal training FLOPs.

A study a seed, whose warm starts are the designs: every design takes one seed before any takes the
next, so that a run that is cut still compares them all.
`python -m benchmarks.presets --state FOLDER --json FILE`; the same line again goes on where a cut
run ended, and does not try again what failed. `nas list --db sqlite:///FOLDER/nas.db` names its
studies. `--markdown` prints the table of a document.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from benchmarks.preset_studies import UNIT, Outcome, Studies
from benchmarks.report import Row, at_least, parser, publish
from nas.config import StudyConfig
from nas.machines import Workers
from nas.running.launcher import PoolFactory, open_pool
from nas.search.settings import Budget
from nas.store import Store
from search_space.backbone import Backbone
from search_space.contract import Recipe, Status
from search_space.corpus import STDLIB, CorpusSpec
from search_space.cost import model_cost, step_flops
from search_space.errors import InputError, WorkFailed, nearest, require
from search_space.places import corpora_dir
from search_space.presets import PRESETS
from workers.corpus import prepare

BASELINE = "dense"
BACKBONE = Backbone(
    d_model=128, n_layers=4, n_heads=4, vocab_size=1024, seq_len=128, reference_d_ff=512
)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared: presets times seeds, each trained with `flops` and then measured on
    `eval_tokens` of the validation split, or on all of it where it has fewer."""

    presets: tuple[str, ...] = tuple(PRESETS)
    seeds: tuple[int, ...] = (0, 1, 2)
    flops: float = 6e12
    backbone: Backbone = BACKBONE
    recipe: Recipe = field(default_factory=Recipe)
    eval_tokens: int = 2**18

    def __post_init__(self) -> None:
        for name, values in (("presets", self.presets), ("seeds", self.seeds)):
            require(
                0 < len(values) == len(set(values)),
                f"{name} must be at least one, each once: got {','.join(map(str, values))!r}",
            )
        for name in self.presets:
            require(name in PRESETS, f"presets: none is named {name!r}; {nearest(name, PRESETS)}")
        require(min(self.seeds) >= 0, f"seeds must be at least 0: got {min(self.seeds)}")
        require(
            self.eval_tokens >= self.backbone.seq_len,
            f"eval-tokens must be at least one sequence, {self.backbone.seq_len}: "
            f"got {self.eval_tokens}",
        )
        steps = [
            step_flops(PRESETS[name](self.backbone), self.backbone, self.recipe.batch_size)
            for name in self.presets
        ]
        require(
            math.isfinite(self.flops) and self.flops >= max(steps),
            f"flops must pay for one step of every design, {max(steps):.3g}: got {self.flops:g}",
        )

    def study(self, seed: int, text: CorpusSpec, workers: int | None) -> StudyConfig:
        """All designs with one seed.

        workers: trainings at once; None for one a core.
        """
        trials = len(self.presets)
        # The designs bound the study. Its FLOPs must not: ReLU routing may spend a little more than
        # it was granted, and the last design would not be begun.
        budget = Budget(trials=trials, trial_flops=self.flops, flops=2 * trials * self.flops)
        return StudyConfig(
            name=f"presets-{seed}",
            seed=seed,
            budget=budget,
            corpus=text,
            backbone=self.backbone,
            recipe=self.recipe,
            warm_start=self.presets,
            workers=Workers(count=workers or 0, device="cpu"),
            eval_tokens=self.eval_tokens,
        )


Outcomes = dict[tuple[str, int], Outcome]  # by preset and seed


def compare(
    comparison: Comparison,
    text: CorpusSpec,
    *,
    store: Store,
    workers: int | None,
    console: Console,
    pool_factory: PoolFactory = open_pool,
) -> Outcomes:
    """Run what `store` does not hold, `workers` trainings at a time; Ctrl-C ends it early.

    console: gets the progress.
    Raises InputError for a bad corpus, and while somebody else runs one of the studies; WorkFailed
    when the workers are lost.
    """
    require(workers is None or workers >= 1, f"workers must be at least 1: got {workers}")
    backbone, note = comparison.backbone, functools.partial(say, console)
    corpus = prepare(text, backbone.vocab_size, backbone.seq_len, corpora_dir(), report=note)
    studies = Studies(store, corpus.meta["hash"], corpus.meta["vocab_size"])
    configs = {seed: comparison.study(seed, text, workers) for seed in comparison.seeds}

    def ended() -> Outcomes:
        return {
            (preset, seed): outcome
            for seed, config in configs.items()
            for preset, outcome in studies.outcomes(config).items()
        }

    outcomes = ended()
    with progress_bar(len(outcomes), len(configs) * len(comparison.presets), console) as tell:

        def tell_new() -> None:
            for (preset, seed), outcome in ended().items():
                if (preset, seed) not in outcomes:
                    outcomes[preset, seed] = outcome
                    tell(f"{preset}, seed {seed}: {outcome.line()}")

        try:
            for config in configs.values():
                studies.finish(
                    config,
                    report=note,
                    listen=lambda snapshot: tell_new() if snapshot.ended else None,
                    pool_factory=pool_factory,
                )
                tell_new()
        except KeyboardInterrupt:
            note("interrupted: the rows are of the trials that ended before")
    return ended()


@contextlib.contextmanager
def kept_in(folder: Path | None) -> Iterator[Store]:
    """The database of a folder, which is made; without one, of a folder that is removed again.

    InputError for a folder or a database that cannot be used.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"state: cannot use {str(folder)!r}: {error.strerror}; give another folder"
            ) from None
        path = str(folder.absolute() / "nas.db").replace("%", "%25").replace("?", "%3F")
        store = stack.enter_context(Store.open(f"sqlite:///{path}"))
        stack.callback(store.discard_if_unused)
        yield store


def say(console: Console, text: str) -> None:
    """Print a line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress_bar(done: int, total: int, console: Console) -> Iterator[Callable[[str], None]]:
    """A bar with the time left; yields a function that counts a trial and prints its line."""
    left_column = TextColumn("{task.fields[left]}")
    columns = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), left_column)
    began, before = time.monotonic(), done
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=total, completed=done, left="")

        def tell(line: str) -> None:
            nonlocal done
            done += 1
            seconds = (time.monotonic() - began) * (total - done) / (done - before)
            left = f"about {seconds / 60:.0f} min left" if done < total else ""
            bar.update(task, completed=done, left=left)
            say(console, line)

        yield tell


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One design over the seeds that finished.

    bits: their mean bits per byte.
    spread: largest minus smallest; None of a single seed.
    active_flops: a token.
    seconds: of one training, the mean.
    difference: bits per byte from dense over the seeds both have, in pooled standard deviations of
        a seed; None of dense itself, and where there is no dense or no deviation.
    """

    preset: str
    seeds: int
    bits: float
    spread: float | None
    active_flops: float
    total_params: int
    seconds: float
    difference: float | None


def summaries(comparison: Comparison, outcomes: Outcomes) -> list[Summary]:
    """The designs of which a seed finished, the best first."""
    bits: dict[str, dict[int, float]] = {name: {} for name in comparison.presets}
    for (preset, seed), outcome in outcomes.items():
        if outcome.bits_per_byte is not None:
            bits[preset][seed] = outcome.bits_per_byte
    deviation = pooled_deviation([list(values.values()) for values in bits.values()])
    baseline = bits.get(BASELINE, {})
    out = []
    for preset, own in bits.items():
        if not own:
            continue
        ended = [outcomes[preset, seed] for seed in own]
        shift = [own[seed] - baseline[seed] for seed in own.keys() & baseline.keys()]
        compared = preset != BASELINE and len(shift) > 0
        out.append(
            Summary(
                preset=preset,
                seeds=len(own),
                bits=mean(own.values()),
                spread=max(own.values()) - min(own.values()) if len(own) > 1 else None,
                active_flops=mean(outcome.active_flops for outcome in ended),
                total_params=total_params(preset, comparison.backbone),
                seconds=mean(outcome.seconds for outcome in ended),
                difference=mean(shift) / deviation if compared and deviation else None,
            )
        )
    return sorted(out, key=lambda summary: summary.bits)


def total_params(preset: str, backbone: Backbone) -> int:
    """Parameters of the whole model."""
    return model_cost(PRESETS[preset](backbone), backbone).total_params


def pooled_deviation(groups: list[list[float]]) -> float | None:
    """Standard deviation within groups, each around its own mean; None where none has two values.

    sqrt(sum of squares / sum of (n - 1)).
    """
    freedom = sum(len(group) - 1 for group in groups if group)
    squares = sum((value - mean(group)) ** 2 for group in groups for value in group)
    return math.sqrt(squares / freedom) if freedom else None


def rows(comparison: Comparison, outcomes: Outcomes) -> list[Row]:
    """The designs' rows, the best first; a row a failed trial; whether all trials finished."""
    out = []
    for summary in summaries(comparison, outcomes):
        name = summary.preset
        out.append(Row(f"{name}: mean, n = {summary.seeds}", summary.bits, UNIT))
        if summary.spread is not None:
            out.append(Row(f"{name}: spread over the seeds", summary.spread, UNIT))
        out.append(Row(f"{name}: active FLOPs", summary.active_flops, "FLOPs a token"))
        out.append(Row(f"{name}: parameters", float(summary.total_params)))
        out.append(Row(f"{name}: training", summary.seconds, "s a trial"))
        if summary.difference is not None:
            label = f"{name}: difference from {BASELINE}"
            out.append(Row(label, summary.difference, "standard deviations of a seed"))
    failed = {key: o for key, o in outcomes.items() if o.status is not Status.FINISHED}
    for (preset, seed), outcome in failed.items():
        out.append(Row(f"{preset}, seed {seed}", outcome.line(), "", "finishes", False))
    codes = {code for outcome in outcomes.values() for code in outcome.codes}
    out.append(Row("versions of the code that trained them", float(len(codes))))
    asked = len(comparison.presets) * len(comparison.seeds)
    out.append(at_least("trials finished", float(len(outcomes) - len(failed)), asked, "trials"))
    return out


def markdown(comparison: Comparison, outcomes: Outcomes) -> str:
    """The designs as a markdown table, the best first, with what failed below it."""
    head = (
        "design",
        f"{UNIT}, mean",
        "spread",
        "seeds",
        f"from {BASELINE}, seed deviations",
        "active FLOPs a token",
        "parameters",
        "training, s",
    )
    lines = [head, ("---",) * len(head)]
    for s in summaries(comparison, outcomes):
        lines.append(
            (
                s.preset,
                f"{s.bits:.4f}",
                "" if s.spread is None else f"{s.spread:.4f}",
                str(s.seeds),
                "" if s.difference is None else f"{s.difference:+.1f}",
                f"{s.active_flops / 1e6:.2f} M",
                f"{s.total_params / 1e6:.2f} M",
                f"{s.seconds:.0f}",
            )
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    failed = [
        f"- {preset}, seed {seed}: {outcome.line()}"
        for (preset, seed), outcome in outcomes.items()
        if outcome.status is not Status.FINISHED
    ]
    return "\n".join([table, *([""] if failed else []), *failed])


def main(arguments: list[str] | None = None) -> int:
    """The command; exit code 1 where a trial did not finish, 2 for bad arguments."""
    command = _command()
    options = command.parse_args(arguments)
    try:
        json_file = options.json
        require(
            json_file is None or json_file.absolute().parent.is_dir(),
            f"json: there is no folder {str(json_file and json_file.parent)!r}; make it first",
        )
        comparison = Comparison(
            presets=tuple(options.presets.split(",")),
            seeds=options.seeds,
            flops=options.flops,
            eval_tokens=options.eval_tokens,
        )
        with kept_in(options.state) as store:
            outcomes = compare(
                comparison,
                CorpusSpec(source=options.text),
                store=store,
                workers=options.workers,
                console=Console(stderr=True),
            )
    except (InputError, WorkFailed) as error:
        print(f"{command.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    with contextlib.redirect_stdout(sys.stderr if options.markdown else sys.stdout):
        code = publish(rows(comparison, outcomes), json_file)
    if options.markdown:
        print(markdown(comparison, outcomes))
    return code


def _command() -> argparse.ArgumentParser:
    command = parser(__doc__)
    add = command.add_argument
    default = Comparison()
    add("--presets", default=",".join(PRESETS), metavar="A,B", help="default: %(default)s")
    add("--seeds", type=_seeds, default=default.seeds, metavar="N,N", help="default: 0,1,2")
    add(
        "--flops",
        type=float,
        default=default.flops,
        help="training FLOPs of a trial, default: %(default)g",
    )
    add("--text", default=STDLIB, metavar="GLOB", help="files of text; default: Python's library")
    add(
        "--workers",
        type=int,
        help="trainings of one thread at once; default: one a core",
    )
    add("--eval-tokens", type=int, default=default.eval_tokens, help="default: %(default)s")
    add("--state", type=Path, metavar="FOLDER", help="keep the studies here, and go on with them")
    add("--markdown", action="store_true", help="the table to stdout, the rows to stderr")
    return command


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"whole numbers such as 0,1,2: got {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
