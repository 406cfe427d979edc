"""A cut of a proxy: the export of a dense design is the base, and what is cut of it is a proxy too.

D model width, T tokens of the calibration text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from search_space.backbone import Backbone
from search_space.base import CONFIG, FILES, Base, check_cut, digest_of
from search_space.errors import require
from search_space.plain import read_json
from search_space.routing import EVERY_EXPERT
from search_space.spec import FFNSpec
from workers.exported import load_proxy
from workers.kernels.activations import ACTIVATIONS
from workers.layers.experts import Experts
from workers.layers.ffn import SubLayer
from workers.model import ProxyLM
from workers.pretrained.cutting import Units, fill, scale_to, unit_order
from workers.training.initial import draw_by_name


def load_own(base: Base) -> ProxyLM:
    """The dense proxy in float32. Raises InputError where its files do not hold it, and where it is
    not the one that the study began with."""
    from huggingface_hub import snapshot_download

    here = Path(base.model)
    folder = here if here.is_dir() else Path(snapshot_download(base.model, allow_patterns=FILES))
    require(
        digest_of(folder) == base.digest,
        f"base_model {base.model!r} has changed since the study began; put it back as it was, or "
        "launch a new study",
    )
    config = read_json(folder / CONFIG)
    spec, backbone = FFNSpec.from_dict(config["spec"]), Backbone.from_dict(config["backbone"])
    return load_proxy(sorted(folder.glob("*.safetensors")), spec, backbone).eval()


@torch.no_grad()
def cut_own(spec: FFNSpec, backbone: Backbone, ids_NL: Tensor, seed: int) -> ProxyLM:
    """The base with its FFNs cut into `spec`: gates are drawn, all else is its own.

    ids_NL: the calibration text, (N, L).
    seed: of the gates.
    Raises SpecError for a design that is no cut of it, InputError where it does not load.
    """
    base = backbone.base
    assert base is not None
    check_cut(spec, base, backbone.reference_d_ff)
    proxy = load_own(base)
    with torch.random.fork_rng(devices=[]):
        model = ProxyLM(spec, backbone)
    draw_by_name(model, seed)
    model.embed.load_state_dict(proxy.embed.state_dict())
    model.norm.load_state_dict(proxy.norm.state_dict())
    handles = [
        _take_over(old, new, spec, ids_NL.flatten())
        for old, new in zip(proxy.layers, model.layers, strict=True)
    ]
    try:
        proxy(ids_NL)
    finally:
        for handle in handles:
            handle.remove()
    return model


def _take_over(old: Any, new: Any, spec: FFNSpec, ids_T: Tensor) -> Any:
    """Give a layer the attention and norms of the dense one, and its experts once that has read the
    calibration text; returns the handle of what waits for it."""
    new.attention.load_state_dict(old.attention.state_dict())
    (whole,), (cut,) = old.ffn.layers, new.ffn.layers
    cut.norm.load_state_dict(whole.norm.state_dict())

    def fill_in(attention: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        h_TD = (output[0] + output[1]).flatten(0, 1)
        units = _units(whole)
        width = cut.experts.keys_BGD.shape[1]
        order_H = unit_order(spec.cut, units, _hidden(whole, units, h_TD), width)
        fill(cut.experts, units, order_H)
        if cut.searched and spec.selection.native(spec) != EVERY_EXPERT:
            cut.eval()
            y_TD = cut(h_TD, ids_T)[0] - h_TD
            cut.experts.values_BGD.mul_(scale_to(y_TD, whole(h_TD, ids_T)[0] - h_TD))
            cut.train()

    return old.attention.register_forward_hook(fill_in)


def _hidden(whole: SubLayer, units: Units, h_TD: Tensor) -> Tensor:
    """The units' values on a text, (T, H)."""
    assert isinstance(whole.experts, Experts)
    n_TD, act = whole.norm(h_TD), ACTIVATIONS[whole.experts.activation]
    keys_TH: Tensor = n_TD @ units.keys_HD.t()
    if units.gates_HD is None:
        return act(keys_TH)
    return act(n_TD @ units.gates_HD.t()) * keys_TH


def _units(whole: SubLayer) -> Units:
    """Of a dense FFN and a shared one beside it, which is the same."""
    parts: list[Any] = [whole.experts, *([] if whole.shared is None else [whole.shared])]

    def side_by_side(name: str) -> Tensor:
        return torch.cat([getattr(part, name).flatten(0, 1) for part in parts])

    gates = None if parts[0].gates_BGD is None else side_by_side("gates_BGD")
    return Units(gates, side_by_side("keys_BGD"), side_by_side("values_BGD"))
