"""A run that stops at rungs, one that is killed on the way and one that does not stop are one run.

For every preset and for designs that the space draws: the trunk's states where a branch leaves it
are the same to the bit, and so are the results.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from dataclasses import dataclass, field

import pytest
import torch
from depth import where
from patience import WAIT_S

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, EvalResult, Progress, Recipe, Status
from search_space.cost import step_flops
from search_space.errors import SpecError
from search_space.methods.product_key import ProductKey, ProductKeyKnobs
from search_space.methods.relu_routing import ReLURouting
from search_space.presets import PRESETS
from search_space.space import SearchSpace, suggest
from search_space.space.walk import Draw
from search_space.spec import FFNSpec
from workers import evaluate as evaluation
from workers.evaluate import evaluate
from workers.training import keeping
from workers.training.keeping import States
from workers.training.state import load_state

pytestmark = pytest.mark.slow

BACKBONE = Backbone(
    d_model=16, n_layers=2, n_heads=2, vocab_size=300, seq_len=32, reference_d_ff=64
)
RECIPE = Recipe(batch_size=2, warmup=3)
STEPS = 30.5  # of a design with a fixed price, at the top: 30, at the rungs below 10 and 3
RUNGS = (1 / 9, 1 / 3, 1.0)
DRAWN = 8


def drawn_specs() -> dict[str, FFNSpec]:
    """Legal designs of the default space, cut to the backbone's few units; always the same."""
    space = SearchSpace()
    space = dataclasses.replace(
        space,
        width_multiple=1,
        granularity=(1, 2, 3, 8),
        depth=(1, 2, 3),
        sections={
            "product_key": ProductKeyKnobs(
                heads=(1, 2), k=(1, 2, 7), expansion=(1.0, 2.0), expert_width=(1, 9)
            )
        },
    )
    specs, seed = {}, 0
    while len(specs) < DRAWN:
        seed += 1
        try:
            spec = suggest(space, Draw(seed), BACKBONE)
        except SpecError:
            continue
        specs[f"drawn {seed} {spec.label}"] = spec
    return specs


PUBLISHED = {name: preset(BACKBONE) for name, preset in PRESETS.items()}
# By their places some are lost on their branch, too: what is not in all layers came last.
SPECS = {name: spec for name, spec in PUBLISHED.items() if spec.placement == "all"}
SPECS |= drawn_specs() | PUBLISHED


def new_method(number: int) -> bool:
    """Whether it is the number of the first preset of its method."""
    name, spec = list(SPECS.items())[number]
    return name == next((n for n, each in PUBLISHED.items() if each.method == spec.method), "")


class Lost(BaseException):
    """Ends a worker as a kill does: nothing is caught, nothing cleaned up."""


@dataclass
class Run:
    """What the evaluations of a run leave: results, points and the trunk's states by rung."""

    results: list[EvalResult] = field(default_factory=list)
    points: list[dict[float, tuple]] = field(default_factory=list)
    trunks: list[tuple] = field(default_factory=list)


def request(corpus, spec, rung, **changes):
    price = step_flops(spec, BACKBONE, RECIPE.batch_size)
    fields = {
        "evaluation": rung,
        "spec": spec,
        "backbone": BACKBONE,
        "recipe": RECIPE,
        "corpus_dir": str(corpus.dir),
        "rung": rung,
        "until_flops": price * STEPS * RUNGS[rung],
        "run_flops": price * STEPS,
        "curve_flops": price * 1.7,
        "eval_tokens": 512,
        "keep_trunk": True,
    }
    return EvalRequest(**fields | changes)


def kept(state):
    """A state for comparison: all but what the evaluation alone is concerned with."""
    numbers = {name: part for name, part in state.numbers.items() if name != "visit"}
    return state.step, {name: t.clone() for name, t in state.tensors.items()}, numbers


def plain(result):
    """A result but for time."""
    assert result.status is Status.FINISHED, result.error
    return dataclasses.replace(result, seconds=0.0)


def noted(points, kill_at=None, kill=None):
    def report(progress: Progress) -> None:
        seen = progress.step, progress.steps, progress.loss
        assert points.setdefault(progress.flops, seen) == seen, "told twice, and differently"
        if kill_at is not None and progress.step >= kill_at:
            kill()

    return report


def lose():
    raise Lost


def by_rungs(corpus, spec, folder, killed=lambda asked, points: None):
    """Promoted from rung to rung; `killed` begins each evaluation and may leave states."""
    run, start = Run(), 0.0
    for rung in range(len(RUNGS)):
        asked = request(corpus, spec, rung, start_flops=start, state_dir=str(folder))
        points: dict[float, tuple] = {}
        killed(asked, points)
        run.results.append(plain(evaluate(asked, noted(points))))
        run.points.append(points)
        start = run.results[-1].trunk_flops
        run.trunks.append(kept(load_state(str(folder), lambda s: spent(s) == start)))  # noqa: B023
        assert not (folder / "branch").exists(), "the branch is dropped"
    return run


def spent(state):
    return state.numbers["meter"]["spent"]


