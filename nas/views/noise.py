"""How far a trial's bits per byte may lie from what many seeds would give."""

from __future__ import annotations

import math

from nas.store.records import StudyRecord, TrialRecord


def noise(study: StudyRecord, trial: TrialRecord) -> float | None:
    """One standard error of the trial's `bits_per_byte`; None when nothing is known of it.

    At the top rung, once a trial of the study was repeated: the deviation of one seed over the
    root of the trial's seeds. Else the first run's standard error over the validation windows,
    which does not know that another seed trains another model.
    """
    if trial.bits_per_byte is None:
        return None
    if study.deviation is not None and trial.rung == study.top and trial.seeds:
        return study.deviation / math.sqrt(trial.seeds)
    return trial.result.bits_per_byte_se if trial.result is not None else None
