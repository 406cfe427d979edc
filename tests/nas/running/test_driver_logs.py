"""What workers say is stored by the driver: nothing lost or doubled, and no write of its own."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import event

from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.running.launcher import launch_study, resume_study
from nas.store import LeaseLost, Store, StudyState
from search_space.contract import EvalRequest, EvalResult, LogLine, Progress, Status, WorkerLost

CONFIG = {
    "name": "said",
    "backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "budget": {"trials": 4, "trial_flops": 1e12},
    "warm_start": ["dense", "hash"],
    "space": {"active_width": [0.5, 1.0, 2.0]},
}


def line(request: EvalRequest, number: int) -> LogLine:
    said = f"{request.number}: line {number} of attempt {request.attempt}"
    seen = {"evaluation": request.evaluation, "attempt": request.attempt, "number": number}
    return LogLine(**seen, at=datetime.now(UTC), level="info", text=said)


def point(request: EvalRequest, step: int) -> Progress:
    seen = {"evaluation": request.evaluation, "attempt": request.attempt, "step": step}
    return Progress(**seen, steps=2, flops=5e11, loss=3.0, seconds=1.0)


def result(request: EvalRequest) -> EvalResult:
    seen = {"evaluation": request.evaluation, "attempt": request.attempt}
    return EvalResult(**seen, status=Status.FINISHED, bits_per_byte=2.0, flops=9e11)


def speaks(request: EvalRequest):
    events = [line(request, 1), point(request, 1), line(request, 2), result(request)]
    return 1.0 + request.number, events


def is_silent(request: EvalRequest):
    return 1.0 + request.number, [point(request, 1), result(request)]


class OneByOne(SimulatedPool):
    """Hands out one event a turn, so that lines come without points."""

    def events(self, timeout):
        if not self.left:
            self.left = super().events(timeout)
        return [self.left.pop(0)] if self.left else []

    left: list


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def launch(store, work, pool=SimulatedPool, go_on=False):
    def factory(config):
        made = pool(2, work)
        made.left = []
        return made

    if go_on:
        return resume_study(store.study(), store, pool_factory=factory)
    return launch_study(StudyConfig.from_dict(CONFIG), store, pool_factory=factory)


def told(store):
    """By trial, (attempt, number, text) of its lines."""
    study = store.study()
    found = {}
    for trial in store.trials(study.id):
        (evaluation,) = store.trial_evaluations(trial.id)
        lines = store.log_lines([evaluation.id], 99)[evaluation.id].lines
        found[trial.number] = [(each.attempt, each.number, each.text) for each in lines]
    return found


def own(trial, attempt, *numbers):
    return [(attempt, n, f"{trial}: line {n} of attempt {attempt}") for n in numbers]


@pytest.mark.parametrize("pool", [SimulatedPool, OneByOne])
def test_every_line_is_stored_whatever_it_comes_with(store, pool):
    assert launch(store, speaks, pool).state is StudyState.FINISHED
    assert told(store) == {trial: own(trial, 1, 1, 2) for trial in range(4)}


def test_lines_cost_a_study_no_commit(tmp_path):
    counts = []
    for work in (is_silent, speaks):
        with Store.open(f"sqlite:///{tmp_path}/{work.__name__}.db") as store:
            commits = []
            event.listen(store._engine, "commit", commits.append)
            launch(store, work, OneByOne)
            counts.append(len(commits))
    assert counts[0] == counts[1] > 8


def test_lines_without_a_point_come_with_the_next_sign_of_life(store, monkeypatch):
    monkeypatch.setattr("nas.running.driver.RENEW_SECONDS", 0.0)
    seen = []

    class Looks(OneByOne):
        def events(self, timeout):
            seen.append(told(store).get(0, []))
            return super().events(timeout)

    launch(store, speaks, Looks)
    assert own(0, 1, 1) in seen[:3], "it is there before the first point"


def test_a_lost_worker_leaves_what_it_said_and_the_next_one_goes_on_below(store):
    def work(request):
        if request.number != 1 or request.attempt == 3:
            return speaks(request)
        lost = WorkerLost(evaluation=request.evaluation, error="the worker died: killed")
        return 1.0, [line(request, 1), point(request, request.attempt), line(request, 2), lost]

    launch(store, work)
    again = "the worker died: killed; another worker takes it up"
    assert told(store)[1] == [
        *own(1, 1, 1, 2),
        (2, 0, again), *own(1, 2, 1, 2),
        (3, 0, again), *own(1, 3, 1, 2),
    ]  # fmt: skip
    levels = store.log_lines([2], 99)[2].lines
    assert [each.level for each in levels if each.number == 0] == ["warning"] * 2


def test_a_late_attempts_lines_are_not_stored(store):
    def work(request):
        if request.number != 1 or request.attempt == 2:
            return speaks(request)
        lost = WorkerLost(evaluation=request.evaluation, error="the worker hung")
        return 1.0, [line(request, 1), lost, line(request, 2)]

    launch(store, work, OneByOne)
    assert told(store)[1] == [
        *own(1, 1, 1), (2, 0, "the worker hung; another worker takes it up"), *own(1, 2, 1, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("ending", [KeyboardInterrupt, LeaseLost])
def test_a_study_that_is_stopped_or_killed_goes_on_below_what_was_stored(store, ending):
    class Ends(OneByOne):
        turns = 0

        def events(self, timeout):
            self.turns += 1
            if self.turns == 4:  # of trial 0: a line, a point with it, another line
                raise ending("now")
            return super().events(timeout)

    with pytest.raises(ending):
        launch(store, speaks, Ends)
    before = told(store)
    # Of a driver that is killed, what came after its last write is lost; nothing before it.
    assert before[0] == (own(0, 1, 1, 2) if ending is KeyboardInterrupt else own(0, 1, 1))
    if ending is LeaseLost:
        study = store.study()
        store.hold_study(study.id, "gone", dead=study.owner)
        with store._sessions.begin() as session:
            session.connection().exec_driver_sql("UPDATE study SET lease_until = 1")
    assert launch(store, speaks, go_on=True).state is StudyState.FINISHED
    after = told(store)
    for trial in (0, 1):
        again = (2, 0, "taken up again: its driver was stopped, or is gone")
        assert after[trial] == [*before[trial], again, *own(trial, 2, 1, 2)]
    assert {trial: after[trial] for trial in (2, 3)} == {t: own(t, 1, 1, 2) for t in (2, 3)}
