"""Where a selection method meets its layer."""

from __future__ import annotations

from search_space.errors import SpecError, shown
from search_space.finding import load
from search_space.methods import find
from search_space.spec import FFNSpec
from workers.layers.declared import Declared


def build_selection(spec: FFNSpec, d_model: int, vocab_size: int) -> Declared:
    """The selection module of `spec`: forward(x_TD, ids_T, experts) -> Selected.

    Raises InputError when the method's layer cannot be imported, or is no `Declared` class.
    """
    method = find(spec.method)
    cls = load(method.layer)
    if not (isinstance(cls, type) and issubclass(cls, Declared)):
        raise SpecError(
            f"the layer of selection {spec.method!r}, {method.layer}, is not derived from "
            f"workers.layers.declared.Declared: got {shown(cls)}"
        )
    return cls(spec, d_model, vocab_size) if method.needs_vocabulary else cls(spec, d_model)
