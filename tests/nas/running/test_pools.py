"""One contract for both pools; the Ray pool also survives a worker's death."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime

import pytest
from patience import WAIT_S

from benchmarks.abuse.ray_machine import wait_for
from benchmarks.simulated_pool import SimulatedPool
from nas.running.ray_pool import RayPool
from nas.running.ray_workers import fitting
from search_space.contract import EvalResult, LogLine, Progress, Status, WorkerLost
from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.kernels.bfloat16 import instructions
from workers.precision import chosen

pytestmark = pytest.mark.slow


def simulated_work(request):
    line = LogLine(
        evaluation=request.evaluation,
        number=1,
        at=datetime.now(UTC),
        level="info",
        text=f"trial {request.number} begins",
    )
    progress = Progress(
        evaluation=request.evaluation, step=1, steps=1, flops=1.0, loss=1.0, seconds=0.1
    )
    result = EvalResult(evaluation=request.evaluation, status=Status.FINISHED, bits_per_byte=2.0)
    return 1.0, [line, progress, result]


class PoolContract:
    """What a driver may count on."""

    def test_every_trial_ends_with_its_result_after_its_progress(
        self, pool, corpus_dir, make_request, drain
    ):
        for trial in (1, 2):
            pool.submit(make_request(corpus_dir, trial))
        events = drain(pool, {1, 2})
        for trial in (1, 2):
            mine = [e for e in events if e.evaluation == trial]
            assert isinstance(mine[0], Progress | LogLine)
            assert any(isinstance(e, Progress) for e in mine)
            assert isinstance(mine[-1], EvalResult)
            assert mine[-1].status is Status.FINISHED
            assert sum(isinstance(e, EvalResult) for e in mine) == 1
            lines = [e for e in mine if isinstance(e, LogLine)]
            assert [line.number for line in lines] == list(range(1, len(lines) + 1))
            assert lines[0].text.startswith("trial 0 "), "the number that it was asked with"

    def test_a_full_pool_refuses(self, pool, corpus_dir, make_request, drain):
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

    def test_time_is_simulated(self, pool, make_request, drain):
        for trial in (1, 2):
            pool.submit(make_request("", trial))
        drain(pool, {1, 2})
        assert pool.clock == 1.0


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

    def test_workers_say_what_they_train_in(self, pool):
        assert pool.precision("float32", "cpu") == "float32"
        assert pool.precision("auto", "cpu") == chosen("auto", "cpu", 1)
        if instructions():
            assert pool.precision("bfloat16", "cpu") == "bfloat16"
        with pytest.raises(
            InputError, match=r"bfloat16 needs a device that has it: no GPU is seen"
        ):
            pool.precision("bfloat16", "cuda")

    def test_a_killed_worker_is_reported_and_replaced(self, pool, corpus_dir, make_request, drain):
        pool.submit(make_request(corpus_dir, 5, steps=100_000))
        deadline, heard = time.monotonic() + WAIT_S, []
        while not any(isinstance(event, LogLine) for event in heard):
            assert time.monotonic() < deadline, "it says at once what it trains"
            heard = pool.events(0.5)
        wait_for(pool, "ray::TrialActor.run").kill()
        events = drain(pool, {5})
        assert isinstance(events[-1], WorkerLost)
        assert events[-1].error.startswith("the worker died: its process was killed or crashed")
        pool.submit(make_request(corpus_dir, 6))
        assert drain(pool, {6})[-1].status is Status.FINISHED


def test_more_workers_than_the_machine_has_are_refused_before_any_starts():
    with pytest.raises(InputError, match=r"workers need 100000 CPU, .* has (\d+); lower") as error:
        RayPool(count=100_000)
    assert f"has {len(os.sched_getaffinity(0))};" in str(error.value)


@pytest.mark.parametrize(
    ("have", "asked", "fits"),
    [
        ({"CPU": 8}, (0, 1, 0), 8),
        ({"CPU": 8}, (0, 3, 0), 2),
        ({"CPU": 8, "GPU": 1}, (0, 1, 0.25), 4),
        ({"CPU": 2}, (0, 4, 0), "workers need 4 CPU, the Ray cluster has 2"),
        ({"CPU": 2}, (3, 1, 0), "workers need 3 CPU, the Ray cluster has 2"),
        ({"CPU": 8}, (1, 1, 1), "workers need 1 GPU, the Ray cluster has 0"),
    ],
)
def test_workers_fit_or_the_figures_are_said(have, asked, fits):
    if isinstance(fits, int):
        assert fitting(have, *asked) == fits
    else:
        with pytest.raises(InputError, match=fits):
            fitting(have, *asked)
