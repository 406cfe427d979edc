"""What a study found, in a few lines, once it is finished."""

from __future__ import annotations

from nas.command.study_tables import pareto_rows, print_pareto
from nas.command.terminal import echo
from nas.search.pareto import best
from nas.store import StudyRecord, TrialRecord
from nas.study import Study
from search_space.contract import Status
from search_space.errors import WorkFailed


def print_summary(study: Study) -> None:
    """Print what was tried and spent, the frontier, the best, and whether anything learned.

    Raises WorkFailed when no trial finished, or none that keeps the constraints.
    """
    trials = study.records(stats=False)
    echo(_spent(study, trials))
    if not any(trial.status is Status.FINISHED for trial in trials):
        error = trials[-1].result.error if trials and trials[-1].result else ""
        raise WorkFailed(
            f"no trial of {study.name} finished; the last: {error}; "
            f"every trial: nas pareto --all {study.name}"
        )
    first = best(trials, study.limits())
    if first is None:
        raise WorkFailed(
            f"no finished trial of {study.name} keeps its constraints as it was measured; "
            f"by how much each breaks them: nas pareto --all {study.name}"
        )
    print_pareto(pareto_rows(study, everything=False), as_json=False)
    _print_best(study.record, first)


def _spent(study: Study, trials: list[TrialRecord]) -> str:
    ledger, top = study.ledger(), study.record.top
    finished = sum(trial.status is Status.FINISHED for trial in trials)
    paused = sum(trial.status is Status.PAUSED for trial in trials)
    where = f" at rung {top}, the top, {paused} paused below it" if top else ""
    return (
        f"study {study.name}: {finished} of {len(trials)} trials finished{where}, "
        f"{ledger.spent:.3g} of {ledger.budget:.3g} FLOPs spent"
    )


def _print_best(study: StudyRecord, trial: TrialRecord) -> None:
    bits = trial.bits_per_byte
    assert bits is not None  # it finished
    ngrams = study.facts.ngram_bits_per_byte
    shown = ", ".join(f"n={n} {value:.3f}" for n, value in sorted(ngrams.items()))
    seeds = f", the mean of {trial.seeds} seeds" if trial.seeds > 1 else ""
    echo(f"best: {bits:.4f} bits per byte{seeds}; byte n-grams: {shown}")
    if study.deviation is not None:
        echo(
            f"deviation of one seed: {study.deviation:.4f} bits per byte, pooled over the repeated "
            "trials; of a mean of n seeds: that / sqrt(n)"
        )
    trigram = ngrams.get("3")
    if trigram is not None and bits >= trigram:
        echo(
            "warning: no design beats the byte trigram, so nothing here has learned much and the "
            "frontier means little; raise budget.trial_flops",
            err=True,
        )
