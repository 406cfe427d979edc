"""Training that is taken up from a saved state is the training that never stopped, to the bit."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe, Status
from search_space.cost import step_flops
from search_space.errors import InputError
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.topk import TopK
from search_space.presets import PRESETS
from search_space.spec import FFNSpec
from workers.checkpoint import save_checkpoint
from workers.corpus import Corpus
from workers.evaluate import evaluate
from workers.layers.declared import Declared
from workers.training.carried import Carried
from workers.training.keeping import discard_states
from workers.training.loop import Training, build_proxy
from workers.training.measure import evaluate_quality
from workers.training.state import load_state, save_state

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=16, n_layers=2, n_heads=2, vocab_size=300, seq_len=32)
STEPS = 9
SPECS = {name: preset(BACKBONE) for name, preset in PRESETS.items()} | {
    "biased": FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=2, bias_rate=0.1)),
    "sparse rows": FFNSpec(
        d_ff=4096, expert_width=1, selection=ProductKey(heads=2, k=4, key_dim=8)
    ),
    "relu": FFNSpec(d_ff=64, expert_width=16, depth=2, selection=ReLURouting()),
    "out-gate": FFNSpec(d_ff=64, expert_width=16, depth=2, output_gate=True, shared_width=16),
}


def make_request(corpus, spec, steps=STEPS):
    return EvalRequest(
        evaluation=7,
        spec=spec,
        backbone=BACKBONE,
        recipe=Recipe(batch_size=4),
        corpus_dir=str(corpus.dir),
        until_flops=step_flops(spec, BACKBONE, 4) * (steps + 0.5),
        run_flops=step_flops(spec, BACKBONE, 4) * STEPS,
        eval_tokens=1024,
    )


def start(request, corpus, points):
    return Training(build_proxy(request, corpus), request, corpus, points.append)


class Lost(BaseException):
    """Ends a worker as a kill does: nothing is caught, nothing cleaned up."""


def lost_at(step):
    def hook(training):
        if training.steps == step:
            raise Lost

    return hook


def timeless(numbers):
    """What training carries, but for the seconds it took."""
    return numbers | {"visit": numbers["visit"] | {"seconds": 0.0}}


def seen(training, points):
    """All that a training left, for comparison."""
    state = training.state()
    quality = evaluate_quality(training.model, training.corpus, 1024, 32, "cpu")
    curve = [replace(point, seconds=0.0) for point in points]
    return state.step, state.tensors, timeless(state.numbers), quality, curve


def assert_same(one, other):
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, tensor in one[1].items():
        assert torch.equal(tensor, other[1][name]), name
    assert one[2:] == other[2:]


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_training_taken_up_again_is_identical(small_corpus, tmp_path, spec):
    torch.set_num_threads(1)
    request = make_request(small_corpus, spec)
    points = []
    whole = start(request, small_corpus, points)
    whole.run()
    parts = []
    for stop in (1, 4, 7, 0):
        part = start(request, small_corpus, parts)
        state = load_state(str(tmp_path))
        if state is not None:
            part.take_up(state)
            assert timeless(part.state().numbers) == timeless(state.numbers)
        with suppress(Lost):
            part.run(lost_at(stop))
        assert part.on_branch or stop in (1, 4), "the later parts end on the branch"
        save_state(part.state(), str(tmp_path))
    assert_same(seen(part, parts), seen(whole, points))


def test_whatever_a_training_carries_is_declared(small_corpus):
    """A number that a step changes and no state has would be lost: nothing of the kind is there."""
    for spec in SPECS.values():
        request = make_request(small_corpus, spec)
        training = start(request, small_corpus, [])
        training.model.train()
        parts = {
            *training.model.modules(),
            *training.optimizers.optimizers,
            *training.carriers().values(),
        }

        def numbers(part):
            return {k: v for k, v in vars(part).items() if isinstance(v, (int, float))}

        before = {part: numbers(part) for part in parts}
        training.step()
        for part in parts:
            changed = {k for k, v in numbers(part).items() if before[part].get(k) != v}
            declared = set(part.carried()) if isinstance(part, (Carried, Declared)) else set()
            assert changed <= declared, (spec.label, type(part).__name__, changed - declared)


def test_only_the_newest_two_states_stay_and_no_draft(small_corpus, tmp_path):
    training = start(make_request(small_corpus, SPECS["dense"]), small_corpus, [])
    training.model.train()
    for _ in range(4):
        training.step()
        save_state(training.state(), str(tmp_path))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"step-{n}.{s}" for n in (3, 4) for s in ("json", "safetensors")}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "step-2.safetensors").write_bytes(b"no"),
        lambda f: (f / "step-2.safetensors").unlink(),
        lambda f: (f / "step-2.json").write_text("{"),
        lambda f: (f / "step-2.json").write_text("{}"),
        lambda f: (f / "step-2.json").write_text("[]"),
        lambda f: edit(f / "step-2.json", '"step": 2', '"step": 3'),
        lambda f: edit(f / "step-2.json", '"spent": ', '"spent": 9'),
    ],
)
def test_a_damaged_state_falls_back_to_the_one_before_and_says_so(
    small_corpus, tmp_path, caplog, damage
):
    training = start(make_request(small_corpus, SPECS["dense"]), small_corpus, [])
    training.model.train()
    for _ in range(2):
        training.step()
        save_state(training.state(), str(tmp_path))
    damage(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert load_state(str(tmp_path)).step == 1
    assert "step-2 is damaged" in caplog.text


def test_a_state_lives_at_any_fsspec_url(small_corpus):
    training = start(make_request(small_corpus, SPECS["dense"]), small_corpus, [])
    training.model.train()
    training.step()
    save_state(training.state(), "memory://states/a")
    again = start(make_request(small_corpus, SPECS["dense"]), small_corpus, [])
    again.take_up(load_state("memory://states/a"))
    assert again.steps == 1
    assert load_state("memory://states/none") is None


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"spec": SPECS["biased"]}, {"number": 3}, {"study": "x"}, {"until_flops": 1e9}],
)
def test_a_state_of_another_training_is_refused(small_corpus, change):
    request = make_request(small_corpus, SPECS["dense"])
    training = start(request, small_corpus, [])
    training.run()  # on its branch, so that another rung's is refused, too
    state = training.state()
    other = start(replace(request, **change), small_corpus, [])
    with pytest.raises(
        InputError, match=f"its own state: its {next(iter(change)).replace('number', 'trial')} is"
    ):
        other.take_up(state)


def test_the_corpus_is_known_by_its_content(small_corpus):
    assert Corpus.open(small_corpus.dir).meta["hash"] == small_corpus.dir.name


@pytest.mark.parametrize("lost", [5, 8], ids=["trunk", "branch"])
@pytest.mark.parametrize("name", ["dense", "relu"])
def test_an_evaluation_goes_on_from_the_state_of_a_lost_worker(
    small_corpus, tmp_path, monkeypatch, name, lost
):
    monkeypatch.setattr("workers.training.keeping.STATE_SECONDS", 0.0)
    place = tmp_path / ".trial-0.state"
    request = make_request(small_corpus, SPECS[name])
    whole = evaluate(request, lambda point: None)

    def lose(point):
        if point.step == lost:
            raise Lost

    monkeypatch.setattr("workers.evaluate.discard_branch", lambda place: None)
    with pytest.raises(Lost):
        evaluate(replace(request, state_dir=str(place)), lose)
    monkeypatch.undo()
    points = []
    again = evaluate(replace(request, state_dir=str(place)), points.append)
    assert points[0].step == lost, "it began anew"
    assert replace(again, seconds=0.0) == replace(whole, seconds=0.0)
    assert not (place / "branch").exists()
    assert not [path for path in place.iterdir() if not path.name.startswith("step-")]


def test_a_state_that_cannot_be_kept_costs_a_warning_alone(
    small_corpus, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr("workers.training.keeping.STATE_SECONDS", 0.0)
    (tmp_path / "file").touch()
    request = make_request(small_corpus, SPECS["dense"], steps=2)
    result = evaluate(replace(request, state_dir=str(tmp_path / "file" / "x")), lambda point: None)
    assert result.status is Status.FINISHED, result.error
    assert "could not be kept" in caplog.text


@pytest.mark.parametrize("name", ["a::b", "x://y", "a b#c?d%20"])
def test_a_path_is_a_path_whatever_its_letters(small_corpus, tmp_path, name):
    beside = tmp_path / name.partition("::")[0].partition(":")[0]
    beside.mkdir()
    (beside / "mine.txt").write_text("keep me")
    place = tmp_path / name / ".trial-0.state"
    training = start(make_request(small_corpus, SPECS["dense"]), small_corpus, [])
    training.model.train()
    training.step()
    save_state(training.state(), str(place))
    assert {path.name for path in place.iterdir()} == {"step-1.json", "step-1.safetensors"}
    assert load_state(str(place)).step == 1
    assert discard_states(str(place))
    assert not place.exists()
    assert (beside / "mine.txt").read_text() == "keep me"


def test_states_go_and_what_others_put_beside_them_stays(small_corpus, tmp_path):
    training = start(make_request(small_corpus, SPECS["dense"]), small_corpus, [])
    training.model.train()
    training.step()
    save_state(training.state(), str(tmp_path))
    (tmp_path / "step-9.json.0123abcd").write_text("a draft of a worker that was killed")
    (tmp_path / "mine.txt").write_text("keep me")
    assert discard_states(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert not discard_states(str(tmp_path))
    assert not discard_states("")


def test_states_make_room_for_the_weights(small_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("workers.training.keeping.STATE_SECONDS", 0.0)
    place, seen = tmp_path / ".trial-0.state", []
    request = replace(
        make_request(small_corpus, SPECS["dense"], steps=2),
        state_dir=str(place),
        checkpoint_dir=str(tmp_path / "trial-0"),
    )

    def full(*arguments):
        seen.append(sorted(path.name for path in place.rglob("*.json")))
        if place.exists():
            raise OSError(28, "No space left on device")
        return save_checkpoint(*arguments)

    monkeypatch.setattr("workers.evaluate.save_checkpoint", full)
    result = evaluate(request, lambda point: None)
    assert seen == [["step-1.json", "step-2.json"], ["step-1.json"], []]
    assert result.checkpoint == "trial-0" and "checkpoint_error" not in result.stats


def test_the_seconds_of_a_trial_are_those_of_all_its_workers(small_corpus, tmp_path):
    request = replace(make_request(small_corpus, SPECS["dense"], 2), state_dir=str(tmp_path / "s"))
    training = start(request, small_corpus, [])
    training.step()
    training.visit.began -= 1000.0
    save_state(training.state(), request.state_dir)
    points = []
    result = evaluate(request, points.append)
    assert result.seconds >= points[-1].seconds >= 1000.0
