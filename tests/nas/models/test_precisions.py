"""An export in half precision, compiled, and with its activations computed again."""

from __future__ import annotations

import drawn
import pytest
import torch
from depth import leading

pytestmark = pytest.mark.slow

every_kind = pytest.mark.parametrize("name", drawn.KINDS)
STATES = ("bias_B", "l1_coefficient", "mean_Q", "var_Q")


def states(model):
    return {n: b for n, b in model.named_buffers() if n.endswith(STATES)}


@pytest.fixture(scope="module")
def shifted(load, tmp_path_factory):
    """shifted(name): a model whose states are not the first ones, and its files, without code."""
    made = {}

    def model(name):
        if name not in made:
            full, folder = load(name), tmp_path_factory.mktemp("shifted")
            with torch.no_grad():
                for state in states(full).values():
                    state.add_(0.3)
            without_code(full, folder)
            made[name] = full, folder
        return made[name]

    return model


def without_code(model, folder):
    """Save what a class that is loaded already reads: its weights and configuration."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (type(model), type(model.config)):
            patch.setattr(kind, "_auto_class", None)
        model.save_pretrained(folder)


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_runs_trains_and_keeps_states_wide(
    load, ids, shifted, tmp_path, name, dtype
):
    full, folder = shifted(name)
    half = type(full).from_pretrained(folder, dtype=dtype)
    assert half(ids).logits.dtype == dtype
    for cast in (half, load(name).to(dtype), load(name).half(), load(name).bfloat16()):
        assert all(state.dtype == torch.float32 for state in states(cast).values())
    for key, state in states(half).items():
        assert torch.equal(state, states(full)[key])

    error = (half(ids).logits.float() - full(ids).logits).square().mean().sqrt()
    # A choice among many units of nearly one score turns on the last bit.
    assert error < 0.15 * full(ids).logits.square().mean().sqrt()
    assert half.generate(ids, max_new_tokens=3, min_new_tokens=3).shape == (1, 15)
    half.train()(ids, labels=ids).loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in half.parameters() if p.grad is not None)

    without_code(half, tmp_path)
    again = type(full).from_pretrained(tmp_path)
    for key, state in states(again).items():
        assert state.dtype == torch.float32 and torch.equal(state, states(full)[key])


def test_a_bias_moves_by_whole_steps_in_bfloat16(load, ids):
    model = load("bias", dtype=torch.bfloat16).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    with torch.no_grad():
        for state in states(model).values():
            state.fill_(0.5)
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    moved = torch.cat([(state - 0.5).abs() for state in states(model).values()])
    assert ((moved - 0.001).abs() < 1e-6).logical_or(moved == 0).all() and moved.any()


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(load, ids, name, dtype):
    model = load(name).train()
    with torch.autocast("cpu", dtype):
        loss = model(ids, labels=ids).loss
    loss.backward()
    want = load(name).train()(ids, labels=ids).loss
    assert loss.item() == pytest.approx(want.item(), rel=0.02)
    assert all(state.dtype == torch.float32 for state in states(model).values())


@every_kind
def test_checkpointing_changes_no_gradient_and_moves_states_once(load, ids, name):
    def trained(kind):
        model = load(name).train()
        if kind is not None:
            model.gradient_checkpointing_enable({"use_reentrant": kind == "reentrant"})
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
        losses = []
        for part in (ids, ids.flip(1)):  # two parts of one step
            loss = model(part, labels=part, use_cache=True).loss
            loss.backward()
            losses.append(loss.detach())
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
        return losses, grads, [b.clone() for b in model.buffers()]

    want = trained(None)
    for kind in ("reentrant", "not reentrant"):
        for one, other in zip(trained(kind), want, strict=True):
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_checkpointing_keeps_less_and_refuses_a_cache(load, ids):
    from transformers import DynamicCache

    model = load("dense").train()

    def kept():
        tensors = []
        noted = torch.autograd.graph.saved_tensors_hooks(tensors.append, lambda x: x)
        with noted:
            model(ids)
        return len(tensors)

    before = kept()
    model.gradient_checkpointing_enable()
    assert kept() < before / 2
    with pytest.raises(ValueError, match="would cache its tokens twice"):
        model(ids, past_key_values=DynamicCache(config=model.config))


def one_layer(model):
    """The model with its first layer alone: the others are traced alike."""
    model.model.proxy.layers = model.model.proxy.layers[:1]
    return model


@pytest.mark.parametrize("name", leading(drawn.METHODS, 3))
def test_compiled_it_computes_the_same(load, ids, name):
    model = one_layer(load(name))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


def test_a_dense_model_is_one_graph(load, ids):
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    for name, arguments in (("dense", {}), ("finedeep", {"attention_mask": mask})):
        torch._dynamo.reset()
        model = one_layer(load(name))
        whole = torch.compile(model, backend="eager", fullgraph=True)
        want, got = (run(ids, **arguments).logits[:, 3:] for run in (model, whole))
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
        program = torch.export.export(model, (ids,), strict=False)
        want, got = model(ids + 1).logits, program.module()(ids + 1).logits
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", leading(["bias", "dense"], 1))
def test_a_compiled_model_trains(load, ids, name):
    torch._dynamo.reset()
    grads = []
    for compiled in (False, True):
        model = one_layer(load(name)).train()
        run = torch.compile(model, backend="eager") if compiled else model
        run(ids, labels=ids).loss.backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_export_of_a_routed_model_says_why_not(load, ids):
    with pytest.raises(ValueError, match=r"torch\.export takes designs whose shapes"):
        torch.export.export(load("switch"), (ids,), strict=False)
