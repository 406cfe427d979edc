"""The loop, in simulated time: budgets, endings, failures and interruptions."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from fsspec import AbstractFileSystem
from sqlalchemy import text

from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.models.checkpoints import study_folder
from nas.process.holder import new_owner
from nas.running.driver import MOST_FAILURES, MOST_LOSSES, StudyFailed
from nas.running.launcher import launch_study, resume_study
from nas.running.resumption import extend_study
from nas.search.pareto import frontier
from nas.store import LeaseLost, Store, StudyHeld, StudyState
from search_space.contract import EvalRequest, EvalResult, Progress, Status, WorkerLost
from search_space.errors import InputError

CONFIG = {
    "name": "simulated",
    "backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "budget": {"trials": 12, "trial_flops": 1e12},
    "warm_start": ["dense", "hash"],
    "space": {"active_width": [0.5, 1.0, 2.0]},
}


def quality(request: EvalRequest) -> float:
    """A made-up landscape: more experts and more active width are better."""
    spec = request.spec
    return 3.0 - 0.1 * len(str(spec.n_experts)) - 1e-4 * spec.d_ff


def ends_well(request: EvalRequest):
    """Half way a point of the curve, and nearly all of the FLOPs spent."""
    flops = request.until_flops - request.start_flops
    seen = {"evaluation": request.evaluation, "attempt": request.attempt}
    half = request.start_flops + flops / 2
    progress = Progress(**seen, step=1, steps=2, flops=half, loss=3.0, seconds=1.0)
    result = EvalResult(
        **seen,
        status=Status.FINISHED,
        bits_per_byte=quality(request),
        bits_per_byte_se=0.01,
        flops=flops * 0.99,
        trunk_flops=0.7 * request.until_flops,
        seconds=2.0,
    )
    return 1.0 + request.number % 3, [progress, result]


def fails(request: EvalRequest):
    seen = {"evaluation": request.evaluation, "attempt": request.attempt}
    return 1.0, [EvalResult(**seen, status=Status.FAILED, error="no such luck")]


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def launch(store, work=ends_well, slots=3, pools=None, **changes):
    config = StudyConfig.from_dict(CONFIG | changes)

    def pool(config):
        made = SimulatedPool(slots, work)
        if pools is not None:
            pools.append(made)
        return made

    return launch_study(config, store, pool_factory=pool)


def test_a_study_spends_its_budget_and_nothing_more(store):
    study = launch(store)
    trials = store.trials(study.id)
    ledger = store.ledger(study.id)
    assert study.state is StudyState.FINISHED
    assert len(trials) == 12
    assert {t.status for t in trials} == {Status.FINISHED}
    assert ledger.reserved == 0
    assert ledger.spent == pytest.approx(12 * 0.99e12)
    assert ledger.spent <= ledger.budget
    assert [t.source for t in trials[:2]] == ["dense", "hash"]
    assert len({t.key for t in trials}) == 12
    assert frontier(trials, study.objectives)


def test_a_flop_budget_ends_a_study_before_its_trials_do(store):
    study = launch(store, budget={"trials": 12, "trial_flops": 1e12, "flops": 4.5e12})
    # Four trials leave 4.5 - 4 * 0.99 = 0.54 of a trial.
    assert len(store.trials(study.id)) == 4


def test_a_serial_study_is_a_function_of_its_seed(store):
    first, again = launch(store, slots=1), launch(store, slots=1)
    other = launch(store, slots=1, seed=1)
    keys = [[t.key for t in store.trials(study.id)] for study in (first, again, other)]
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]
    assert again.name == "simulated-2"


def test_a_used_up_space_ends_the_study_early(store):
    one = {"depth": 1, "activation": "relu", "shared_width": 0.0, "output_gate": False}
    one |= {"active_width": 1.0, "granularity": 1, "placement": "all"}
    space = one | {"methods": ["dense"], "gated": [False, True], "lr_multiplier": 1.0}
    study = launch(store, space=space, warm_start=[])
    assert len(store.trials(study.id)) == 2
    assert study.state is StudyState.FINISHED


def test_a_study_in_which_everything_fails_gives_up(store):
    pools = []
    with pytest.raises(StudyFailed, match=r"5 evaluations in a row failed; the last: no such luck"):
        launch(store, work=fails, pools=pools)
    study = store.study("simulated")
    trials = store.trials(study.id)
    assert study.state is StudyState.FAILED
    assert all(t.status.ended for t in trials)
    assert sum(t.status is Status.FAILED for t in trials) == MOST_FAILURES
    assert pools[0].closed


class Together(SimulatedPool):
    """Hands out the events of all that runs in one turn."""

    def events(self, timeout):
        found = [event for *_, events in self._submitted_first() for event in events]
        self._running.clear()
        return found

    def _submitted_first(self):
        return sorted(self._running, key=lambda item: item[1])


def launch_together(store, failing, slots=6):
    def work(request):
        return fails(request) if request.number in failing else ends_well(request)

    config = StudyConfig.from_dict(CONFIG)
    return launch_study(config, store, pool_factory=lambda config: Together(slots, work))


def test_a_result_that_comes_with_the_last_failure_is_kept(store):
    study = launch_together(store, failing=range(5))
    assert study.state is StudyState.FINISHED
    trials = store.trials(study.id)
    assert [t.status for t in trials[:6]] == [Status.FAILED] * 5 + [Status.FINISHED]

    with pytest.raises(StudyFailed, match="6 evaluations in a row failed; the last: no such luck"):
        launch_together(store, failing=range(6))


def test_a_result_among_failures_that_end_the_study_is_kept(store):
    with pytest.raises(StudyFailed, match="5 evaluations in a row failed"):
        launch_together(store, failing={*range(5), *range(6, 11)}, slots=11)
    trials = store.trials(store.study("simulated").id)
    assert [t.number for t in trials if t.status is Status.FINISHED] == [5]


def loses(times: int, trial: int = 2):
    """Work that loses the worker of one trial so often; and the requests that it was given."""
    asked = []

    def work(request):
        if request.number != trial:
            return ends_well(request)
        asked.append(request)
        if len(asked) > times:
            return ends_well(request)
        progress, _ = ends_well(request)[1]
        return 1.0, [
            progress,
            WorkerLost(evaluation=request.evaluation, error="the worker died: killed"),
        ]

    return work, asked


def test_a_trial_that_loses_its_worker_is_taken_up_by_another(store, caplog):
    work, asked = loses(MOST_LOSSES - 1)
    study = launch(store, work=work)
    trials = store.trials(study.id)
    assert {t.status for t in trials} == {Status.FINISHED}
    assert len(trials) == 12
    assert [each.attempt for each in asked] == [1, 2, 3] == list(range(1, MOST_LOSSES + 1))
    assert len({str(replace(each, attempt=1, checkpoint_dir="")) for each in asked}) == 1
    assert asked[0].state_dir.endswith("/states/trial-2-seed-0")
    text = "trial 2: the worker died: killed; another worker takes it up"
    assert caplog.text.count(text) == MOST_LOSSES - 1
    ledger = store.ledger(study.id)
    assert ledger.reserved == 0 and ledger.spent == sum(t.result.flops for t in trials)


def test_a_design_that_kills_its_workers_is_set_aside(store):
    work, asked = loses(100)
    study = launch(store, work=work)
    trials = store.trials(study.id)
    assert len(asked) == MOST_LOSSES
    failed = [t for t in trials if t.status is Status.FAILED]
    assert [t.number for t in failed] == [2]
    assert failed[0].result.error == (
        "the worker died: killed; it was the last of 3 workers that an evaluation may lose"
    )
    assert failed[0].result.flops == 0.5e12  # what its progress told
    assert study.state is StudyState.FINISHED and len(trials) == 12


def test_each_attempt_has_a_checkpoint_of_its_own(store):
    work, asked = loses(1)

    def writes(request):
        place = Path(request.checkpoint_dir)
        assert not place.exists()
        place.mkdir(parents=True)
        return work(request)

    study = launch(store, work=writes)
    assert {t.status for t in store.trials(study.id)} == {Status.FINISHED}
    assert len(asked) == 2


def test_a_single_failure_is_recorded_and_passed_over(store):
    def work(request):
        return fails(request) if request.number == 2 else ends_well(request)

    study = launch(store, work=work)
    trials = store.trials(study.id)
    assert [t.status for t in trials].count(Status.FAILED) == 1
    assert trials[2].result.error == "no such luck"
    assert len(trials) == 12


def test_ctrl_c_records_what_runs_as_stopped(store):
    pools = []

    def work(request):
        if request.number < 3:
            return ends_well(request)
        seconds, (progress, _) = ends_well(request)
        return seconds, [progress, Interrupt()]

    class Interrupt:
        @property
        def evaluation(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launch(store, work=work, pools=pools)
    study = store.study("simulated")
    trials = store.trials(study.id)
    stopped = [t for t in trials if t.status is Status.STOPPED]
    assert study.state is StudyState.STOPPED
    assert pools[0].closed
    assert stopped
    assert all(t.status.ended for t in trials)
    # What they had spent is counted: half a trial where progress was seen.
    assert {t.result.flops for t in stopped} == {0.0, 0.5e12}
    assert store.ledger(study.id).reserved == 0


class Killed(SimulatedPool):
    """Its driver is gone at the first event, as by `kill -9`: nothing more is written."""

    def events(self, *arguments, **named):
        raise LeaseLost("killed")


def left_by_a_dead_driver(store, slots=3):
    config = StudyConfig.from_dict(CONFIG)
    with pytest.raises(LeaseLost):
        launch_study(config, store, pool_factory=lambda config: Killed(slots, ends_well))
    study = store.study()
    store.hold_study(study.id, "gone", dead=study.owner)
    return store.study()


def let_the_hold_run_out(store):
    with store._sessions.begin() as session:
        session.execute(text("UPDATE study SET lease_until = 1"))


def test_what_no_worker_had_room_for_is_stopped_with_the_study(store):
    left_by_a_dead_driver(store)
    let_the_hold_run_out(store)

    class Interrupted(SimulatedPool):
        def events(self, timeout):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume_study(store.study(), store, pool_factory=lambda config: Interrupted(1, ends_well))
    study = store.study()
    assert study.state is StudyState.STOPPED
    assert [each.status for each in store.evaluations(study.id)] == [Status.STOPPED] * 3
    assert store.ledger(study.id).reserved == 0


def test_leases_that_run_out_while_a_machine_sleeps_let_nothing_be_trained_twice(store):
    left_by_a_dead_driver(store)
    let_the_hold_run_out(store)
    submitted = []

    class Sleeps(SimulatedPool):
        def submit(self, request):
            submitted.append(request.evaluation)
            super().submit(request)

        def events(self, timeout):
            with store._sessions.begin() as session:
                session.execute(text("UPDATE evaluation SET lease_until = 1 WHERE owner <> ''"))
            return super().events(timeout)

    def longest_first(request):
        seconds, events = ends_well(request)
        return (9.0 if request.number == 0 else seconds), events

    study = resume_study(store.study(), store, pool_factory=lambda config: Sleeps(2, longest_first))
    assert study.state is StudyState.FINISHED
    assert sorted(submitted) == list(range(1, 13))


def test_what_is_extended_while_it_is_prepared_has_its_flops(store):
    """A resumption prepares for minutes, and holds the study only then."""
    launch(store, budget={"trials": 4, "trial_flops": 1e12})
    extend_study(store.study(), store, 4e12)

    class Prepares(SimulatedPool):
        def prepare(self, *arguments):
            extend_study(store.study(), store, 4e12)
            return super().prepare(*arguments)

    study = resume_study(store.study(), store, pool_factory=lambda config: Prepares(3, ends_well))
    assert (study.state, study.budget_flops) == (StudyState.FINISHED, 12e12)
    assert len(store.trials(study.id)) == 12


def test_a_driver_that_lost_its_study_leaves_drafts_to_the_next(store):
    class Loses(SimulatedPool):
        def events(self, timeout):
            study = store.study()
            drafts.append(study_folder(study, store) / ".trial-0.2-abc")
            drafts[0].mkdir(parents=True)
            store.hold_study(study.id, "next", dead=study.owner)
            return super().events(timeout)

    drafts = []
    with pytest.raises(LeaseLost):
        launch_study(
            StudyConfig.from_dict(CONFIG), store, pool_factory=lambda config: Loses(3, ends_well)
        )
    assert drafts[0].is_dir()
    let_the_hold_run_out(store)

    class Late(SimulatedPool):
        def prepare(self, *arguments):
            store.hold_study(store.study().id, new_owner())
            return super().prepare(*arguments)

    with pytest.raises(StudyHeld, match=rf"one driver: process {os.getpid()} on [^:,]+ holds "):
        resume_study(store.study(), store, pool_factory=lambda config: Late(3, ends_well))
    assert drafts[0].is_dir()


def test_a_launch_that_is_killed_once_its_study_is_stored_can_be_resumed(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store, "update_study", Killed(1, ends_well).events)
        with pytest.raises(LeaseLost):
            launch(store)
    study = resume_study(
        store.study(), store, pool_factory=lambda config: SimulatedPool(3, ends_well)
    )
    assert study.state is StudyState.FINISHED


class Unreachable(AbstractFileSystem):
    """An object store that the workers reach and this machine does not."""

    protocol = "unreachable"

    def exists(self, path, **kwargs):
        raise RuntimeError("unable to locate credentials")


def test_states_that_only_the_workers_reach_cost_a_warning(store, caplog):
    fsspec.register_implementation("unreachable", Unreachable, clobber=True)
    study = launch(store, workers={"state_url": "unreachable://bucket"})
    assert study.state is StudyState.FINISHED
    assert "training states stay in unreachable://bucket/" in caplog.text
    extend_study(study, store, 3e12)
    study = resume_study(
        store.study(), store, pool_factory=lambda config: SimulatedPool(3, ends_well)
    )
    assert study.state is StudyState.FINISHED
    assert "cannot be looked at: unable to locate credentials" in caplog.text


def test_a_driver_lives_while_it_fills_many_workers(store, monkeypatch):
    monkeypatch.setattr("nas.running.driver.RENEW_SECONDS", 0.0)
    renewed = []
    renew = store.renew
    monkeypatch.setattr(store, "renew", lambda *all: renewed.append(all) or renew(*all))

    class Counts(SimulatedPool):
        def events(self, timeout):
            before.append(len(renewed))
            return super().events(timeout)

    before = []
    launch_study(
        StudyConfig.from_dict(CONFIG), store, pool_factory=lambda config: Counts(6, ends_well)
    )
    assert before[0] >= 6


def test_the_cost_constraint_is_never_broken(store):
    study = launch(store, constraints={"total_params": 2.0, "active_flops": 1.05}, warm_start=[])
    config = StudyConfig.from_dict(study.config)
    limits = config.limits()
    for trial in store.trials(study.id):
        for name, limit in limits.items():
            assert trial.cost[name] <= limit * (1 + 1e-9)


def test_a_taken_name_is_refused_before_anything_is_prepared(store):
    launch(store)
    prepared = []

    def pool(config):
        prepared.append(config)
        return SimulatedPool(1, ends_well)

    with pytest.raises(InputError, match="a study's name must be new: 'simulated' exists"):
        launch_study(StudyConfig.from_dict(CONFIG), store, name="simulated", pool_factory=pool)
    assert prepared == []


def test_the_stored_configuration_is_the_one_that_ran(store):
    study = launch(store)
    again, given = StudyConfig.from_dict(study.config), StudyConfig.from_dict(CONFIG)
    settled = replace(given.recipe, precision="float32")  # what "auto" turned out to be
    assert replace(again, name="x") == replace(given, name="x", recipe=settled)
