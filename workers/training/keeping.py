"""A running training's states: kept from time to time, taken up by the next worker, discarded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from workers.training.loop import Training
from workers.training.state import load_state, remove_states, save_state

log = logging.getLogger(__name__)
STATE_SECONDS = 60.0  # of training that a lost worker may cost


def kept_states(training: Training, place: str) -> Callable[[Training], None]:
    """Take up the newest state in `place`, if there is one; returns what keeps more of them.

    place: a folder or an fsspec URL; "" keeps nothing.  The returned function is called after each
    step and saves a state every STATE_SECONDS. One that cannot be saved costs a warning: training
    goes on without.
    """
    if not place:
        return lambda training: None
    state = load_state(place)
    if state is not None:
        training.take_up(state)
        log.warning("trial %d goes on from step %d", training.request.number, state.step)
    saved = time.monotonic()

    def keep(training: Training) -> None:
        nonlocal saved
        if time.monotonic() - saved < STATE_SECONDS:
            return
        try:
            save_state(training.state(), place)
        except OSError as error:
            log.warning("a training state could not be kept in %s: %s", place, error)
        saved = time.monotonic()

    return keep


def discard_states(place: str) -> bool:
    """Remove the states of a trial that has ended; whether there were any."""
    try:
        return bool(place) and remove_states(place)
    except OSError as error:
        log.warning("training states stay in %s: %s", place, error)
        return False
