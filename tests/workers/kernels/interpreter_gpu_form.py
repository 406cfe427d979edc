"""A GPU's form of a layer and of a whole step, interpreted on the CPU, against the CPU's own.

Run in a process of its own with TRITON_INTERPRET=1: prints what `interpreter_checks` does.

T tokens, B experts, G units of an expert, D model width.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from unittest import mock

import torch
from interpreter_tools import normal, tell
from torch import Tensor, nn

from search_space.backbone import Backbone
from search_space.methods.avgk import AvgK
from search_space.methods.direct import Direct
from search_space.methods.product_key import ProductKey
from search_space.methods.relu_routing import ReLURouting
from search_space.methods.topk import TopK
from search_space.presets import PRESETS
from search_space.spec import FFNSpec
from workers.kernels.place import as_on
from workers.kernels.triton import grouped
from workers.layers.experts import Experts
from workers.layers.routing import Bags, Full, Ragged, open_pairs
from workers.layers.whole_batch import spread_over
from workers.model import ProxyLM
from workers.training import once
from workers.training.loop import train_step

B, G, D = 5, 9, 12
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
# Which experts each token reads.
OPEN = {
    "empty experts": [[1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0, 1, 0]],
    "one expert takes all": [[0, 0, 1, 0, 0]] * 17,
    "one token": [[0, 1, 0, 0, 1]],
    "k = B": [[1] * 5] * 7,
    "tokens of none": [[0] * 5, [0, 1, 1, 1, 0], [0] * 5],
    "nobody": [[0] * 5] * 4,
}


@contextlib.contextmanager
def poisoned() -> Iterator[None]:
    """What is made empty in the body is full of NaN: whoever reads what nobody wrote is seen."""

    def full(make):
        def made(*args, **kwargs):
            x = make(*args, **kwargs)
            return (
                x.fill_(float("nan"))
                if x.is_floating_point()
                else x.fill_(torch.iinfo(x.dtype).max >> 1)
            )

        return made

    with (
        mock.patch.object(torch, "empty_like", full(torch.empty_like)),
        mock.patch.object(Tensor, "new_empty", full(Tensor.new_empty)),
        mock.patch.object(torch, "empty", full(torch.empty)),
    ):
        yield


def experts(width: int, gated: bool, output_gate: bool = False) -> Experts:
    layer = Experts(D, B, width, activation="silu", gated=gated, output_gate=output_gate)
    for seed, (_, p) in enumerate(layer.named_parameters()):
        p.data = normal(*p.shape, dtype=torch.float32, seed=seed) / 3
    return layer


def routed(case: str, layout: str, weight_TB: Tensor) -> object:
    """A routing of the case's pairs; one that chooses needs as many of each token."""
    open_TB = torch.tensor(OPEN[case]).bool()
    if layout == "open":
        return open_pairs(weight_TB * open_TB, open_TB)
    if layout == "all":
        return Full(weight_TB if open_TB.any() else None)
    k = int(open_TB[0].sum())
    index_TK = open_TB.int().topk(k).indices
    make = Ragged.from_choices if layout == "ragged" else Bags.from_choices
    weight_TK = weight_TB.gather(1, index_TK)
    if make is Ragged.from_choices:
        return make(index_TK, weight_TK, B)
    return make(index_TK, weight_TK)


def results(layer: Experts, case: str, layout: str) -> list[Tensor]:
    """The output, and every gradient."""
    n_tokens = len(OPEN[case])
    x_TD = normal(n_tokens, D, dtype=torch.float32, seed=7).requires_grad_()
    weight_TB = normal(n_tokens, B, dtype=torch.float32, seed=8).abs().requires_grad_()
    layer.zero_grad()
    y_TD = layer(x_TD, routed(case, layout, weight_TB))
    (y_TD * normal(*y_TD.shape, dtype=torch.float32, seed=9)).sum().backward()
    grads = [x_TD.grad, weight_TB.grad, *(p.grad for p in layer.parameters())]
    return [y_TD.detach(), *(torch.zeros(()) if g is None else g for g in grads)]


def same_layer(case: str, layout: str, width: int, gated: bool, output_gate: bool) -> None:
    layer = experts(width, gated, output_gate)
    want = results(layer, case, layout)
    with as_on("cuda"), poisoned():
        got = results(layer, case, layout)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b.to_dense() if b.is_sparse else b, **CLOSE)


