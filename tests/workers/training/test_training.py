"""Training to a FLOP level, evaluation, and every way a trial can end."""

from __future__ import annotations

import math

import pytest
import torch

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Progress, Recipe, Status
from search_space.cost import step_flops
from search_space.methods.hash import Hash
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers import evaluate as evaluation
from workers.evaluate import evaluate
from workers.training.loop import Training, build_proxy
from workers.training.measure import bits_per_byte, evaluate_quality

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=16, n_layers=2, n_heads=2, vocab_size=300, seq_len=32)
SPECS = {
    "dense": FFNSpec(d_ff=32),
    "topk": FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=2, balance_weight=0.01)),
    "hash": FFNSpec(d_ff=64, expert_width=16, selection=Hash(k=2)),
    "straight_through": FFNSpec(d_ff=64, expert_width=16, selection=StraightThrough()),
}


def request(corpus, spec=SPECS["dense"], steps=6.5, **changes):
    fields = {
        "evaluation": 7,
        "spec": spec,
        "backbone": BACKBONE,
        "recipe": Recipe(batch_size=4),
        "corpus_dir": str(corpus.dir),
        "until_flops": step_flops(spec, BACKBONE, 4) * steps,
        "eval_tokens": 1024,
    }
    return EvalRequest(**(fields | changes))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_one_seed_gives_identical_losses_and_another_does_not(small_corpus, spec):
    def run(seed):
        points: list[Progress] = []
        result = evaluate(request(small_corpus, spec, seed=seed), points.append)
        return [p.loss for p in points], result.bits_per_byte

    first, again, other = run(0), run(0), run(1)
    assert first == again
    assert first != other


def test_a_trial_spends_whole_steps_of_its_flops(small_corpus, tmp_path):
    points: list[Progress] = []
    asked = request(small_corpus, steps=6.5, checkpoint_dir=str(tmp_path / "trial"))
    result = evaluate(asked, points.append)
    assert result.status is Status.FINISHED, result.error
    assert result.steps == 6
    assert result.tokens == 6 * 4 * 32
    assert result.flops == pytest.approx(step_flops(asked.spec, BACKBONE, 4) * 6)
    assert result.flops <= asked.until_flops
    assert [p.step for p in points] == list(range(1, 7))
    assert points[-1].flops == pytest.approx(result.flops)
    assert {p.name for p in (tmp_path / "trial").iterdir()} == {"model.safetensors", "trial.json"}
    assert result.optimizer_flops > 0


def test_training_learns(small_corpus):
    few = evaluate(request(small_corpus, steps=1), lambda p: None)
    many = evaluate(request(small_corpus, steps=60), lambda p: None)
    assert many.bits_per_byte < few.bits_per_byte - 0.5


def test_a_budget_below_one_step_is_said_in_figures(small_corpus):
    result = evaluate(request(small_corpus, steps=0.9), lambda p: None)
    assert result.status is Status.FAILED
    assert "one step" in result.error
    assert "raise budget.trial_flops" in result.error


def test_divergence_is_its_own_ending(small_corpus, monkeypatch):
    monkeypatch.setattr("workers.training.loop.train_step", lambda *a: math.nan)
    result = evaluate(request(small_corpus), lambda p: None)
    assert result.status is Status.DIVERGED
    assert result.error == "the loss is nan at step 1"
    assert result.bits_per_byte is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError("no room"), Status.OUT_OF_MEMORY),
        (torch.OutOfMemoryError("CUDA out of memory"), Status.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail] can't allocate memory: 8 bytes"), Status.OUT_OF_MEMORY),
        (RuntimeError("shapes\ndiffer"), Status.FAILED),
        (KeyError("x"), Status.FAILED),
    ],
)
def test_what_goes_wrong_becomes_a_status_of_one_line(small_corpus, monkeypatch, error, status):
    def fail(*args):
        raise error

    monkeypatch.setattr(evaluation, "build_proxy", fail)
    result = evaluate(request(small_corpus), lambda p: None)
    assert result.status is status
    assert result.error
    assert "\n" not in result.error


def test_bits_per_byte_is_a_ratio_of_sums_with_its_error():
    g = torch.Generator().manual_seed(1)
    sizes = torch.randint(50, 150, (4000,), generator=g).double()
    nats = math.log(2) * (2.0 * sizes + 10 * torch.randn(4000, generator=g, dtype=torch.float64))
    quality = bits_per_byte(nats, sizes, n_tokens=4000 * 8)
    assert quality.bits_per_byte == pytest.approx(float(nats.sum() / sizes.sum() / math.log(2)))
    # Residuals of 10 bits on windows of 100 bytes: 0.1 / sqrt(4000).
    assert quality.standard_error == pytest.approx(0.1 / math.sqrt(4000), rel=0.05)
    assert quality.loss == pytest.approx(float(nats.sum()) / 32000)


def test_a_result_says_which_learning_rates_it_had(small_corpus):
    asked = request(small_corpus, steps=3, recipe=Recipe(batch_size=4, lr=0.02))
    result = evaluate(asked, lambda p: None)
    assert result.stats["rates"] == {"matrix_lr": asked.rates.matrix_lr, "lr": 0.02}


def test_an_untrained_proxy_scores_the_uniform_code(small_corpus):
    model = build_proxy(request(small_corpus), small_corpus)
    with torch.no_grad():
        model.embed.weight.zero_()
    quality = evaluate_quality(model, small_corpus, 1024, 32, "cpu")
    assert quality.loss == pytest.approx(math.log(300))


def test_the_straight_through_result_is_priced_by_its_measured_activity(small_corpus):
    result = evaluate(request(small_corpus, SPECS["straight_through"]), lambda p: None)
    assert len(result.activity) == 2
    assert all(0.25 <= a <= 1 for a in result.activity)
    from search_space.cost import model_cost

    mean = sum(result.activity) / 2
    expected = model_cost(SPECS["straight_through"], BACKBONE, mean).active_flops
    assert result.active_flops == pytest.approx(expected)
    names = result.stats["routing"]
    told = {"active", "load", "usage", "unevenness", "near_zero"}
    assert all(told <= set(stats) for stats in names.values())


def test_relu_routing_is_charged_for_what_it_reads_in_training(small_corpus):
    spec = FFNSpec(
        d_ff=128, expert_width=16, selection=ReLURouting(target_activity=0.125, l1_start=1e-8)
    )
    asked = request(small_corpus, spec, steps=30)
    result = evaluate(asked, lambda p: None)
    assert result.status is Status.FINISHED, result.error
    # Half of the experts are open at first, so the budget pays for fewer steps than planned.
    assert result.steps < 30
    assert result.flops <= asked.until_flops
    assert result.flops > 0.9 * asked.until_flops


def test_relu_routing_comes_near_its_target_within_two_warmups(small_corpus):
    """From the paper's start, 1e-8, the penalty would not have been felt by then."""
    torch.set_num_threads(1)
    spec = FFNSpec(d_ff=128, expert_width=16, selection=ReLURouting(target_activity=1 / 8))

    def activity(told: bool) -> float:
        asked = request(small_corpus, spec, steps=1000, recipe=Recipe(batch_size=4, warmup=20))
        model = build_proxy(asked, small_corpus)
        layers = [layer.ffn.layers[0].selection for layer in model.layers]
        if not told:
            for layer in layers:
                layer.l1_coefficient.fill_(1e-8)
        training = Training(model.train(), asked, small_corpus, lambda point: None)
        for _ in range(40):
            training.step()
        return sum(layer.training_activity for layer in layers) / len(layers)

    assert activity(told=True) < 0.2
    assert activity(told=False) > 0.3
