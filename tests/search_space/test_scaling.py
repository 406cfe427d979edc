"""The same design at another size: what stays, what grows, and what cannot be."""

from __future__ import annotations

import dataclasses
import math

import pytest

from search_space.backbone import Backbone
from search_space.base import Base
from search_space.cost import ffn_cost
from search_space.errors import InputError
from search_space.methods.product_key import ProductKey
from search_space.methods.topk import TopK
from search_space.placement import reference
from search_space.presets import PRESETS
from search_space.scaling import MULTIPLE, enlarged, scaled
from search_space.space.sizing import TOLERANCE
from search_space.spec import FFNSpec

SMALL = Backbone(d_model=64, n_layers=4, n_heads=4, vocab_size=1024, seq_len=64)
LARGE = {"d_model": 256, "n_layers": 8, "n_heads": 8, "vocab_size": 4096, "seq_len": 256}
KEPT = ("depth", "activation", "gated", "output_gate", "lr_multiplier", "placement")


def share(spec, backbone):
    """Of the reference FFN's active FLOPs."""
    ours, dense = (ffn_cost(s, backbone.d_model) for s in (spec, reference(backbone)))
    return ours.active_flops / dense.active_flops


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("d_model", [32, 72, 256, 1024])
def test_every_preset_keeps_its_share_of_the_flops(name, d_model):
    new = enlarged(SMALL, {"d_model": d_model})
    spec = PRESETS[name](SMALL)
    large = scaled(spec, SMALL, new)
    assert share(large, new) == pytest.approx(share(spec, SMALL), rel=TOLERANCE)
    assert all(getattr(large, field) == getattr(spec, field) for field in KEPT)
    if spec.expert_width > 1:
        assert (large.n_experts, large.selection) == (spec.n_experts, spec.selection)
    if d_model >= 256 and spec.expert_width > 1:
        assert large.expert_width % MULTIPLE == 0


def test_single_units_grow_in_number_by_the_share_that_is_read():
    new = enlarged(SMALL, LARGE)
    direct, large = (f(PRESETS["vanilla_m"](SMALL)) for f in (lambda s: s, _to(new)))
    assert large.n_experts / large.selection.k == direct.n_experts / direct.selection.k
    peer, large = (f(PRESETS["peer"](SMALL)) for f in (lambda s: s, _to(new)))
    assert isinstance(large.selection, ProductKey)
    assert large.selection.key_dim == 4 * peer.selection.key_dim
    assert large.selection.heads == peer.selection.heads
    assert math.isqrt(large.n_experts) ** 2 == large.n_experts
    ratio = large.n_experts / large.selection.k
    assert ratio == pytest.approx(peer.n_experts / peer.selection.k, rel=0.02)


def _to(new):
    return lambda spec: scaled(spec, SMALL, new)


def test_at_the_same_width_a_design_is_as_it_was():
    odd = FFNSpec(d_ff=84 * 3, expert_width=84, selection=TopK(k=2))
    deeper = enlarged(SMALL, {"n_layers": 12, "vocab_size": 32_000})
    assert scaled(odd, SMALL, deeper) == odd


def test_the_reference_keeps_its_share_of_the_width_unless_it_is_given():
    narrow = Backbone(d_model=64, n_heads=4, reference_d_ff=176)
    assert enlarged(narrow, {"d_model": 256}).reference_d_ff == 704
    assert enlarged(narrow, {"d_model": 256, "reference_d_ff": 512}).reference_d_ff == 512
    assert enlarged(narrow, {"n_layers": 6}).reference_d_ff == 176


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"d_mode": 256}, "unknown key 'd_mode'; did you mean 'd_model'"),
        ({"d_model": 100}, "d_model must be a multiple of 2 \\* n_heads"),
        ({"d_model": "wide"}, "d_model must be a whole number"),
        ({"d_model": 10**9}, "d_model must be at most"),
        ({"n_layers": 0}, "n_layers must be a whole number of at least 1"),
    ],
)
def test_a_backbone_that_cannot_be_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        enlarged(SMALL, changes)


def test_a_cut_model_has_its_bases_size():
    base = Base(model="base", digest="0", family="llama", head_dim=16, n_kv_heads=4)
    cut = dataclasses.replace(SMALL, base=base)
    with pytest.raises(InputError, match="was cut from a pretrained model"):
        enlarged(cut, {"d_model": 256})
    with pytest.raises(InputError, match="unknown key 'base'"):
        enlarged(SMALL, {"base": "x"})


def test_a_placement_needs_its_layers_and_a_narrow_model_has_no_such_width():
    alternate = FFNSpec(d_ff=64, placement="alternate")
    with pytest.raises(InputError, match="needs a model of at least 2 layers"):
        scaled(alternate, SMALL, enlarged(SMALL, {"n_layers": 1}))
    fine = FFNSpec(d_ff=64 * 8, expert_width=8, selection=TopK(k=1))
    with pytest.raises(InputError, match=r"at d_model 8: .*choose another d_model"):
        scaled(fine, SMALL, enlarged(SMALL, {"d_model": 8, "n_heads": 2}))
