"""How a study ends in the database, whatever ended it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from nas.process import interrupts
from nas.store import Hold, LeaseLost, Store, StudyRecord, StudyState
from search_space.contract import EvalResult, Status
from search_space.errors import WorkFailed

log = logging.getLogger(__name__)


@contextmanager
def recorded_ending(store: Store, study: StudyRecord, hold: Hold) -> Iterator[None]:
    """Record how the block ended as the study's state, give the study back, and let the user see
    what ended it.

    A failure after a signal asked to stop is taken for its effect: what raised it may have got the
    signal too. Raises KeyboardInterrupt or what the block raised; where the state could not be
    recorded, the text says so. A driver that lost its study records nothing.
    """
    try:
        yield
        store.release(hold, StudyState.FINISHED)
    except LeaseLost:
        raise
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt) or interrupts.asked()
        state = StudyState.STOPPED if stopped else StudyState.FAILED
        try:
            stop_left(store, hold)
            store.release(hold, state)
            said = f"what was running is recorded as stopped; go on with: nas resume {study.name}"
        except Exception as second:
            log.debug("the study's end could not be recorded", exc_info=True)
            said = (
                f"the end of study {study.name} could not be recorded, so it reads "
                f"{StudyState.RUNNING.value!r} in {store.url}: {second}"
            )
            if not stopped:
                # The reason is told once where it is the same.
                about = said if str(second) != str(error) else said.removesuffix(f": {second}")
                raise WorkFailed(f"{error}; {about}") from error
        if stopped:
            raise KeyboardInterrupt(said) from error
        raise


def stop_left(store: Store, hold: Hold) -> None:
    """Record as stopped what a driver that is gone left, and nobody has taken up since."""
    while left := store.claim(hold.study_id, hold.owner, hold, statuses=(Status.RUNNING,)):
        points = store.curve(left.id)
        spent = points[-1].flops - left.start_flops if points else 0.0
        store.end_evaluation(
            EvalResult(
                evaluation=left.id,
                attempt=left.attempt,
                status=Status.STOPPED,
                error="its driver was gone when the study was stopped; it can be resumed",
                flops=max(left.flops, spent),
            )
        )
