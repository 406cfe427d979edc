"""bfloat16 as mixed precision: near float32, float32 where it must be, and exact when resumed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe, Status
from search_space.cost import step_flops
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.straight_through import StraightThrough
from search_space.presets import PRESETS
from search_space.spec import FFNSpec
from workers import precision
from workers.evaluate import evaluate
from workers.kernels import bfloat16
from workers.kernels.settings import Backend, override
from workers.layers.declared import Declared
from workers.layers.norm import RMSNorm
from workers.layers.router import Router
from workers.model import ProxyLM
from workers.precision import (
    LEAST_GAIN,
    MOST_SHIFT,
    Shift,
    automatic,
    chosen,
    float32_products,
    mixed,
)
from workers.training import keeping
from workers.training.loop import Training, build_proxy, train_step

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=32, n_layers=2, n_heads=2, vocab_size=300, seq_len=32)
SPECS = {name: preset(BACKBONE) for name, preset in PRESETS.items()} | {
    "relu": FFNSpec(d_ff=64, expert_width=16, selection=ReLURouting()),
    "straight-through": FFNSpec(d_ff=64, expert_width=16, selection=StraightThrough()),
    "out-gate": FFNSpec(d_ff=64, expert_width=16, depth=2, output_gate=True, shared_width=16),
}
# A product's factors keep 8 bits each. A loss is a mean over 128 tokens and moves by some 1e-4 of
# itself; a gradient's direction turns by the factors' rounding, 2^-9 each, over the products
# between it and the loss.
LOSS, COSINE = 0.01, 0.98


@pytest.fixture(autouse=True)
def one_thread():
    """Small steps; and exactness is promised on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_model(spec, seed=0):
    """A proxy past its first steps: no matrix is zero."""
    torch.manual_seed(seed)
    model = ProxyLM(spec, BACKBONE).train()
    with torch.no_grad():
        for p in model.parameters():
            if not p.any():
                p.normal_(std=0.1)
        model.embed.weight.mul_(10)
    return model


def a_batch():
    ids = torch.randint(300, (4, 33), generator=torch.Generator().manual_seed(1)).numpy()
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def gradients(spec, asked, backend):
    with override(backend=backend):
        model = a_model(spec)
        loss = train_step(model, *a_batch(), "cpu", asked)
    grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return float(loss), {n: g.to_dense() if g.is_sparse else g for n, g in grads.items()}


@pytest.mark.parametrize("backend", [Backend.NUMBA, Backend.TORCH])
@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_step_in_bfloat16_is_near_one_in_float32(spec, backend):
    loss, grads = gradients(spec, "float32", backend)
    near_loss, near = gradients(spec, "bfloat16", backend)
    assert near_loss != loss, "nothing ran in bfloat16"
    assert near_loss == pytest.approx(loss, rel=LOSS)
    assert near.keys() == grads.keys()
    assert {g.dtype for g in near.values()} == {torch.float32}
    ours, theirs = (torch.cat([g.flatten() for g in each.values()]) for each in (near, grads))
    assert torch.cosine_similarity(ours, theirs, dim=0) > COSINE
    for name in ("layers.0.attention.qkv_3DD", "embed.weight"):
        assert torch.cosine_similarity(near[name].flatten(), grads[name].flatten(), dim=0) > COSINE


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_selects_sees_float32_alone(spec):
    model, seen = a_model(spec), []

    def note(layer, given, found):
        assert not torch.is_autocast_enabled("cpu")
        seen.append((given[0].dtype, found))

    for layer in model.modules():
        if isinstance(layer, Declared) and type(layer).__name__.endswith("Selection"):
            layer.register_forward_hook(note)
        elif isinstance(layer, Router):
            layer.register_forward_hook(lambda layer, given, found: seen.append((found.dtype, 0)))
    train_step(model, *a_batch(), "cpu", "bfloat16")
    assert seen
    assert {dtype for dtype, _ in seen} == {torch.float32}
    routings = [found.routing for _, found in seen if found]
    weights = [w for r in routings for name in ("weight_P", "weight_TB") if hasattr(r, name)
               and (w := getattr(r, name)) is not None]  # fmt: skip
    assert {w.dtype for w in weights} <= {torch.float32}


