"""What an evaluation goes on from: its own branch, its run's trunk, or nothing."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe, Status
from search_space.cost import step_flops
from search_space.spec import FFNSpec
from workers import evaluate as evaluation
from workers.evaluate import evaluate
from workers.precision import settled
from workers.training import keeping
from workers.training.loop import Training, build_proxy
from workers.training.losses import Diverged
from workers.training.state import branch_of, load_state, save_state

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)
SPEC = FFNSpec(d_ff=32)
PRICE = step_flops(SPEC, BACKBONE, 2)
LOW, HIGH = 10, 30  # steps up to the rungs; the branches leave after 7 and 21


def request(corpus, place, steps, **changes):
    fields = {
        "evaluation": steps,
        "attempt": 3,
        "number": 5,
        "spec": SPEC,
        "backbone": BACKBONE,
        "recipe": Recipe(batch_size=2, warmup=2),
        "corpus_dir": str(corpus.dir),
        "until_flops": PRICE * steps,
        "run_flops": PRICE * HIGH,
        "curve_flops": PRICE * 2,
        "eval_tokens": 256,
        "state_dir": str(place) if place else "",
        "keep_trunk": True,
    }
    return EvalRequest(**fields | changes)


def run(asked, points=None):
    result = evaluate(asked, lambda point: points is not None and points.append(point))
    assert result.status is Status.FINISHED, result.error
    return replace(result, seconds=0.0)


def states(place):
    return sorted(path.stem for path in place.rglob("*.json"))


@pytest.fixture
def low(small_corpus, tmp_path):
    """The lower rung's evaluation is done; its trunk lies in `run`."""
    return run(request(small_corpus, tmp_path / "run", LOW))


def test_what_a_rung_says(small_corpus, tmp_path, low):
    assert (low.evaluation, low.attempt, low.steps) == (LOW, 3, LOW)
    assert low.trunk_flops == 7 * PRICE and low.flops == LOW * PRICE
    assert states(tmp_path / "run") == ["step-7"]
    points = []
    high = run(request(small_corpus, tmp_path / "run", HIGH, start_flops=low.trunk_flops), points)
    assert (high.steps, high.tokens) == (HIGH, HIGH * 2 * 32)
    assert high.trunk_flops == 21 * PRICE and high.flops == (HIGH - 7) * PRICE
    assert high.optimizer_flops == pytest.approx(low.optimizer_flops / LOW * (HIGH - 7))
    assert [point.step for point in points] == list(range(8, HIGH + 1, 2))
    assert {(p.evaluation, p.attempt, p.steps) for p in points} == {(HIGH, 3, HIGH)}
    assert states(tmp_path / "run") == ["step-21", "step-7"]


def test_windows_are_the_nats_that_the_loss_is_made_of(low):
    assert len(low.windows) == 256 // 32
    assert sum(low.windows) / 256 == pytest.approx(low.loss, rel=1e-12)
    assert json.loads(json.dumps(low.windows)) == low.windows


def test_a_promotion_trains_the_new_steps_alone(small_corpus, tmp_path, low, monkeypatch):
    trained = []
    step = Training.step
    monkeypatch.setattr(Training, "step", lambda self: (trained.append(self.steps), step(self)))
    run(request(small_corpus, tmp_path / "run", HIGH, start_flops=low.trunk_flops))
    assert trained == list(range(7, HIGH))


@pytest.mark.parametrize("gone", ["trunk", "folder"])
def test_a_promotion_without_a_trunk_says_so_and_costs_no_more(
    small_corpus, tmp_path, low, caplog, gone
):
    asked = request(small_corpus, tmp_path / "run", HIGH, start_flops=low.trunk_flops)
    points, again = [], []
    with caplog.at_level(logging.WARNING):
        whole = run(replace(asked, state_dir=str(tmp_path / "other")), again)
    assert "trial 5: no state of its trunk" in caplog.text
    assert "it trains again from step 0" in caplog.text
    caplog.clear()
    if gone == "trunk":
        (tmp_path / "run" / "step-7.safetensors").write_bytes(b"no")
    else:
        assert keeping.discard_states(str(tmp_path / "run"))
    assert run(asked, points) == whole
    assert "it trains again from step 0" in caplog.text
    assert whole.flops == (HIGH - 7) * PRICE
    assert [replace(p, seconds=0.0) for p in points] == [replace(p, seconds=0.0) for p in again]
    assert min(point.flops for point in points) > low.trunk_flops


def test_a_usual_promotion_warns_of_nothing(small_corpus, tmp_path, low, caplog):
    with caplog.at_level(logging.WARNING):
        run(request(small_corpus, tmp_path / "run", HIGH, start_flops=low.trunk_flops))
    assert caplog.text == ""


def test_a_trunk_that_is_too_long_is_not_taken(small_corpus, tmp_path, low):
    """A rung that is done anew finds what a higher one has kept."""
    run(request(small_corpus, tmp_path / "run", HIGH, start_flops=low.trunk_flops))
    (tmp_path / "run" / "step-7.json").unlink()
    assert run(request(small_corpus, tmp_path / "run", LOW)) == low
    assert states(tmp_path / "run") == ["step-21", "step-7"], "the one beyond stays, too"


