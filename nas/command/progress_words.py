"""What a study's display says in words: of the study, and of an evaluation that ended."""

from __future__ import annotations

from collections.abc import Mapping

from nas.config import StudyConfig
from nas.search.bounds import excess, words
from nas.store import EvaluationRecord, StudyRecord, TrialRecord
from search_space.contract import Status


def study_words(study: StudyRecord, config: StudyConfig) -> list[str]:
    """A line on what is tried, one for each thing the corpus lost, one on its n-grams."""
    budget, corpus = config.budget, study.facts.corpus
    rungs = ""
    if budget.rungs > 1:
        shown = ", ".join(f"{level:.3g}" for level in budget.levels)
        rungs = f"through {budget.rungs} rungs of {shown} FLOPs"
    ngrams = sorted(study.facts.ngram_bits_per_byte.items())
    shown = ", ".join(f"n={n} {bits:.3f}" for n, bits in ngrams)
    return [
        f"study {study.name}: {budget.trials} trials "
        f"{rungs or f'of {budget.trial_flops:.3g} FLOPs'} on {corpus.source} "
        f"({corpus.tokens.get('train', 0):,} training tokens)",
        *(f"corpus: {note}" for note in corpus.notes),
        f"interpolated byte n-grams on the same split, bits per byte: {shown}",
    ]


def rung_words(evaluation: EvaluationRecord, top: int, first_seed: int) -> str:
    """Which rung, where there are several, and which seed, of a repeat; "" for neither."""
    parts = [f"rung {evaluation.rung} of {top}"] if top else []
    if evaluation.seed != first_seed:
        parts.append(f"seed {evaluation.seed}")
    return ", ".join(parts)


def ended_words(
    trial: TrialRecord,
    evaluation: EvaluationRecord,
    top: int,
    first_seed: int,
    bounds: Mapping[str, float],
) -> str:
    """How an evaluation ended, in a line.

    top: the highest rung.
    first_seed: of the first run of every design.
    """
    where = rung_words(evaluation, top, first_seed)
    name = f"trial {trial.number} {trial.spec.label}{f', {where}' if where else ''}"
    if evaluation.status is not Status.FINISHED:
        return f"{name}: {evaluation.status.value}: {evaluation.error}"
    parts = [f"{evaluation.bits_per_byte:.4f} bits per byte", f"{evaluation.seconds:.0f} s"]
    if evaluation.seed != first_seed:
        parts.append(f"mean of {trial.seeds} seeds {trial.bits_per_byte:.4f}")
    else:
        if evaluation.rung:
            parts.append(f"promoted from rung {evaluation.rung - 1}")
        if evaluation.rung < top:
            parts.append("paused")
    if over := words(excess(trial, bounds)):
        parts.append(f"infeasible: {over}")
    return f"{name}: {', '.join(parts)}"
