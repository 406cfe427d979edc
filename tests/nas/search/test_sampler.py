"""The sampler: a function of (seed, number, told trials) that never repeats a design."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from patience import WAIT_S

from nas.search.sampler import (
    STARTUP_TRIALS,
    Proposal,
    Sampler,
    SpaceExhausted,
    Told,
    _most_telling,
)
from nas.search.settings import Constraints
from search_space.backbone import Backbone
from search_space.cost import model_cost
from search_space.errors import InputError
from search_space.space import SearchSpace, combinations
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=64, n_layers=2, n_heads=2)
SPACE = SearchSpace(
    methods=("dense", "topk", "hash", "straight_through"),
    active_width=(0.5, 1.0),
    shared_width=(0.0,),
    lr_multiplier=(1.0,),
)
SMALL = SearchSpace(
    methods=("dense",),
    depth=(1,),
    active_width=(0.5, 1.0),
    output_gate=(False,),
    lr_multiplier=(1.0,),
    placement="all",
)
KINDS = ["tpe", "random", "nsga2"]


def sampler(kind: str = "tpe", space: SearchSpace = SPACE, seed: int = 3, **bounds) -> Sampler:
    return Sampler(
        space=space,
        backbone=BACKBONE,
        objectives=("bits_per_byte", "active_flops"),
        constraints=Constraints(**bounds),
        seed=seed,
        kind=kind,
    )


def loss(spec: FFNSpec) -> float:
    """A made-up quality: more parameters and a gated activation are better."""
    cost = model_cost(spec, BACKBONE)
    return 3 - 1e-6 * cost.total_params - 0.3 * spec.gated


def told(proposal: Proposal, **changes) -> Told:
    spec = proposal.spec
    fields = {
        "params": proposal.params,
        "values": (loss(spec), model_cost(spec, BACKBONE).active_flops),
        "key": spec.key,
    }
    return Told(**(fields | changes))


def run(of: Sampler, n: int, trials: list[Told] | None = None) -> list[Told]:
    trials = list(trials or [])
    while len(trials) < n:
        trials.append(told(of.propose(len(trials), trials)))
    return trials


@pytest.mark.parametrize("kind", KINDS)
def test_a_rebuilt_study_goes_on_as_if_it_had_not_stopped(kind):
    n = STARTUP_TRIALS + 8
    whole = run(sampler(kind), n)
    half = run(sampler(kind), n // 2)
    stored = [
        Told(params=json.loads(json.dumps(t.params)), values=t.values, key=t.key) for t in half
    ]
    assert [t.params for t in run(sampler(kind), n, stored)] == [t.params for t in whole]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_between_asks_changes_no_proposal(kind, monkeypatch):
    """Beyond the most that a model is told, too, and while trials run and end out of order."""
    monkeypatch.setattr("nas.search.sampler.MOST_TOLD", STARTUP_TRIALS + 2)
    one, trials, open_ = sampler(kind), [], []
    for number in range(STARTUP_TRIALS + 12):
        warm = one.propose(number, trials)
        fresh = sampler(kind).propose(number, trials)
        assert (warm.params, warm.source, warm.refused) == (
            fresh.params,
            fresh.source,
            fresh.refused,
        )
        trials.append(told(warm, values=None, running=True))
        open_.append((number, told(warm, violations={"active_flops": number % 3 - 1.0})))
        if number % 3 == 2:
            for index, ended in reversed(open_):
                trials[index] = ended
            open_.clear()


def test_a_model_is_told_the_newest_the_running_and_the_frontier(monkeypatch):
    monkeypatch.setattr("nas.search.sampler.MOST_TOLD", 5)
    params = {"x": 1}
    values = [(3.0, 3.0)] * 4 + [(1.0, 9.0), (0.0, 0.0), (9.0, 1.0)] + [(4.0, 4.0)] * 8
    trials = [Told(params=params, values=each) for each in values]
    trials[2] = Told(params=params, running=True)
    trials[5] = Told(params=params, values=(0.0, 0.0), violations={"active_flops": 0.1})
    telling = [(trial, 0) for trial in trials]
    kept = [telling.index(pair) for pair in _most_telling(telling, len(trials) - 1)]
    # Trial 0 is on the frontier with its equals; 5 is better than all, and infeasible.
    equals = [i for i, trial in enumerate(trials) if trial.values == (3.0, 3.0)]
    assert equals == [0, 1, 3]
    found = [trials[i] for i in kept]
    assert found.count(trials[0]) == 3 and trials[2] in found and trials[5] not in found
    assert trials[4] in found and trials[6] in found and found.count(trials[-1]) == 5
    assert _most_telling(telling[:5], 4) == telling[:5]


FRESH = """
import json, sys
sys.path.insert(0, {tests!r})
from test_sampler import run, sampler
print(json.dumps([t.params for t in run(sampler({kind!r}), 20)], sort_keys=True))
"""


@pytest.mark.parametrize("kind", ["tpe", "nsga2"])
def test_a_fresh_process_proposes_the_same(kind):
    here = Path(__file__)
    paths = os.pathsep.join(map(str, (here.parents[3], here.parents[2])))
    out = subprocess.run(
        [sys.executable, "-c", FRESH.format(tests=str(here.parent), kind=kind)],
        env=os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
        timeout=WAIT_S,
    )
    assert json.loads(out.stdout) == [t.params for t in run(sampler(kind), 20)]


def test_the_seed_and_the_number_change_the_proposal():
    trials = run(sampler(), 4)
    designs = {
        sampler(seed=seed).propose(number, trials).spec.key for seed in (1, 2) for number in (4, 5)
    }
    assert len(designs) >= 3


@pytest.mark.parametrize("kind", KINDS)
def test_no_design_comes_twice_until_the_space_is_used_up(kind):
    size = combinations(SMALL, BACKBONE)
    assert size == 12
    trials = run(sampler(kind, SMALL), size)
    assert len({t.key for t in trials}) == size
    with pytest.raises(SpaceExhausted, match=r"used up.*12 tried.*widen the space"):
        sampler(kind, SMALL).propose(size, trials)


def test_failed_and_running_trials_are_not_proposed_again():
    trials = run(sampler(space=SMALL), 11)
    trials = [Told(params=t.params, running=i % 2 == 0) for i, t in enumerate(trials)]
    last = sampler(space=SMALL).propose(11, trials)
    with pytest.raises(SpaceExhausted):
        sampler(space=SMALL).propose(12, [*trials, told(last)])


@pytest.mark.parametrize("kind", KINDS)
def test_priced_constraints_are_kept(kind):
    bound = sampler(kind, total_params=2.0)
    proposals, trials = [], []
    for number in range(STARTUP_TRIALS + 8):
        proposals.append(bound.propose(number, trials))
        trials.append(told(proposals[-1]))
    limit = 2 * model_cost(FFNSpec(d_ff=256), BACKBONE).total_params
    assert all(model_cost(p.spec, BACKBONE).total_params <= limit for p in proposals)
    assert sum(p.refused for p in proposals) > 0
    free = [sampler(kind).propose(n, []) for n in range(24)]
    assert any(model_cost(p.spec, BACKBONE).total_params > limit for p in free)


def test_constraints_that_leave_nothing_exhaust_the_space():
    with pytest.raises(SpaceExhausted, match="breaks a constraint"):
        sampler(space=SMALL, total_params=0.01).propose(0, [])


def test_tpe_learns_what_random_does_not():
    def gated(kind):
        # Values alone differ between the designs: their cost is told as equal.
        trials = []
        of = sampler(kind)
        for number in range(45):
            p = of.propose(number, trials)
            trials.append(told(p, values=(loss(p.spec), 1.0)))
        return sum(t.params["gated"] for t in trials[STARTUP_TRIALS:])

    assert gated("tpe") > gated("random") + 5


def test_tpe_learns_from_measured_violations():
    def hash_share(violation):
        of, trials = sampler(), []
        for number in range(45):
            p = of.propose(number, trials)
            broken = violation if p.spec.method != "hash" else -violation
            trials.append(told(p, values=(1.0, 1.0), violations={"active_flops": broken}))
        return sum(t.params["method"] == "hash" for t in trials[STARTUP_TRIALS:])

    assert hash_share(1.0) > hash_share(-1.0) + 5


def test_running_trials_spread_the_asks_that_follow():
    trials = run(sampler(), 30)
    alone = sampler().propose(40, trials)
    others = []
    for number in range(30, 40):
        p = sampler().propose(number, [*trials, *others])
        others.append(told(p, values=None, running=True))
    beside = sampler().propose(40, [*trials, *others])
    # The same seed: only the running trials can make the difference.
    assert beside.spec.key != alone.spec.key


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_never_reach_optuna(bad):
    trials = run(sampler(), STARTUP_TRIALS + 4)
    base = sampler().propose(40, trials)
    spoilt = sampler(seed=9).propose(99, trials)
    for extra in (
        told(spoilt, values=(bad, 1.0)),
        told(spoilt, violations={"active_flops": bad}),
        told(spoilt, values=None),
    ):
        proposal = sampler().propose(40, [*trials, extra])
        assert (proposal.params, proposal.refused) == (base.params, base.refused)


def test_designs_from_outside_the_space_are_only_avoided():
    outside = FFNSpec(d_ff=300)
    of = sampler()
    assert of.params(outside) == {}
    known = Told(params={}, values=(1.0, 1.0), key=outside.key)
    assert of.propose(5, [known]).params == of.propose(5, []).params


def test_params_of_a_warm_start_are_told_like_any_other():
    of = sampler()
    spec = FFNSpec(d_ff=BACKBONE.reference_d_ff)
    params = of.params(spec)
    assert params["method"] == "dense"
    assert of.propose(1, [Told(params=params, values=(1.0, 1.0))]).spec.key != spec.key


def test_a_record_of_another_space_is_refused():
    with pytest.raises(InputError, match="does not fit the study's space") as caught:
        sampler().propose(1, [Told(params={"method": "dense"}, values=(1.0, 1.0))])
    assert "\n" not in str(caught.value)
    params = sampler().propose(0, []).params
    with pytest.raises(InputError, match="1 values for 2 objectives"):
        sampler().propose(1, [Told(params=params, values=(1.0,))])


def test_optuna_stays_quiet_and_as_it_was(caplog, recwarn):
    optuna.logging.enable_propagation()
    optuna.logging.set_verbosity(optuna.logging.INFO)
    try:
        with caplog.at_level(logging.INFO):
            run(sampler(), STARTUP_TRIALS + 2)
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.disable_propagation()
    assert [record for record in caplog.records if record.name.startswith("optuna")] == []
    assert [str(w.message) for w in recwarn if "optuna" in str(w.filename)] == []