def same_spread_step(name: str, spec: FFNSpec) -> None:
    """The same of a batch that is read here alone, but might be spread."""
    with spread_over(lambda mean: mean.clone()):
        same_step(name, spec)


def same_step(name: str, spec: FFNSpec) -> None:
    """Loss and gradients of a training step, of a proxy whose layers all matter."""
    backbone = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=23, seq_len=6)
    generator = torch.Generator().manual_seed(1)
    batch = torch.randint(23, (2, 2, 6), generator=generator).unbind()

    def step() -> list[Tensor]:
        torch.manual_seed(0)
        model = ProxyLM(spec, backbone).train()
        model.set_token_counts(torch.arange(23))
        for values in model.parameters():
            if not values.any():
                nn.init.normal_(values, std=0.3)
        loss = train_step(model, *batch, "cpu")
        model.after_step()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        return [loss, *grads, *model.buffers()]

    want = step()
    with as_on("cuda"):
        got = step()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


# The interpreter is slow: the table's smallest tiles, for other checks run all of them.
grouped.PRODUCT_CONFIGS = grouped.PRODUCT_CONFIGS[-1:]
grouped.GRADIENT_CONFIGS = grouped.GRADIENT_CONFIGS[:1]
once.PARTS = 2  # programs of each norm's backward pass


def checks() -> Iterator[tuple[str, str, functools.partial]]:
    """Operation, case and check."""
    for case in OPEN:
        layouts = ["open"] if case in ("empty experts", "tokens of none", "nobody") else None
        for layout in layouts or ("open", "ragged", "bags"):
            for shape in [(G, True, False), (1, False, False), (G, True, True)]:
                label = f"{case}, {layout}, {shape}"
                yield "GPU form, layer", label, functools.partial(same_layer, case, layout, *shape)
    for case in ("one token", "k = B", "nobody"):
        for gated in (True, False):
            check = functools.partial(same_layer, case, "all", G, gated, True)
            yield "GPU form, layer", f"{case}, all, {gated}, output gates", check
    backbone = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=23, seq_len=6)
    specs = {name: PRESETS[name](backbone) for name in ("dense", "dsmoe", "remoe", "finedeep")}
    specs["hash"] = PRESETS["hash"](backbone)
    specs["avgk"] = FFNSpec(d_ff=32, expert_width=8, selection=AvgK(k=2))
    # Of much of a table and of little: by products and by reads.
    specs["direct, spread"] = FFNSpec(d_ff=12, expert_width=1, selection=Direct(k=3))
    gated = {"activation": "silu", "gated": True}
    specs["direct, spread, gated"] = FFNSpec(
        d_ff=12, expert_width=1, selection=Direct(k=3), **gated
    )
    specs["direct, rows"] = FFNSpec(d_ff=99, expert_width=1, selection=Direct(k=3))
    for values in ("pkm", "peer"):
        for root, how in ((4, "spread"), (14, "rows")):
            keys = ProductKey(heads=2, k=3, key_dim=8, query_norm="batch", values=values)
            specs[f"{values}, {how}"] = FFNSpec(d_ff=root**2, expert_width=1, selection=keys)
    bias = TopK(k=2, bias_rate=0.1, z_weight=0.01, balance_weight=0.01, normalize=True)
    specs["bias"] = FFNSpec(d_ff=32, expert_width=8, selection=bias)
    sigmoid = TopK(k=2, gate="sigmoid", balance_weight=0.01, entropy_weight=0.01)
    specs["sigmoid"] = FFNSpec(d_ff=32, expert_width=8, selection=sigmoid)
    shared = {"selection": TopK(k=2, balance_weight=0.01), "gated": True, "shared_width": 16}
    gates = {"d_ff": 32, "expert_width": 8, "gated": True, "output_gate": True}
    # Whose shared experts have no output gate, and so are computed by themselves.
    routed = TopK(k=2, balance_weight=0.01)
    specs["output gates"] = FFNSpec(selection=routed, shared_width=16, **gates)
    specs["open output gates"] = FFNSpec(selection=ReLURouting(l1_start=0.1), **gates)
    specs["shared"] = FFNSpec(d_ff=32, expert_width=8, activation="silu", **shared)
    for name, spec in specs.items():
        yield "GPU form, step", name, functools.partial(same_step, name, spec)
    spread = functools.partial(same_spread_step, "bias", specs["bias"])
    yield "GPU form, step", "spread over processes", spread


if __name__ == "__main__":
    tell(checks())
