"""Which layers of a model have a design; the others keep the reference FFN."""

from __future__ import annotations

from search_space.backbone import Backbone
from search_space.design import Placement
from search_space.errors import SpecError
from search_space.spec import FFNSpec

FEWEST: dict[Placement, int] = {"all": 1, "alternate": 2, "middle": 2, "all_but_first": 2}


def placed(placement: Placement, n_layers: int) -> tuple[bool, ...]:
    """Whether each of so many layers has the design, the first layer first.

    alternate: every other layer, from the second on (Switch, 2101.03961).
    middle: one layer, of 12 the seventh (PEER, 2407.04153).
    all_but_first: as DeepSeekMoE (2401.06066), whose first layer is dense.

    Raises SpecError for a placement that so few layers cannot have.
    """
    fewest = FEWEST[placement]
    if n_layers < fewest:
        raise SpecError(
            f"placement {placement} needs a model of at least {fewest} layers: this one has "
            f"{n_layers}; use placement all, or raise backbone.n_layers"
        )
    layers = range(n_layers)
    chosen = {
        "all": layers,
        "alternate": layers[1::2],
        "middle": [n_layers // 2],
        "all_but_first": layers[1:],
    }[placement]
    return tuple(layer in chosen for layer in layers)


def reference(backbone: Backbone) -> FFNSpec:
    """The dense FFN that ratios refer to, and that layers without the design have: of a base its
    own."""
    base = backbone.base
    if base is not None:
        return FFNSpec(d_ff=backbone.reference_d_ff, activation=base.activation, gated=base.gated)
    return FFNSpec(d_ff=backbone.reference_d_ff)
