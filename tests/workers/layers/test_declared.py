"""What layers declare is what training, measuring and exports go by, and nothing else is."""

from __future__ import annotations

import pytest
import torch
from test_layers_training import BACKBONE, DESIGNS
from torch import nn

from search_space.methods.hash import Hash
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.layers.declared import Declared, declared
from workers.layers.recording import record_stats
from workers.layers.stats import RoutingStats
from workers.model import ProxyLM
from workers.training.optimizers import Kind, allow_sparse_gradients, group_parameters

by_label = pytest.mark.parametrize("spec", DESIGNS, ids=lambda spec: spec.label)


@by_label
def test_every_layer_with_tensors_of_its_own_declares_itself(spec):
    model = ProxyLM(spec, BACKBONE)
    mute = {
        name
        for name, module in model.named_modules()
        if [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        and not isinstance(module, Declared)
    }
    assert mute == {"embed"}


@by_label
def test_what_is_declared_is_there(spec):
    names = set()
    for _, layer in declared(ProxyLM(spec, BACKBONE)):
        for name in (*layer.matrices, *layer.tables):
            assert hasattr(layer, name), (type(layer).__name__, name)
            names.add(name)
    assert {"qkv_3DD", "values_BGD"} <= names


@by_label
def test_every_parameter_of_a_declared_layer_is_reset(spec):
    torch.manual_seed(0)  # a tensor of sixteen numbers has another mean by chance
    model = ProxyLM(spec, BACKBONE)
    fresh = {name: p.detach().abs().mean() for name, p in model.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(7.0)
    for _, layer in declared(model):
        layer.reset_parameters()
    for name, p in model.named_parameters():
        if name != "embed.weight":
            assert float(p.detach().abs().mean()) == pytest.approx(float(fresh[name]), rel=0.5), (
                name
            )


class Own(Declared):
    """A layer from outside: whatever it declares holds, whatever else it has does not."""

    matrices = ("w",)
    tables = ("rows",)

    def __init__(self) -> None:
        super().__init__()
        self.w, self.rows, self.rest = (nn.Parameter(torch.zeros(2, 3)) for _ in range(3))
        self.heard: list[torch.Tensor] = []

    def set_token_counts(self, counts_V):
        self.heard.append(counts_V)

    def new_stats(self):
        return RoutingStats(4)


class Mute(nn.Module):
    """The same names on a module that declares nothing."""

    matrices = tables = ("w",)

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, 3))
        self.stats = None

    def set_token_counts(self, counts_V):
        raise AssertionError("it declared nothing")


def test_a_layer_from_outside_is_asked_by_its_declarations_alone():
    model = ProxyLM(FFNSpec(d_ff=16), BACKBONE)
    own, mute = Own(), Mute()
    model.own, model.mute = own, mute
    groups = {id(p): kind for (kind, _), params in group_parameters(model).items() for p in params}
    assert groups[id(own.w)] is Kind.MATRIX
    assert groups[id(own.rows)] is Kind.TABLE
    assert groups[id(own.rest)] is groups[id(mute.w)] is Kind.REST
    counts_V = torch.ones(BACKBONE.vocab_size)
    model.set_token_counts(counts_V)
    assert own.heard == [counts_V]
    with record_stats(model) as recorded:
        assert own.stats is recorded["own"]
        assert "mute" not in recorded
    assert own.stats is None


def test_balanced_tables_hear_the_token_counts():
    spec = FFNSpec(d_ff=64, expert_width=16, selection=Hash(k=2))
    model = ProxyLM(spec, BACKBONE)
    table_KV = model.layers[0].ffn.layers[0].selection.table_KV
    before = table_KV.clone()
    model.set_token_counts(torch.arange(BACKBONE.vocab_size))
    assert not torch.equal(table_KV, before)


def test_only_tables_get_sparse_gradients():
    model = ProxyLM(FFNSpec(d_ff=64, expert_width=1, selection=TopK(k=8)), BACKBONE)
    allow_sparse_gradients(model)
    sparse = {name for name, layer in declared(model) if layer.sparse_gradients}
    assert sparse == {f"layers.{i}.ffn.layers.0.experts" for i in range(BACKBONE.n_layers)}
