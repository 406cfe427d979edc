"""What rungs save: studies with and without them on the demo's corpus and space, by seeds.

`python -m benchmarks.rungs --folder DIR --json FILE`. For each seed a flat study (the demo's, but
one rung, and half as many designs), and one that compares at a ninth of the FLOPs, with as many
FLOPs in all and as many designs as they pay for, no seed repeated. The studies lie in DIR, and a
run that was cut goes on with them.
The row that counts is the training FLOPs at which the study with rungs has the hypervolume that the
flat one has at its end, as a share of the flat one's FLOPs. Then the designs of the first flat
study are measured at the lower rungs, for the rank correlation of each rung with the top.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev

from benchmarks.preset_studies import is_of
from benchmarks.report import Row, at_least, at_most, parser, publish
from nas.config import StudyConfig
from nas.running.launcher import launch_study, open_pool, resume_study
from nas.running.pool import Pool
from nas.search.objectives import objective_values
from nas.search.pareto import hypervolume
from nas.search.settings import Budget
from nas.store import EvaluationRecord, Store, StudyRecord, StudyState, TrialRecord
from search_space.contract import EvalRequest, EvalResult, Status
from search_space.errors import require

DEMO = Path(__file__).parents[1] / "examples" / "demo.yaml"
SEEDS = 3
FLAT_TRIALS = 24
REDUCTION = 9  # of two rungs: with three of factor 3 the row was 0.67 (docs/rungs.md)
MOST_SHARE = 0.5
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57}  # Student's, two-sided, by number of values


def flat(config: StudyConfig) -> StudyConfig:
    """The same search with every design trained to the top, one seed each."""
    budget = Budget(trials=FLAT_TRIALS, trial_flops=config.budget.trial_flops)
    return dataclasses.replace(config, name="flat", budget=budget)


def with_rungs(config: StudyConfig) -> StudyConfig:
    """A search over two rungs with the FLOPs of the flat one; they end it, not the designs."""
    budget = Budget(
        trials=6 * FLAT_TRIALS,
        trial_flops=config.budget.trial_flops,
        flops=FLAT_TRIALS * config.budget.trial_flops,
        rungs=2,
        reduction=REDUCTION,
    )
    return dataclasses.replace(config, name="rungs", budget=budget)


def ended_study(config: StudyConfig, store: Store, name: str) -> StudyRecord:
    """The study of that name, finished: launched, gone on with, or as it is.

    Raises InputError where one of that name is of another configuration or form of trainings.
    """
    found = {study.name: study for study in store.studies()}.get(name)
    if found is None:
        return launch_study(config, store, name=name)
    size = found.config["backbone"]["vocab_size"]  # what the corpus's tokenizer came to
    require(
        is_of(found, config.with_vocab_size(size)),
        f"folder: its study {name!r} has another configuration, or was trained in another form; "
        "give another folder",
    )
    return found if found.state is StudyState.FINISHED else resume_study(found, store)


Moment = tuple[float, tuple[float, ...]]


def frontier_moments(store: Store, study: StudyRecord) -> tuple[list[Moment], float]:
    """(FLOPs spent in the study by then, objectives) of each first run that was measured at the
    top, and the FLOPs of the whole study."""
    trials = {trial.number: trial for trial in store.trials(study.id, stats=False)}
    spent, moments = 0.0, list[Moment]()
    ended = [each for each in store.evaluations(study.id) if each.ended_at is not None]
    for each in sorted(ended, key=lambda each: (each.ended_at, each.id)):
        spent += each.flops
        values = _values(trials[each.trial], each, study.objectives)
        if each.rung == study.top and each.seed == study.seed and values is not None:
            moments.append((spent, values))
    return moments, spent


def _values(
    trial: TrialRecord, evaluation: EvaluationRecord, objectives: Sequence[str]
) -> tuple[float, ...] | None:
    as_measured = dataclasses.replace(
        trial,
        status=evaluation.status,
        bits_per_byte=evaluation.bits_per_byte,
        active_flops=evaluation.active_flops,
    )
    return objective_values(as_measured, objectives)


def share(flat: tuple[list[Moment], float], rungs: tuple[list[Moment], float]) -> float:
    """FLOPs at which `rungs` has the hypervolume that `flat` ends with, as a share of flat's.

    Infinite when it never has. Costs count by their logarithms.
    """
    points = [_scaled(values) for moments, _ in (flat, rungs) for _, values in moments]
    reference = reference_point(points)
    goal = hypervolume([_scaled(values) for _, values in flat[0]], reference)
    reached = list[tuple[float, ...]]()
    for spent, values in rungs[0]:
        reached.append(_scaled(values))
        if hypervolume(reached, reference) >= goal * (1 - 1e-12):
            return spent / flat[1]
    return math.inf


def parts(flat: tuple[list[Moment], float], rungs: tuple[list[Moment], float]) -> list[float]:
    """Hypervolumes as parts of what the flat study ends with: of both at half of its FLOPs (rungs
    first), and of the one with rungs at its end."""
    points = [_scaled(values) for moments, _ in (flat, rungs) for _, values in moments]
    reference = reference_point(points)

    def volume(moments: list[Moment], flops: float) -> float:
        return hypervolume([_scaled(v) for spent, v in moments if spent <= flops], reference)

    goal, half = volume(flat[0], math.inf), flat[1] / 2
    found = volume(rungs[0], half), volume(flat[0], half), volume(rungs[0], math.inf)
    return [round(each / goal, 3) for each in found]


def reference_point(points: Sequence[Sequence[float]]) -> list[float]:
    """A tenth of the points' range beyond their worst, so that the ends of a front count, too."""
    columns = list(zip(*points, strict=True))
    return [max(column) + 0.1 * (max(column) - min(column)) for column in columns]


