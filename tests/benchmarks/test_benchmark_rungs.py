"""What the benchmarks of rungs compute from studies, on made-up ones."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest

from benchmarks import lessons, rungs
from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.running.launcher import launch_study
from nas.search.lessons import Lessons
from nas.store import Facts, Store
from search_space.contract import TRAINING, EvalResult, Status
from search_space.errors import InputError

pytestmark = pytest.mark.slow


def test_the_share_is_of_the_flat_studys_flops_when_its_hypervolume_is_reached():
    flat = [(100.0, (2.0, math.e)), (200.0, (3.0, 1.0))], 200.0
    early = [(20.0, (3.0, 1.0)), (60.0, (2.0, math.e)), (90.0, (1.0, 1.0))], 90.0
    # Its second point gives the same frontier, whatever comes later.
    assert rungs.share(flat, early) == pytest.approx(60 / 200)
    assert rungs.parts(flat, early)[0] > 1 and rungs.parts(flat, early)[1] < 1
    assert rungs.parts(flat, flat)[2] == 1
    never = [(20.0, (3.0, 1.0))], 20.0
    assert rungs.share(flat, never) == math.inf


def test_rank_correlations_need_no_library():
    assert rungs.spearman([1, 2, 3], [10, 20, 30]) == 1
    assert rungs.spearman([1, 2, 3], [30, 20, 10]) == -1
    by_rung = [{0: value, 1: -value, 2: value} for value in (1.0, 2.0, 3.0, 4.0)]
    found = {row.name: row.value for row in rungs.correlations(by_rung)}
    assert found["rank correlation of rung 0 with the top, all designs"] == 1
    assert found["rank correlation of rung 1 with the top, all designs"] == -1


def test_the_flat_study_is_the_demos_with_one_rung():
    demo = StudyConfig.load(rungs.DEMO)
    flat = rungs.flat(demo)
    assert flat.budget.rungs == 1 and not flat.budget.repeats.share
    assert flat.space == demo.space and flat.recipe == demo.recipe
    assert flat.budget.trial_flops == demo.budget.trial_flops
    assert demo.budget.trials >= 2 * flat.budget.trials


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A recorded study of the demo's form: bits fall with active width and rungs, with noise."""
    folder = tmp_path_factory.mktemp("studies")

    def work(request):
        noise = random.Random(f"{request.number}/{request.rung}/{request.seed}").gauss(0, 0.01)
        bits = 3 - 0.1 * math.log(request.spec.d_ff) - 0.2 * request.rung + noise
        flops = request.until_flops - request.start_flops
        return flops, [
            EvalResult(
                evaluation=request.evaluation,
                status=Status.FINISHED,
                bits_per_byte=bits,
                flops=flops,
                trunk_flops=0.7 * request.until_flops,
            )
        ]

    config = StudyConfig.load(rungs.DEMO)
    with Store.open(f"sqlite:///{folder}/nas.db") as store:
        launch_study(config, store, pool_factory=lambda config: SimulatedPool(2, work))
    return folder


def test_a_landscape_is_what_was_recorded(studies):
    found, backbone, noise = lessons.recorded(studies)
    assert len(found) == 48 and 0.003 < noise < 0.03
    landscape = lessons.Landscape(found, backbone, noise)
    assert landscape.rungs == [0, 1, 2]
    for spec, by_rung in found:
        for rung, bits in by_rung.items():
            assert landscape.bits(spec, rung) == pytest.approx(bits, abs=0.1)
    # The same design has the same effect of its own, whoever asks.
    spec = found[0][0]
    assert landscape.bits(spec, 2) == landscape.bits(spec, 2)
    assert landscape.bits(spec, 2, random.Random(0)) != landscape.bits(spec, 2)


def test_a_rule_is_measured_by_the_studies_that_it_steers(studies):
    found, backbone, noise = lessons.recorded(studies)
    landscape = lessons.Landscape(found, backbone, noise)
    demo = dataclasses.replace(StudyConfig.load(rungs.DEMO), backbone=backbone)
    short = dataclasses.replace(demo.budget, trials=20)
    config = dataclasses.replace(demo, budget=short)
    for rule in lessons.RULES.values():
        front = lessons.simulated(config, landscape, rule)
        assert len(front) >= 4  # the warm starts, and who was promoted
    assert lessons.RULES["all, corrected"] is Lessons  # what the product does


def test_a_kept_study_of_another_configuration_is_not_taken(studies):
    config = StudyConfig.load(rungs.DEMO)
    longer = dataclasses.replace(
        config, budget=dataclasses.replace(config.budget, trial_flops=7e11)
    )
    with Store.open(f"sqlite:///{studies}/nas.db") as store:
        name = store.study().name
        assert rungs.ended_study(config, store, name).name == name
        with pytest.raises(InputError, match=r"another configuration.*give another folder"):
            rungs.ended_study(longer, store, name)
        store.update_study(store.study().id, facts=Facts(training=TRAINING - 1))
        with pytest.raises(InputError, match="another form"):
            rungs.ended_study(config, store, name)
