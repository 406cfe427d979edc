"""One contract for both pools; the Ray pool also survives a worker's death."""

from __future__ import annotations

import os
import signal
import time

import pytest

from nas.pool import SimulatedPool
from nas.ray_pool import RayPool
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, EvalResult, Progress, Recipe, Status
from search_space.corpus import CorpusSpec
from search_space.cost import step_flops
from search_space.errors import InputError
from search_space.spec import FFNSpec

BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)
SPEC = FFNSpec(d_ff=32)
CORPUS = CorpusSpec(max_bytes=400_000)


def simulated_work(request):
    progress = Progress(trial=request.trial, step=1, steps=1, flops=1.0, loss=1.0, seconds=0.1)
    result = EvalResult(trial=request.trial, status=Status.FINISHED, bits_per_byte=2.0)
    return 1.0, [progress, result]


def make_request(corpus_dir, trial, steps=4):
    return EvalRequest(
        trial=trial,
        spec=SPEC,
        backbone=BACKBONE,
        recipe=Recipe(batch_size=2),
        corpus_dir=corpus_dir,
        train_flops=step_flops(SPEC, BACKBONE, 2) * steps,
        eval_tokens=256,
    )


def drain(pool, unfinished, seconds=60.0):
    events, deadline = [], time.monotonic() + seconds
    while unfinished and time.monotonic() < deadline:
        for event in pool.events(0.5):
            events.append(event)
            if isinstance(event, EvalResult):
                unfinished.remove(event.trial)
    assert not unfinished, "the pool went silent"
    return events


class PoolContract:
    """What a driver may count on."""

    def test_every_trial_ends_with_its_result_after_its_progress(self, pool, corpus_dir):
        for trial in (1, 2):
            pool.submit(make_request(corpus_dir, trial))
        events = drain(pool, {1, 2})
        for trial in (1, 2):
            mine = [e for e in events if e.trial == trial]
            assert isinstance(mine[0], Progress)
            assert isinstance(mine[-1], EvalResult)
            assert mine[-1].status is Status.FINISHED
            assert sum(isinstance(e, EvalResult) for e in mine) == 1

    def test_a_full_pool_refuses(self, pool, corpus_dir):
        for trial in range(pool.slots):
            pool.submit(make_request(corpus_dir, trial))
        with pytest.raises(RuntimeError, match="slots are busy"):
            pool.submit(make_request(corpus_dir, 99))
        drain(pool, set(range(pool.slots)))

    def test_an_idle_pool_has_no_events(self, pool):
        assert pool.events(0.01) == []


class TestSimulatedPool(PoolContract):
    @pytest.fixture
    def pool(self):
        return SimulatedPool(2, simulated_work)

    @pytest.fixture
    def corpus_dir(self):
        return ""

    def test_time_is_simulated(self, pool):
        for trial in (1, 2):
            pool.submit(make_request("", trial))
        drain(pool, {1, 2})
        assert pool.clock == 1.0


@pytest.fixture(scope="module")
def ray_pool():
    made = RayPool(count=2)
    yield made
    made.close()


@pytest.fixture(scope="module")
def ray_corpus_dir(ray_pool, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    facts = ray_pool.prepare(CORPUS, 300, 32, str(folder))
    assert set(facts["ngram_bits_per_byte"]) == {"3", "4", "5"}
    assert facts["meta"]["vocab_size"] == 300
    return facts["dir"]


class TestRayPool(PoolContract):
    @pytest.fixture
    def pool(self, ray_pool):
        return ray_pool

    @pytest.fixture
    def corpus_dir(self, ray_corpus_dir):
        return ray_corpus_dir

    def test_a_bad_corpus_is_the_users_one_line(self, pool, tmp_path):
        with pytest.raises(InputError, match="no file"):
            pool.prepare(CorpusSpec(source=str(tmp_path / "none.txt")), 300, 32, str(tmp_path))

    def test_a_killed_worker_is_reported_and_replaced(self, pool, corpus_dir):
        pids = pool._ray.get([actor.ready.remote() for actor in pool._actors])
        pool.submit(make_request(corpus_dir, 5, steps=100_000))
        assert pool.events(30.0), "the trial did not start"
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        events = drain(pool, {5})
        assert events[-1].status is Status.FAILED
        assert "the worker died" in events[-1].error
        pool.submit(make_request(corpus_dir, 6))
        assert drain(pool, {6})[-1].status is Status.FINISHED


def test_more_workers_than_the_machine_has_is_said_with_figures():
    with pytest.raises(InputError, match=r"workers need 1 GPU, the Ray cluster has 0"):
        RayPool(count=1, gpus=1.0)
