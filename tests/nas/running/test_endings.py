"""However a study ends, the database says so, and the user sees what ended it."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import pytest

import nas
from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.models.new_folder import new_folder
from nas.process import interrupts
from nas.running.launcher import launch_study
from nas.store import Store, StudyState
from search_space.contract import EvalResult, Progress, Status, WorkerLost
from search_space.errors import InputError, WorkFailed

pytestmark = pytest.mark.slow

CONFIG = {
    "name": "ending",
    "backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "budget": {"trials": 6, "trial_flops": 1e12},
    "warm_start": ["dense", "hash"],
}
ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def trains(request):
    point = Progress(
        evaluation=request.evaluation, step=1, steps=2, flops=4e11, loss=3.0, seconds=1.0
    )
    result = EvalResult(
        evaluation=request.evaluation, status=Status.FINISHED, bits_per_byte=2.0, flops=9e11
    )
    return 1.0, [point, result]


class Pool(SimulatedPool):
    """A pool that does what `at` says, by the name of the method and the times it was called."""

    def __init__(self, at, work=trains):
        super().__init__(2, work)
        self.at, self.calls = at, {}

    def _now(self, name):
        self.calls[name] = self.calls.get(name, 0) + 1
        if action := self.at.get((name, self.calls[name])):
            action()

    def prepare(self, *arguments):
        self._now("prepare")
        return super().prepare(*arguments)

    def submit(self, request):
        super().submit(request)
        self._now("submit")

    def events(self, timeout):
        found = super().events(timeout)
        self._now("events")
        return found

    def close(self):
        self._now("close")
        super().close()


@pytest.fixture(autouse=True)
def no_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def launch(store, at, work=trains, **options):
    pool = Pool(at, work)
    try:
        launch_study(StudyConfig.from_dict(CONFIG), store, pool_factory=lambda c: pool, **options)
    finally:
        assert pool.closed


def send(*numbers):
    def action():
        for number in numbers:
            signal.raise_signal(number)

    return action


def raising(error):
    def action():
        raise error

    return action


def rests(store, state):
    """The only study is in this state, with every trial ended and no FLOPs held."""
    (study,) = store.studies()
    assert study.state is state
    assert study.ended_at is not None
    assert all(trial.status.ended for trial in store.trials(study.id))
    assert store.ledger(study.id).reserved == 0
    return study


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("moment", [("submit", 1), ("events", 1), ("submit", 4), ("close", 1)])
def test_a_signal_while_driving_stops_the_study(store, number, moment):
    with pytest.raises(KeyboardInterrupt):
        launch(store, {moment: send(number, number, signal.SIGTERM)})
    study = rests(store, StudyState.FINISHED if moment[0] == "close" else StudyState.STOPPED)
    assert moment[0] == "close" or Status.STOPPED in {t.status for t in store.trials(study.id)}


def test_a_signal_while_preparing_stores_no_study(store):
    with pytest.raises(KeyboardInterrupt):
        launch(store, {("prepare", 1): send(signal.SIGHUP)})
    assert store.studies() == []


@pytest.mark.parametrize("number", ALL)
def test_a_signal_between_the_study_and_its_first_trial(store, number):
    with pytest.raises(KeyboardInterrupt, match="what was running is recorded as stopped"):
        launch(store, {}, started=lambda study, config: signal.raise_signal(number))
    assert store.trials(rests(store, StudyState.STOPPED).id) == []


def test_a_signal_inside_a_commit_is_noted(store, monkeypatch):
    real = store.end_evaluation

    def end_evaluation(result, lines):
        ended = real(result, lines)
        signal.raise_signal(signal.SIGINT)  # the database has it, the driver does not yet
        return ended

    monkeypatch.setattr(store, "end_evaluation", end_evaluation)
    with pytest.raises(KeyboardInterrupt):
        launch(store, {})
    rests(store, StudyState.STOPPED)


@pytest.mark.parametrize("lost", [EvalResult, WorkerLost])
def test_workers_that_die_of_the_same_signal_are_stopped_trials(store, lost):
    def work(request):
        if request.evaluation < 3:
            return trains(request)
        signal.raise_signal(signal.SIGTERM)
        return 1.0, [lost(evaluation=request.evaluation, status=Status.FAILED, error="killed")]

    with pytest.raises(KeyboardInterrupt):
        launch(store, {}, work)
    study = rests(store, StudyState.STOPPED)
    assert Status.FAILED not in {trial.status for trial in store.trials(study.id)}


def test_an_error_before_the_first_trial_fails_the_study(store):
    def started(study, config):
        raise WorkFailed("no")

    with pytest.raises(WorkFailed, match=r"^no$"):
        launch(store, {}, started=started)
    rests(store, StudyState.FAILED)


def test_a_trial_that_cannot_be_recorded_does_not_hide_the_error_or_skip_the_state(
    store, monkeypatch, caplog
):
    real = store.end_evaluation

    def end_evaluation(result, lines):
        if result.status is Status.STOPPED and result.evaluation == 1:
            raise WorkFailed("the disk is odd")
        return real(result, lines)

    monkeypatch.setattr(store, "end_evaluation", end_evaluation)
    with pytest.raises(WorkFailed, match=r"^the pool is gone$"):
        launch(store, {("events", 1): raising(WorkFailed("the pool is gone"))})
    (study,) = store.studies()
    assert study.state is StudyState.FAILED
    assert [t.status for t in store.trials(study.id)] == [Status.RUNNING, Status.STOPPED]
    assert "trial 0 could not be recorded as stopped: the disk is odd" in caplog.text


@pytest.mark.parametrize(
    ("error", "kind"), [(WorkFailed("the pool is gone"), WorkFailed), (None, KeyboardInterrupt)]
)
def test_a_state_that_cannot_be_recorded_is_said(store, monkeypatch, error, kind):
    def release(hold, state):
        raise WorkFailed("the database is gone")

    monkeypatch.setattr(store, "release", release)
    action = raising(error) if error else send(signal.SIGTERM)
    with pytest.raises(kind) as caught:
        launch(store, {("events", 1): action})
    said = str(caught.value)
    assert "the end of study ending could not be recorded, so it reads 'running' in" in said
    assert said.endswith("the database is gone")
    assert error is None or said.startswith("the pool is gone; ")


def test_a_pool_that_cannot_be_closed_does_not_hide_the_ending(store, caplog):
    with suppress(AssertionError):  # of `launch`: this pool stays open
        launch(store, {("close", 1): raising(OSError("stuck"))})
    rests(store, StudyState.FINISHED)
    assert "the workers could not be ended in order: stuck" in caplog.text


def test_lost_weights_are_said_and_cost_nothing_else(store, caplog):
    def work(request):
        seconds, (point, result) = trains(request)
        lost = {"checkpoint_error": "nas-runs/x: No space left on device"}
        return seconds, [point, EvalResult(**vars(result) | {"stats": lost})]

    launch(store, {}, work)
    study = rests(store, StudyState.FINISHED)
    assert {trial.status for trial in store.trials(study.id)} == {Status.FINISHED}
    assert "trial 0 is measured, its weights are lost: nas-runs/x: No space" in caplog.text


@pytest.mark.parametrize("number", ALL)
def test_an_interrupted_folder_leaves_no_draft(tmp_path, number):
    def write():
        with interrupts.listening(), new_folder(tmp_path / "a" / "model") as draft:
            (draft / "weights").write_text("some")
            os.kill(os.getpid(), number)
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_launch_from_python_that_is_refused_leaves_no_database(tmp_path):
    pool = Pool({("prepare", 1): raising(InputError("the corpus is odd"))})
    with pytest.raises(InputError, match="the corpus is odd"):
        nas.launch(CONFIG, f"sqlite:///{tmp_path}/nas.db", pool_factory=lambda config: pool)
    assert list(tmp_path.iterdir()) == []


def test_half_of_a_surrogate_pair_does_not_end_a_study(tmp_path):
    def dies(request):
        name = "a\udcff.bin"
        stats = {name: [name], "n": 1}
        result = EvalResult(
            evaluation=request.evaluation, status=Status.DIVERGED, error=name, stats=stats
        )
        return 1.0, [result]

    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        config = StudyConfig.from_dict(CONFIG)
        study = launch_study(config, store, pool_factory=lambda config: SimulatedPool(2, dies))
        (result, *_) = [trial.result for trial in store.trials(study.id)]
    assert study.state is StudyState.FINISHED
    assert result.error == "a\\udcff.bin"
    assert result.stats == {"a\\udcff.bin": ["a\\udcff.bin"], "n": 1}