def test_products_run_in_bfloat16_and_the_rest_does_not(monkeypatch):
    model, found, kinds = a_model(SPECS["dense"]), set(), set()
    of_sum = RMSNorm.of_sum

    def noting(*given, **options):
        normed = of_sum(*given, **options)
        found.update(x.dtype for x in normed)
        return normed

    monkeypatch.setattr(RMSNorm, "of_sum", noting)

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function in (torch.ops.aten.mm.default, torch.ops.aten.mm.out):
                kinds.add(args[0].dtype)
            return function(*args, **(kwargs or {}))

    with Watch(), mixed("bfloat16", "cpu"):
        model(torch.from_numpy(a_batch()[0]))
    assert found == {torch.float32}
    assert kinds == {torch.bfloat16}


def a_request(corpus, spec, **changes):
    fields = {
        "evaluation": 7,
        "spec": spec,
        "backbone": BACKBONE,
        "recipe": Recipe(batch_size=4, precision="bfloat16"),
        "corpus_dir": str(corpus.dir),
        "until_flops": step_flops(spec, BACKBONE, 4) * 9.5,
        "eval_tokens": 1024,
    }
    return EvalRequest(**(fields | changes))


@pytest.fixture
def with_bfloat16(monkeypatch):
    """A CPU that has it: torch computes it on any, where there are no instructions slowly."""
    found = bfloat16.instructions() or "avx512_bf16"
    monkeypatch.setattr(precision, "instructions", lambda: found)


class Lost(BaseException):
    """Ends a worker as a kill does."""


@pytest.mark.usefixtures("with_bfloat16")
@pytest.mark.parametrize("name", ["dense", "olmoe", "pkm", "out-gate"])
def test_a_run_that_was_killed_ends_as_one_that_was_not(small_corpus, tmp_path, monkeypatch, name):
    monkeypatch.setattr(keeping, "STATE_SECONDS", 0.0)
    asked = a_request(small_corpus, SPECS[name])
    whole = evaluate(asked, lambda point: None)
    assert whole.status is Status.FINISHED, whole.error
    asked = replace(asked, state_dir=str(tmp_path / "states"))
    for lost_at in (3, 8):
        training = Training(build_proxy(asked, small_corpus), asked, small_corpus, print)
        states = keeping.States(training)
        states.take_up(training)

        def hook(training, states=states, lost_at=lost_at):
            states.after_step(training)
            if training.steps == lost_at:
                raise Lost

        with suppress(Lost):
            training.run(hook, states.at_branch)
        assert training.steps == lost_at
        assert {t.dtype for t in training.state().tensors.values() if t.is_floating_point()} == {
            torch.float32
        }
    resumed = evaluate(asked, lambda point: None)
    assert (resumed.loss, resumed.windows) == (whole.loss, whole.windows)
    assert resumed.steps == whole.steps == 9


@pytest.mark.usefixtures("with_bfloat16")
def test_a_state_of_another_precision_is_refused(small_corpus):
    asked = a_request(small_corpus, SPECS["dense"])
    other = replace(asked, recipe=replace(asked.recipe, precision="float32"))
    state = Training(build_proxy(asked, small_corpus), asked, small_corpus, print).state()
    training = Training(build_proxy(other, small_corpus), other, small_corpus, print)
    with pytest.raises(ValueError, match="goes on from its own state: its recipe is"):
        training.take_up(state)
    assert "precision" not in other.identity()["recipe"], "older states have no such word"
    assert asked.identity()["recipe"]["precision"] == "bfloat16"


@pytest.mark.usefixtures("with_bfloat16")
def test_a_result_names_its_precision(small_corpus):
    asked = a_request(small_corpus, SPECS["dense"])
    assert " cpu x1 bfloat16, kernels: " in evaluate(asked, lambda point: None).backend
    for word in ("float32", "auto"):
        recipe = replace(asked.recipe, precision=word)
        result = evaluate(replace(asked, recipe=recipe), lambda point: None)
        named = " bfloat16" if chosen(word, "cpu", 1) == "bfloat16" else ""
        assert f" cpu x1{named}, kernels: " in result.backend


