"""What `benchmarks.exports` writes: designs in their forms, with drawn weights.

Proxies with code, proxies as classes of transformers, and cuts of every family of base models, with
code and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, get_args

import torch

from nas.models.forms import as_transformers
from search_space.backbone import Backbone
from search_space.base import Base, Family
from search_space.cost import model_cost
from search_space.cuts import CUTS, cut_into
from search_space.errors import SpecError
from search_space.methods.avgk import AvgK
from search_space.native import FAMILIES, NativeForm, native_form
from search_space.presets import PRESETS
from search_space.space import SearchSpace, suggest
from search_space.space.walk import Draw
from search_space.spec import FFNSpec

BACKBONE = Backbone(d_model=32, n_layers=3, n_heads=2, vocab_size=300, seq_len=32)
STD = 0.2  # of the drawn weights
MOST_PARAMETERS = 3e6  # of a design: all exports lie on the disk at once
ENDS = {"eos_token_id": 0}
CUSTOM, NATIVE, CUT, NATIVE_CUT = FORMS = ("custom", "native", "cut", "native cut")
# Of a space in which many designs have a class of transformers.
_PLAIN = SearchSpace(
    methods=("dense", "topk", "avgk"),
    activation=("silu",),
    gated=(True,),
    depth=(1,),
    placement=("all",),
)


@dataclass(frozen=True)
class Case:
    """An export. native: its class; None for code."""

    spec: FFNSpec
    backbone: Backbone
    native: NativeForm | None = None

    @property
    def form(self) -> str:
        """One of FORMS."""
        if self.backbone.base is None:
            return CUSTOM if self.native is None else NATIVE
        return CUT if self.native is None else NATIVE_CUT


def cases(n: int, families: Sequence[Family] = get_args(Family), seed: int = 0) -> dict[str, Case]:
    """Every preset and n designs of the whole space with code; the presets that have a native form
    and n // 4 designs that have one; the known cuts of models of those families; all by name."""
    presets = {name: preset(BACKBONE) for name, preset in PRESETS.items()}
    custom = _named("drawn", islice(_draws(SearchSpace(), seed, lambda spec: True), n))
    native = _named("native", islice(_draws(_PLAIN, seed, _is_native), n // 4))
    native |= {f"native {name}": spec for name, spec in presets.items() if _is_native(spec)}
    found = {name: Case(spec, BACKBONE) for name, spec in (presets | custom).items()}
    found |= {name: _native_case(spec, BACKBONE) for name, spec in native.items()}
    for family in families:
        found |= _cuts(family)
    return found


def _named(kind: str, specs: Iterator[FFNSpec]) -> dict[str, FFNSpec]:
    return {f"{kind} {place}: {spec.label}": spec for place, spec in enumerate(specs)}


def _draws(space: SearchSpace, seed: int, wanted: Callable[[FFNSpec], bool]) -> Iterator[FFNSpec]:
    draw = Draw(seed)
    while True:
        with suppress(SpecError):  # no legal width comes near
            spec = suggest(space, draw, BACKBONE)
            if model_cost(spec, BACKBONE).total_params <= MOST_PARAMETERS and wanted(spec):
                yield spec


def _is_native(spec: FFNSpec) -> bool:
    return isinstance(native_form(spec, BACKBONE), NativeForm)


def _native_case(spec: FFNSpec, backbone: Backbone) -> Case:
    form = native_form(spec, backbone)
    assert isinstance(form, NativeForm)
    return Case(spec, backbone, form)


def _cuts(family: Family) -> dict[str, Case]:
    """With code, and the same without where there is a class."""
    backbone = Backbone(
        d_model=32,
        n_layers=2,
        n_heads=4,
        vocab_size=300,
        seq_len=32,
        reference_d_ff=64,
        base=Base(model="drawn", digest="drawn", family=family, head_dim=8, n_kv_heads=2),
    )
    found = {}
    for name, cut in CUTS.items():
        spec = cut(backbone)
        found[f"{family} {name}"] = Case(spec, backbone)
        if isinstance(native_form(spec, backbone), NativeForm):
            found[f"{family} {name}, native"] = _native_case(spec, backbone)
    one = cut_into(backbone, 4, AvgK(k=1))
    found[f"{family} avgk of one, native"] = _native_case(one, backbone)
    return found


def drawn_model(case: Case, seed: int = 0) -> tuple[Any, Any]:
    """The model that trains and transformers' model of it, all weights drawn, in evaluation
    mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _model(case)
        with torch.no_grad():
            for p in model.parameters():
                p.normal_(std=STD)
    return model, as_transformers(model, case.spec, case.backbone, case.native, ENDS)


def _model(case: Case) -> Any:
    from workers.model import ProxyLM

    backbone = case.backbone
    if backbone.foreign is None:
        return ProxyLM(case.spec, backbone).eval()
    import transformers

    from workers.pretrained.model import PretrainedLM, cut_ffns, put_in

    cls = getattr(transformers, FAMILIES[backbone.foreign.family])  # type: ignore[index]
    config = cls.config_class(
        hidden_size=backbone.d_model,
        intermediate_size=backbone.reference_d_ff,
        num_hidden_layers=backbone.n_layers,
        num_attention_heads=backbone.n_heads,
        num_key_value_heads=backbone.foreign.n_kv_heads,
        head_dim=backbone.head_dim,
        vocab_size=backbone.vocab_size,
        max_position_embeddings=backbone.seq_len,
        sliding_window=None,
        **ENDS,
    )
    lm = cls(config)
    put_in(lm, cut_ffns(case.spec, backbone))
    return PretrainedLM(lm, backbone).eval()