def _scaled(values: tuple[float, ...]) -> tuple[float, ...]:
    return values[0], *(math.log(value) for value in values[1:])


def lower_rungs(
    config: StudyConfig, store: Store, study: StudyRecord, pool: Pool, corpus_dir: str
) -> list[dict[int, float]]:
    """Bits per byte of the flat study's designs, by rung."""
    trials = [t for t in store.trials(study.id) if t.status is Status.FINISHED]
    levels = config.budget.levels
    found = [{len(levels) - 1: trial.bits_per_byte or math.nan} for trial in trials]
    todo = [(i, rung) for rung in range(len(levels) - 1) for i in range(len(trials))]
    running = dict[int, tuple[int, int]]()
    for number, (i, rung) in enumerate(todo):
        while len(running) >= pool.slots:
            _collect(pool, running, found)
        running[number] = i, rung
        pool.submit(
            EvalRequest(
                evaluation=number,
                spec=trials[i].spec,
                backbone=config.backbone,
                recipe=config.recipe,
                corpus_dir=corpus_dir,
                until_flops=levels[rung],
                seed=config.seed,
                eval_tokens=config.eval_tokens,
            )
        )
    while running:
        _collect(pool, running, found)
    return found


def _collect(
    pool: Pool, running: dict[int, tuple[int, int]], found: list[dict[int, float]]
) -> None:
    for event in pool.events(1.0):
        if isinstance(event, EvalResult):
            i, rung = running.pop(event.evaluation)
            if event.bits_per_byte is None:
                raise RuntimeError(f"a design of the study was not measured: {event.error}")
            found[i][rung] = event.bits_per_byte


def correlations(measured: Sequence[dict[int, float]]) -> Iterator[Row]:
    """Spearman's rank correlation of each rung with the top one, over all designs and the best."""
    top = max(measured[0])
    best = sorted(measured, key=lambda by_rung: by_rung[top])[: len(measured) // 2]
    for rung in range(top):
        for name, designs in (("all designs", measured), ("the better half", best)):
            value = spearman([d[rung] for d in designs], [d[top] for d in designs])
            yield Row(f"rank correlation of rung {rung} with the top, {name}", round(value, 3))


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """The correlation of the ranks of two equally long sequences without ties."""
    ranks = [
        {value: rank for rank, value in enumerate(sorted(values))} for values in (first, second)
    ]
    pairs = [(ranks[0][a], ranks[1][b]) for a, b in zip(first, second, strict=True)]
    n = len(pairs)
    return 1 - 6 * sum((a - b) ** 2 for a, b in pairs) / (n * (n * n - 1))


def rows(folder: Path, seeds: int) -> Iterator[Row]:
    """A row a seed, the mean with its interval and bar, what was tried, and the correlations."""
    demo = StudyConfig.load(DEMO)
    shares = []
    with Store.open(f"sqlite:///{folder.resolve()}/nas.db") as store:
        for seed in range(seeds):
            config = dataclasses.replace(demo, seed=seed)
            one = ended_study(flat(config), store, f"flat-{seed}")
            many = ended_study(with_rungs(config), store, f"rungs-{seed}")
            both = frontier_moments(store, one), frontier_moments(store, many)
            found = share(*both)
            # Of a study that never has as much, its whole FLOPs are the least that it would take.
            shares.append(min(found, both[1][1] / both[0][1]))
            words = round(found, 3) if math.isfinite(found) else f"not within {shares[-1]:.3f}"
            yield Row(f"seed {seed}: share of the flat study's FLOPs", words)
            at_half, flat_at_half, at_end = parts(*both)
            yield Row(
                f"seed {seed}: hypervolume at half, rungs / flat", f"{at_half} / {flat_at_half}"
            )
            yield Row(f"seed {seed}: hypervolume at the end, rungs", at_end)
            yield Row(f"seed {seed}: designs, flat", len(store.trials(one.id)))
            tried = len(store.trials(many.id))
            yield at_least(f"seed {seed}: designs, rungs", tried, 2 * FLAT_TRIALS)
            yield Row(f"seed {seed}: FLOPs, flat", store.ledger(one.id).spent, "FLOPs")
            yield Row(f"seed {seed}: FLOPs, rungs", store.ledger(many.id).spent, "FLOPs")
        least = round(mean(shares), 3)
        yield at_most("mean share of the flat study's FLOPs, at least", least, MOST_SHARE)
        if seeds > 1:
            half = T_95.get(seeds, 1.96) * stdev(shares) / math.sqrt(seeds)
            yield Row("95% interval of the mean", f"± {half:.3f}")
        yield from _correlations(demo, store)


def _correlations(demo: StudyConfig, store: Store) -> Iterator[Row]:
    study = store.study("flat-0")
    config = dataclasses.replace(StudyConfig.from_dict(study.config), budget=demo.budget)
    pool = open_pool(config)
    try:
        backbone = config.backbone
        prepared = pool.prepare(config.corpus, backbone.vocab_size, backbone.seq_len, _cache())
        yield from correlations(lower_rungs(config, store, study, pool, prepared["dir"]))
    finally:
        pool.close()


def _cache() -> str:
    from search_space.places import corpora_dir

    return str(corpora_dir())


def main() -> None:
    """The command."""
    arguments = parser(__doc__)
    arguments.add_argument("--folder", type=Path, help="where the studies lie; else they are lost")
    arguments.add_argument("--seeds", type=int, default=SEEDS)
    options = arguments.parse_args()
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        sys.exit(publish(rows(options.folder, options.seeds), options.json))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(publish(rows(Path(folder), options.seeds), options.json))


if __name__ == "__main__":
    main()
