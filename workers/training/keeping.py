"""A run's states: kept from time to time and where the branch leaves the trunk, taken up by the
next worker or the next rung, discarded."""

from __future__ import annotations

import logging
import time

from search_space.secrets import redacted
from workers.training.loop import Training
from workers.training.meter import pays
from workers.training.state import TrainState, branch_of, load_state, remove, save_state

log = logging.getLogger(__name__)
STATE_SECONDS = 60.0  # of training that a lost worker may cost


class States:
    """What keeps the states of a training in its request's `state_dir`, "" for none.

    A state that cannot be saved costs a warning: training goes on without.

    seconds: between two states, STATE_SECONDS without a number.
    writes: whether this process writes them; of several that train together one does.
    """

    def __init__(
        self, training: Training, seconds: float | None = None, writes: bool = True
    ) -> None:
        self.writes = writes
        self.place = training.request.state_dir
        self.saved = time.monotonic()
        self.seconds = STATE_SECONDS if seconds is None else seconds

    def take_up(self, training: Training) -> None:
        """Go on from the newest state that leads to the request's rung, if there is one."""
        state = self.newest(training) if self.place else None
        if state is not None:
            training.take_up(state)
        request, spent = training.request, training.meter.spent
        place = redacted(self.place)
        if spent < request.start_flops:
            log.warning(
                "trial %d: no state of its trunk at %.3g FLOPs is in %s; "
                "it trains again from step %d",
                request.number, request.start_flops, place or "any folder", training.steps,
            )  # fmt: skip
        elif spent > request.start_flops:
            log.warning(
                "trial %d goes on from step %d at %.4g FLOPs, by a state in %s",
                request.number, training.steps, spent, place,
            )  # fmt: skip
        elif state is not None:
            log.info(
                "begun at step %d, where the rung below left the trunk at %.4g FLOPs, by a state "
                "in %s", training.steps, spent, place,
            )  # fmt: skip
        else:
            log.info("begun at step %d", training.steps)

    def after_step(self, training: Training) -> None:
        """Keep a state from time to time."""
        if self.due():
            self.keep(training)

    def due(self) -> bool:
        """Whether it is time for the next state."""
        return bool(self.place) and time.monotonic() - self.saved >= self.seconds

    def at_branch(self, training: Training) -> None:
        """Keep the trunk where the branch leaves it, if the next rung may go on from there."""
        if self.place and training.request.keep_trunk:
            self.keep(training)

    def newest(self, training: Training) -> TrainState | None:
        """Of this rung's branch, else of the trunk at or before the branch leaves it."""
        request, level = training.request, training.schedule.trunk_level

        def leads(state: TrainState) -> bool:
            return pays(level, state.numbers["meter"]["asked"])

        def branched(state: TrainState) -> bool:
            return state.request == request.identity() | {"until_flops": request.until_flops}

        return load_state(branch_of(self.place), branched) or load_state(self.place, leads)

    def keep(self, training: Training) -> None:
        """Keep a state now."""
        place = branch_of(self.place) if training.on_branch else self.place
        try:
            state = training.state()
            if self.writes:
                save_state(state, place)
        except Exception as error:  # each object store's client has errors of its own
            log.warning("a training state could not be kept in %s: %s", redacted(place), error)
        self.saved = time.monotonic()


def discard_branch(place: str) -> bool:
    """Remove the branch's states of an evaluation that has ended; whether there were any.

    The trunk's stay until its result is recorded: whoever records it removes them.
    """
    return _discard(place, branch_of(place))


def discard_states(place: str) -> bool:
    """Remove all states of a run that nothing goes on from; whether there were any."""
    return _discard(place, branch_of(place), place)


def _discard(place: str, *folders: str) -> bool:
    try:
        removed = [remove(folder) for folder in folders if place]
        return any(removed)
    except OSError as error:
        log.warning("training states stay in %s: %s", redacted(place), error)
        return False