def cpu_with(monkeypatch, found="avx512_bf16", shift=None, gain=2.0):
    monkeypatch.setattr(precision, "instructions", lambda: found)
    monkeypatch.setitem(precision.SHIFTS, "avx512_bf16", shift)
    monkeypatch.setattr(precision, "measured_gain", lambda threads: gain)


@pytest.mark.parametrize(
    ("shift", "gain", "found"),
    [
        (0.001, 2.0, "bfloat16"),
        (-0.001, 2.0, "bfloat16"),
        (0.001, LEAST_GAIN - 0.01, "float32"),  # not faster
        (MOST_SHIFT + 1e-4, 2.0, "float32"),  # noisier
        (float("nan"), 2.0, "float32"),
        (None, 2.0, "float32"),  # not measured
    ],
)
def test_auto_on_a_cpu_needs_both_measurements(monkeypatch, shift, gain, found):
    cpu_with(monkeypatch, shift=None if shift is None else Shift(shift, "a test"), gain=gain)
    assert chosen("auto", "cpu", 1) == found
    told, why = automatic("cpu", 1)
    assert told == found and "avx512_bf16" in why and "\n" not in why
    assert chosen("float32", "cpu", 1) == "float32"
    assert chosen("bfloat16", "cpu", 1) == "bfloat16"


def test_a_cpu_without_bfloat16_refuses_it_and_auto_stays_float32(monkeypatch, small_corpus):
    cpu_with(monkeypatch, found="", shift=Shift(0.0, "a test"))
    assert chosen("auto", "cpu", 1) == "float32"
    result = evaluate(a_request(small_corpus, SPECS["dense"]), lambda point: None)
    assert (result.status, result.steps) == (Status.FAILED, 0)
    assert result.error == (
        "recipe.precision: bfloat16 needs a device that has it: this CPU has none of AVX512_BF16, "
        "AMX and Arm's BF16; set it to auto or float32"
    )


def test_auto_where_no_measurement_can_be_kept_is_float32(monkeypatch):
    cpu_with(monkeypatch, shift=Shift(0.0, "a test"))

    def measured_gain(threads):
        raise OSError("read-only")

    monkeypatch.setattr(precision, "measured_gain", measured_gain)
    assert chosen("auto", "cpu", 1) == "float32"


@pytest.mark.parametrize("has", [True, False])
def test_a_gpu_takes_bfloat16_where_it_has_it(monkeypatch, has):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Test GPU")
    assert chosen("auto", "cuda", 1) == ("bfloat16" if has else "float32")
    if not has:
        said = "needs a device that has it: Test GPU has compute capability 7.5, below 8.0; set"
        with pytest.raises(ValueError, match=said):
            chosen("bfloat16", "cuda", 1)


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no GPU is seen here"):
        chosen("bfloat16", "cuda", 1)


def test_the_gain_is_measured_once_a_machine(monkeypatch, tmp_path):
    gains = iter([1.9, 1.2])
    monkeypatch.setattr(bfloat16, "gain", lambda: next(gains))
    with override(cache=tmp_path):
        found = [bfloat16.measured_gain(1), bfloat16.measured_gain(1), bfloat16.measured_gain(2)]
    assert found == [1.9, 1.9, 1.2]


@pytest.mark.skipif(not bfloat16.instructions(), reason="this CPU has no bfloat16")
def test_the_gain_is_that_of_products(monkeypatch):
    monkeypatch.setattr(bfloat16, "REPEATS", 3)
    assert 0.1 < bfloat16.gain() < 100


def test_a_gpus_record_says_how_float32_is_multiplied():
    before = torch.get_float32_matmul_precision()
    try:
        assert (float32_products("cpu"), float32_products("cuda:1")) == ("", "ieee")
        torch.set_float32_matmul_precision("high")
        assert float32_products("cuda") == "tf32"
    finally:
        torch.set_float32_matmul_precision(before)
