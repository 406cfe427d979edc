"""The same design in a larger or smaller model: counts stay, widths grow.

What a design is, the number of its experts and how many a token reads, its depth and its heads,
stays as it was found. Its widths become those at which its FFN costs the same share of the
reference FFN's active FLOPs as before (Krajewski et al. 2024, 2402.07871, scale so: granularity and
expansion stay).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from search_space.backbone import Backbone
from search_space.checks import DIM, whole
from search_space.cost import ffn_cost
from search_space.errors import InputError, SpecError, check_keys, require
from search_space.placement import placed, reference
from search_space.space.sizing import fit
from search_space.spec import FFNSpec

# Widths are multiples of it where the fit allows: processors read so many numbers at once.
MULTIPLE = 8


def enlarged(old: Backbone, changes: Mapping[str, Any]) -> Backbone:
    """The backbone with some fields changed; the reference FFN keeps its share of the width.

    Raises InputError for an unknown field and for values that do not fit each other.
    """
    require(
        old.base is None,
        "a design that was cut from a pretrained model has that model's size: it is written at no "
        "other; export it without --backbone",
    )
    check_keys("backbone", changes, [f.name for f in fields(Backbone) if f.name != "base"])
    new = dict(changes)
    if "reference_d_ff" not in new and "d_model" in new:
        whole("d_model", new["d_model"], 1, DIM)
        new["reference_d_ff"] = max(1, round(old.reference_d_ff * new["d_model"] / old.d_model))
    return dataclasses.replace(old, **new)


def scaled(spec: FFNSpec, old: Backbone, new: Backbone) -> FFNSpec:
    """The design as it is in a model of the shape `new`, where it was found in one of `old`.

    Raises InputError where no width comes near its share of the reference FFN's active FLOPs, or
    the model has too few layers for its placement.
    """
    placed(spec.placement, new.n_layers)
    if (old.d_model, old.reference_d_ff) == (new.d_model, new.reference_d_ff):
        return spec
    growth = new.d_model / old.d_model

    def priced(design: FFNSpec, backbone: Backbone) -> float:
        return ffn_cost(design, backbone.d_model).active_flops

    share = priced(spec, old) / priced(reference(old), old)
    target = share * priced(reference(new), new)

    def fitted(multiple: int) -> FFNSpec:
        def build(n: int) -> FFNSpec:
            changed = spec.selection.scaled(spec, growth, n * multiple)
            return dataclasses.replace(spec, **changed)

        way_out = "choose another d_model or reference_d_ff"
        return fit(build, lambda design: priced(design, new), target, "active_flops", way_out)

    try:
        return fitted(MULTIPLE)
    except SpecError:  # too narrow for such steps
        try:
            return fitted(1)
        except SpecError as error:
            raise InputError(f"{spec.label} at d_model {new.d_model}: {error}") from None