def test_a_state_at_the_branch_is_not_beyond_it_by_rounding(small_corpus, tmp_path):
    """The level that pays for a step pays for it again, whatever the share's float is."""
    for decay in (0.1, 0.3, 0.7):
        place = tmp_path / str(decay)
        recipe = Recipe(batch_size=2, warmup=2, decay=decay)
        asked = request(small_corpus, place, LOW, recipe=recipe)
        training = Training(build_proxy(asked, small_corpus), asked, small_corpus, lambda p: None)
        training.run(at_branch=lambda at: save_state(at.state(), at.request.state_dir))
        state = load_state(str(place))
        assert state.step == round(LOW * (1 - decay))
        other = Training(build_proxy(asked, small_corpus), asked, small_corpus, lambda p: None)
        keeping.States(other).take_up(other)
        assert other.steps == state.step


def test_another_rungs_branch_is_passed_over(small_corpus, tmp_path, low):
    place = str(tmp_path / "run")
    asked = request(small_corpus, place, HIGH, start_flops=low.trunk_flops)
    other = replace(asked, until_flops=asked.until_flops * 1.5)
    training = Training(build_proxy(other, small_corpus), other, small_corpus, lambda p: None)
    training.run()
    save_state(training.state(), branch_of(place))
    expected = run(replace(asked, state_dir=str(tmp_path / "other")))
    assert run(asked) == expected
    assert not (tmp_path / "run" / "branch").exists()


def test_the_trunk_survives_the_branch_and_states_are_few(small_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(keeping, "STATE_SECONDS", 0.0)
    monkeypatch.setattr(evaluation, "discard_branch", lambda place: None)
    place = tmp_path / "run"
    run(request(small_corpus, place, HIGH))
    assert {path.name for path in place.glob("*.json")} == {"step-20.json", "step-21.json"}
    branch = {path.name for path in (place / "branch").glob("*.json")}
    assert branch == {"step-29.json", "step-30.json"}
    assert load_state(str(place)).numbers["schedule"] == {}
    assert keeping.discard_states(str(place))
    assert not place.exists()


def test_a_trunk_that_nobody_needs_is_not_kept(small_corpus, tmp_path):
    run(request(small_corpus, tmp_path / "run", LOW, keep_trunk=False))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("decay", [0.0, 0.04, 1.0])
def test_a_run_without_a_branch_or_without_a_trunk(small_corpus, tmp_path, decay):
    """With no branch step the trunk itself is measured, and its curve goes on all the same."""
    recipe = Recipe(batch_size=2, warmup=2, decay=decay)
    more = {"recipe": recipe, "curve_flops": PRICE * 4}
    low = run(request(small_corpus, tmp_path / "run", LOW + 0.3, **more))
    assert low.trunk_flops == {0.0: LOW, 0.04: 9, 1.0: 0}[decay] * PRICE
    points, whole = [], []
    high = run(
        request(small_corpus, tmp_path / "run", HIGH, start_flops=low.trunk_flops, **more), points
    )
    straight = run(request(small_corpus, "", HIGH, **more), whole)
    assert (high.windows, high.steps) == (straight.windows, HIGH)
    assert high.flops == straight.flops - low.trunk_flops
    told = [(p.step, p.loss) for p in whole if p.flops > low.trunk_flops]
    assert [(p.step, p.loss) for p in points] == told


def test_the_states_of_a_run_may_lie_at_a_url(small_corpus):
    place = "memory://runs/a"
    low = run(request(small_corpus, place, LOW))
    high = run(request(small_corpus, place, HIGH, start_flops=low.trunk_flops))
    straight = run(request(small_corpus, "", HIGH))
    assert high.windows == straight.windows
    assert keeping.discard_states(place) and load_state(place) is None


def test_a_diverged_run_says_what_it_spent_to_the_step(small_corpus, tmp_path, low, monkeypatch):
    step = Training.step

    def diverge(self):
        if self.steps == 12:
            raise Diverged("the loss is nan at step 13")
        step(self)

    monkeypatch.setattr(Training, "step", diverge)
    asked = request(small_corpus, tmp_path / "run", HIGH, start_flops=low.trunk_flops)
    result = evaluate(asked, lambda point: None)
    assert (result.status, result.flops) == (Status.DIVERGED, 5 * PRICE)
    assert (result.evaluation, result.attempt) == (HIGH, 3)
    monkeypatch.setattr(Training, "step", lambda self: (_ for _ in ()).throw(Diverged("at once")))
    assert evaluate(replace(asked, state_dir=""), lambda point: None).flops == 0


def test_a_manifest_has_the_rung(small_corpus, tmp_path):
    asked = request(small_corpus, "", LOW, rung=1, checkpoint_dir=str(tmp_path / "s" / "trial-5"))
    assert run(asked).checkpoint == "trial-5"
    manifest = json.loads((tmp_path / "s" / "trial-5" / "trial.json").read_text())
    assert manifest["format"] == 2
    assert (manifest["train_flops"], manifest["rung"]) == (asked.until_flops, 1)
    # In the precision that "auto" is here.
    assert manifest | settled(asked).identity() == manifest


def test_nothing_but_the_trunks_states_stays(small_corpus, tmp_path, low):
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert files == {"step-7.json", "step-7.safetensors"}