def straight(corpus, spec, steps, monkeypatch):
    """To the top at once; the trunk's states after `steps` are looked at on the way."""
    run = Run()

    class Watch(States):
        def after_step(self, training):
            if training.steps in steps and not training.on_branch:
                run.trunks.append(kept(training.state()))

    monkeypatch.setattr(evaluation, "States", Watch)
    run.points.append({})
    asked = request(corpus, spec, len(RUNGS) - 1)
    run.results.append(plain(evaluate(asked, noted(run.points[0]))))
    monkeypatch.undo()
    return run


def assert_same_trunks(one, other):
    assert [state[0] for state in one.trunks] == [state[0] for state in other.trunks]
    for (step, tensors, numbers), (_, others, other_numbers) in zip(
        one.trunks, other.trunks, strict=True
    ):
        assert tensors.keys() == others.keys()
        for name, tensor in tensors.items():
            assert torch.equal(tensor, others[name]), (step, name)
        assert numbers == other_numbers, step


def assert_goes_straight(run, whole):
    """The top's result and the run's curve are those of the run that did not stop."""
    top, only = run.results[-1], whole.results[0]
    began = run.results[-2].trunk_flops
    own = (top.steps - run.trunks[-2][0]) / top.steps
    assert dataclasses.replace(top, flops=only.flops, optimizer_flops=only.optimizer_flops) == only
    assert top.flops == only.flops - began
    assert top.optimizer_flops == pytest.approx(only.optimizer_flops * own)
    # What the rungs cost beyond the run is their branches.
    ends = [b.flops + a.trunk_flops for a, b in zip(run.results, run.results[1:], strict=False)]
    ends = [run.results[0].flops, *ends]
    branches = sum(end - r.trunk_flops for end, r in zip(ends, run.results, strict=True))
    assert sum(r.flops for r in run.results) == top.trunk_flops + branches
    trunk = {}
    for result, points in zip(run.results[:-1], run.points, strict=False):
        trunk |= {f: p for f, p in points.items() if f <= result.trunk_flops}
    trunk |= run.points[-1]
    seen = {flops: (step, loss) for flops, (step, _, loss) in trunk.items()}
    assert seen == {flops: (step, loss) for flops, (step, _, loss) in whole.points[0].items()}


def middles(run, rung, with_branch):
    """The steps at which an evaluation is lost: on its trunk, and on its branch or not."""
    first = run.trunks[rung - 1][0] if rung else 0
    left, last = run.trunks[rung][0], run.results[rung].steps
    return [(first + left + 1) // 2] + ([(left + last + 1) // 2] if with_branch else [])


@pytest.mark.parametrize("number", where(range(len(SPECS)), new_method), ids=SPECS)
def test_a_run_is_one_however_it_stops(small_corpus, tmp_path, monkeypatch, caplog, number):
    torch.set_num_threads(1)
    spec = list(SPECS.values())[number]
    run = by_rungs(small_corpus, spec, tmp_path / "rungs")

    def killed(asked, points):
        with monkeypatch.context() as patch:
            patch.setattr(keeping, "STATE_SECONDS", 0.0)
            patch.setattr(evaluation, "discard_branch", lambda place: None)
            for step in middles(run, asked.rung, with_branch=number % 3 == 0):
                with pytest.raises(Lost):
                    evaluate(asked, noted(points, step, lose))

    caplog.clear()
    again = by_rungs(small_corpus, spec, tmp_path / "killed", killed)
    assert caplog.text.count("goes on from step") >= 2, "it began anew"
    assert again.results == run.results
    assert again.points == run.points
    assert_same_trunks(again, run)
    whole = straight(small_corpus, spec, [state[0] for state in run.trunks], monkeypatch)
    assert_same_trunks(whole, run)
    assert_goes_straight(run, whole)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def evaluate_and_die(asked, step):
    keeping.STATE_SECONDS = 0.0
    evaluate(asked, noted({}, step, die))


@pytest.mark.parametrize(
    "spec",
    [
        FFNSpec(d_ff=64, expert_width=16, depth=2, selection=ReLURouting()),
        FFNSpec(d_ff=4096, expert_width=1, selection=ProductKey(heads=2, k=4, key_dim=8)),
    ],
    ids=["relu", "sparse rows"],
)
def test_a_killed_process_is_taken_up_by_another(small_corpus, tmp_path, caplog, spec):
    torch.set_num_threads(1)
    run = by_rungs(small_corpus, spec, tmp_path / "rungs")
    # Its processes come from one that has imported torch, and computed nothing.
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["workers.evaluate"])

    def killed(asked, points):
        for step in middles(run, asked.rung, with_branch=asked.rung == 1):
            process = processes.Process(target=evaluate_and_die, args=(asked, step))
            process.start()
            process.join(WAIT_S)
            assert process.exitcode == -signal.SIGKILL
        caplog.clear()  # so that the last take-up alone is told

    again = by_rungs(small_corpus, spec, tmp_path / "killed", killed)
    assert "goes on from step" in caplog.text
    assert again.results == run.results
    assert_same_trunks(again, run)
    for points, others in zip(again.points, run.points, strict=True):
        assert points.items() <= others.items()
