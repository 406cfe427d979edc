"""A study is trained in one precision: settled before it begins, stored, and kept."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.running import ray_workers
from nas.running.launcher import launch_study, resume_study
from nas.running.ray_limits import Limits
from nas.running.ray_workers import Workers
from nas.running.resumption import extend_study
from nas.store import Store
from search_space.contract import EvalResult, Status
from search_space.errors import InputError, WorkFailed

CONFIG = {
    "name": "simulated",
    "backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "budget": {"trials": 4, "trial_flops": 1e12},
}


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def ends_well(request):
    return 1.0, [
        EvalResult(
            evaluation=request.evaluation,
            attempt=request.attempt,
            status=Status.FINISHED,
            bits_per_byte=2.0,
            bits_per_byte_se=0.01,
            flops=0.99 * (request.until_flops - request.start_flops),
            trunk_flops=0.7 * request.until_flops,
        )
    ]


class Knows(SimulatedPool):
    """Workers that have bfloat16, or not, and what they were asked to train in."""

    def __init__(self, has):
        self.has, self.trained = has, []
        super().__init__(1, self.train)

    def train(self, request):
        self.trained.append(request.recipe.precision)
        return ends_well(request)

    def precision(self, asked, device):
        if asked == "bfloat16" and not self.has:
            raise InputError("recipe.precision: bfloat16 needs a device that has it: none here")
        return "bfloat16" if asked != "float32" and self.has else "float32"


@pytest.mark.parametrize(("has", "found"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_settled_once_for_all_runs_and_stored(store, has, found):
    pool = Knows(has)
    study = launch_study(StudyConfig.from_dict(CONFIG), store, pool_factory=lambda config: pool)
    assert store.study().config["recipe"]["precision"] == found
    assert set(pool.trained) == {found}
    extend_study(study, store, 4e12)
    later = Knows(True)  # other workers change nothing
    resume_study(store.study(), store, pool_factory=lambda config: later)
    assert set(later.trained) == {found}


def test_a_precision_that_the_workers_have_not_stores_nothing(store):
    config = StudyConfig.from_dict(CONFIG | {"recipe": {"precision": "bfloat16"}})
    pool = Knows(False)
    with pytest.raises(InputError, match="none here"):
        launch_study(config, store, pool_factory=lambda config: pool)
    assert pool.closed
    assert not store.studies()
    launch_study(config, store, pool_factory=lambda config: Knows(True))
    extend_study(store.study(), store, 4e12)
    before = store.study()
    with pytest.raises(InputError, match="none here"):
        resume_study(store.study(), store, pool_factory=lambda config: Knows(False))
    assert store.study() == before


def test_a_study_from_before_there_were_precisions_stays_in_float32(store):
    pool = Knows(False)
    study = launch_study(StudyConfig.from_dict(CONFIG), store, pool_factory=lambda config: pool)
    extend_study(study, store, 4e12)
    config = store.study().config
    del config["recipe"]["precision"]
    with store._sessions.begin() as session:
        session.execute(text("UPDATE study SET config = :c"), {"c": json.dumps(config)})
    pool = Knows(True)
    resume_study(store.study(), store, pool_factory=lambda config: pool)
    assert set(pool.trained) == {"float32"}


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (["bfloat16", "bfloat16"], "bfloat16"),
        (["bfloat16", "float32"], "float32"),
        (["bfloat16", None], None),
    ],
)
def test_workers_of_several_kinds_train_in_what_all_choose(told, found):
    answers = [{"precision": t} if t else {"error": "one has not"} for t in told]
    workers = Workers.__new__(Workers)
    workers._workers, workers._threads, workers._limits = [], 1, Limits()
    workers._ray = SimpleNamespace(get=lambda asks, timeout: answers)
    workers._ray.exceptions = SimpleNamespace(GetTimeoutError=TimeoutError, RayError=OSError)
    if found is None:
        with pytest.raises(InputError, match="one has not"):
            workers.precision("auto", "cpu")
    else:
        assert workers.precision("auto", "cpu") == found


@pytest.mark.parametrize(("error", "said"), [(TimeoutError, "did not say"), (OSError, "could not")])
def test_a_worker_that_does_not_answer_is_a_failure(error, said, monkeypatch):
    def get(asks, timeout):
        raise error

    workers = Workers.__new__(Workers)
    workers._workers, workers._threads, workers._limits = [], 1, Limits()
    workers._ray = SimpleNamespace(get=get)
    workers._ray.exceptions = SimpleNamespace(GetTimeoutError=TimeoutError, RayError=OSError)
    monkeypatch.setattr(ray_workers, "reason", lambda error: "a reason")
    with pytest.raises(WorkFailed, match=f"a worker {said}"):
        workers.precision("auto", "cpu")
