"""`SearchSpace`: which FFN designs a study may try, as data.

Sizes are ratios of the reference dense FFN, `backbone.reference_d_ff` hidden units wide, so one
space serves every backbone. For one sub-layer of a routed design

    active width = granularity * expert_width        (k = granularity experts a token)
    total width  = expansion * active width          (n_experts = granularity * expansion)

after Krajewski et al. 2024, where granularity G cuts an expert into G and routes to G times as
many. A space asks a trial for ratios and derives widths from them, so what it yields is legal by
construction; the few combinations that are not raise SpecError.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from search_space.base import cuttable
from search_space.checks import DIM, UNITS, is_whole, known_word, one_of, section, whole
from search_space.design import Method, Placement
from search_space.domain import (
    Choices,
    Domain,
    Match,
    Numbers,
    Range,
    check_each,
)
from search_space.errors import InputError, check_keys, require, shown
from search_space.methods import built_in, find, names
from search_space.parameter import Knobs, asked, declared, read_domains
from search_space.spec import FFNSpec

# Of `match: free`; a matched design has the width that its cost leaves it.
_ACTIVE_WIDTHS = (0.5, 1.0, 2.0)
_LR_MULTIPLIERS = Range(low=0.5, high=2.0, log=True)


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The designs of a study: each field is a list of choices, or {low, high, log} for weights.

    The defaults are the whole space of this project's methods, with every published design at
    d_model 128 in it but DeepSeekMoE, whose 6 of 64 experts need their own expansion.

    methods: names of selection methods (`search_space.methods`); a plug-in's is in it when named.
    match: `free` sizes designs by active_width; `active_flops` and `total_params` choose each
        design's width so that its FFN's figure equals the reference dense FFN's; `units` cuts all
        hidden units of a pretrained model's FFN into experts.
    depth: sequential sub-layers that share the width.
    output_gate, activation, gated, lr_multiplier: as in `FFNSpec`.
    shared_width: share of the active width, in [0, 1), that is an always-on FFN. The dense method
        has one beside gated outputs only.
    granularity: active width of a sub-layer / expert width; it is k where a method has one.
    expansion: total width / active width of the methods that ask for it; above 1.
    active_width: hidden units a token uses, shared ones included, as ratios of the reference
        width; of `match: free` alone. Product keys have heads * k * expert_width units instead.
    placement: which layers have the design. Those that mean the same layers of a backbone are one:
        the first of them is tried.
    cut: of a pretrained model's FFN: the order in which its units fill the experts.
    width_multiple: expert widths are multiples of it (4 float32 are the 16 bytes that grouped
        matrix products are aligned to).
    sections: by method, the keys that it alone has, as its `Knobs`; defaults where left out. In
        plain data each stands under its method's name.
    """

    methods: Choices = asked(built_in, "how a token picks its experts", name="method", shape=True)
    match: Match = "free"
    depth: Choices = asked((1, 2), "sub-layers that share the width", shape=True, least=1)
    output_gate: Choices = asked((False, True), "sigmoid gate on each expert's output", shape=True)
    shared_width: Numbers = asked((0.0, 0.25), "always-on share of the active width", shape=True)
    activation: Choices = asked(("gelu", "relu", "silu"), "of hidden units")
    gated: Choices = asked((False, True), "act(x G) * (x K) in place of act(x K)", shape=True)
    lr_multiplier: Domain = asked(_LR_MULTIPLIERS, "of the FFN's learning rates")
    granularity: Choices = asked(
        (1, 2, 4, 8), "experts of the active width; k where a method has one", shape=True, least=1
    )
    expansion: Numbers = asked((2.0, 4.0, 8.0), "total / active width", shape=True, least=1)
    active_width: Numbers = asked(
        _ACTIVE_WIDTHS,
        "units a token uses / reference width",
        match=("free",),
        shape=True,
        last=True,
    )
    placement: Choices = asked(get_args(Placement), "layers that have the design", shape=True)
    cut: Choices = asked(
        ("contiguous", "clustered"), "which units make an expert", match=("units",)
    )
    width_multiple: int = 4
    sections: Mapping[str, Knobs] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        read_domains(self, "space.")
        if self.match != "free" and self.active_width == _ACTIVE_WIDTHS:
            object.__setattr__(self, "active_width", (1.0,))
        if self.match == "units" and self.methods == built_in():
            # The standard FFN's, the first, is the model as it is over all units.
            routed = tuple(name for name in cuttable() if name != names()[0])
            object.__setattr__(self, "methods", routed)
        self._check_methods()
        self._check_sizes()
        for name in ("activation", "gated", "output_gate", "lr_multiplier", "placement", "cut"):
            check_each(f"space.{name}", getattr(self, name), functools.partial(_probe, name))
        self._fill_sections()

    def _check_methods(self) -> None:
        for name in self.methods:
            known_word("space.methods", name, names(), "method")
            require(
                self.match != "units" or find(name).cuttable,
                "space.methods: match units cuts an FFN into experts, for "
                f"{', '.join(cuttable())}: got {name}",
            )
        routed = [name for name in self.methods if "expansion" in find(name).asks]
        require(
            not routed or min(self.expansion) > 1,
            f"space.expansion must be above 1, or {', '.join(routed)} would read every expert: "
            f"got {min(self.expansion):g}; the dense method is that design",
        )

    def _check_sizes(self) -> None:
        one_of("space.match", self.match, get_args(Match))
        for width in self.active_width:
            require(width > 0, f"space.active_width must be above 0: got {width:g}")
        require(
            self.match == "free" or self.active_width == (1.0,),
            f"space.active_width is derived under match: {self.match}; leave it out or set "
            "match: free",
        )
        whole("space.width_multiple", self.width_multiple, 1, UNITS)
        for share in self.shared_width:
            require(
                0 <= share < 1,
                f"space.shared_width is a share of the active width in [0, 1): got {share:g}",
            )

    def _fill_sections(self) -> None:
        """The section of each method that a file may have: this project's, and those in use."""
        known = dict.fromkeys([*built_in(), *self.methods, *self.sections])
        sections = {}
        for method in map(find, known):
            if method.knobs is not None:
                sections[method.method] = self.sections.get(method.method) or method.knobs()
                _check_section(method, sections[method.method])
        object.__setattr__(self, "sections", sections)

    @functools.cached_property
    def domains(self) -> dict[str, Domain | Choices]:
        """What each parameter may be, by its name."""
        found = {"method": self.methods} | {f.name: getattr(self, f.name) for f in _own_fields()}
        for name, knobs in self.sections.items():
            found |= {f"{name}.{f.name}": getattr(knobs, f.name) for f in dataclasses.fields(knobs)}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; `from_dict` reads it back."""
        own = {f.name: _plain(getattr(self, f.name)) for f in _own_fields()}
        if self.match != "units":
            del own["cut"]  # is never asked for
        return own | {name: _plain(knobs) for name, knobs in self.sections.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SearchSpace:
        """Read `to_dict`'s form; a missing key takes its default, an unknown one is refused."""
        if not isinstance(data, Mapping):
            raise InputError(f"space is a mapping of its fields: got {shown(data)}")
        own = [f.name for f in _own_fields()]
        knobs = {name: found for name in names() if (found := find(name).knobs) is not None}
        check_keys("space", data, [*own, *knobs])
        sections = {
            name: section(kind, f"space.{name}", data[name])
            for name, kind in knobs.items()
            if name in data
        }
        return cls(**{k: v for k, v in data.items() if k in own}, sections=sections)


def _own_fields() -> list[dataclasses.Field[Any]]:
    return [f for f in dataclasses.fields(SearchSpace) if f.name != "sections"]


def _probe(name: str, value: Any) -> FFNSpec:
    return FFNSpec(**{"d_ff": 2, "expert_width": 2, name: value})


def _check_section(method: type[Method], knobs: Knobs) -> None:
    """Let the method's own rules judge every key that is a value of its selection."""
    if type(knobs) is not method.knobs:
        raise InputError(f"space.{method.method} is no section of this method: got {shown(knobs)}")

    def probe(key: str, value: Any) -> FFNSpec:
        # As many experts as any k needs, so that only the key itself can be at fault.
        n_experts = value**2 if key == "k" and is_whole(value, 1, DIM) else 256
        selection = method(**{**knobs.fixed, key: value})
        return FFNSpec(d_ff=n_experts, expert_width=1, selection=selection)

    for key, parameter in declared(type(knobs)).items():
        if key in method.fields() and not parameter.ratio:
            where = f"space.{method.method}.{key}"
            check_each(where, getattr(knobs, key), functools.partial(probe, key))


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Range):
        return dataclasses.asdict(value)
    if isinstance(value, Knobs):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return value
