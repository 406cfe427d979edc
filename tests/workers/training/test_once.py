"""What a GPU's step makes of all weights at once: the same bits as each layer made for itself."""

from __future__ import annotations

import contextlib

import pytest
import torch

from search_space.backbone import Backbone
from search_space.presets import PRESETS
from workers.kernels.place import as_on
from workers.kernels.prepared import prepared
from workers.kernels.settings import Backend, override
from workers.model import ProxyLM
from workers.training import loop, once
from workers.training.once import PARTS
from workers.training.parts import InParts

BACKBONE = Backbone(d_model=32, n_layers=2, n_heads=2, vocab_size=50, seq_len=8)
# Dense, gated with a shared expert, with output gates and depth, a table of rows.
NAMES = ("dense", "deepseek_moe", "finedeep", "pkm")


@pytest.fixture(autouse=True)
def a_gpus_forms_in_torch():
    with as_on("cuda"), override(backend=Backend.TORCH):
        yield


def a_model(name="dense"):
    """A proxy none of whose matrices is zero."""
    torch.manual_seed(0)
    model = ProxyLM(PRESETS[name](BACKBONE), BACKBONE).train()
    with torch.no_grad():
        for p in model.parameters():
            if not p.any():
                p.normal_(std=0.1)
    return model


def a_batch():
    ids = torch.randint(50, (4, 9), generator=torch.Generator().manual_seed(1)).numpy()
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def results(name, step=loop.train_step):
    model = a_model(name)
    loss = step(model, *a_batch(), "cpu", "bfloat16")
    return {"loss": loss} | {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def assert_same_without(monkeypatch, name, step):
    """The same bits as where each use of a weight rounds it."""
    got = results(name, step)
    monkeypatch.setattr(loop, "once", lambda model: contextlib.nullcontext())
    want = results(name, step)
    assert got.keys() == want.keys()
    for key, tensor in want.items():
        assert got[key].dtype == tensor.dtype
        assert torch.equal(got[key], tensor), key
    assert {g.dtype for key, g in got.items() if key != "loss"} == {torch.float32}


@pytest.mark.parametrize("name", NAMES)
def test_a_step_has_the_bits_of_one_that_rounds_each_use(monkeypatch, name):
    assert_same_without(monkeypatch, name, loop.train_step)


def test_so_has_a_batch_in_parts(monkeypatch):
    assert_same_without(monkeypatch, "dense", InParts(3))


def test_every_weight_of_a_product_is_rounded_once_and_no_other():
    model = a_model("olmoe")
    with torch.autocast("cpu", torch.bfloat16), once.once(model):
        narrow = {n for n, p in model.named_parameters() if prepared(p).dtype == torch.bfloat16}
        gain = model.layers[0].attention.norm.weight
        assert prepared(gain).shape == (PARTS, 32)
        assert torch.equal(prepared(gain)[3], gain)
    kinds = ("embed.weight", "qkv_3DD", "out_DD", "keys_BGD", "gates_BGD", "values_BGD")
    assert narrow == {n for n, _ in model.named_parameters() if n.endswith(kinds)}
    assert all(prepared(p) is p for p in model.parameters())


def test_a_cpu_and_float32_leave_weights_as_they_are():
    model = a_model()
    with once.once(model):
        assert {prepared(p).dtype for p in model.parameters()} == {torch.float32}
    with as_on("cpu"), torch.autocast("cpu", torch.bfloat16), once.once(model):
        assert all(prepared(p) is p for p in model.parameters())


def test_weights_that_processes_share_are_left_to_their_layers(monkeypatch):
    model = a_model()
    monkeypatch.setattr(once, "is_sharded", lambda p: p is model.head)
    with torch.autocast("cpu", torch.bfloat16), once.once(model):
        assert all(prepared(p) is p for p in model.parameters())


def test_the_gradients_of_gains_are_the_sums_of_their_parts():
    model = a_model()
    gains = model.layers[0].attention.norm.weight, model.layers[0].attention.q_norm.weight
    parts = [torch.randn(PARTS, len(gain)) for gain in gains]
    with once.once(model):
        sum((prepared(g) * p).sum() for g, p in zip(gains, parts, strict=True)).backward()
    for gain, part in zip(gains, parts, strict=True):
        torch.testing.assert_close(gain.grad, part.sum(0))
    assert model.norm.weight.grad is None


def test_nothing_is_added_to_what_a_checkpoint_holds():
    model = a_model()
    names = list(model.state_dict())
    loop.train_step(model, *a_batch(), "cpu", "bfloat16")
    assert list(model.state_dict()) == names
