"""A routed sub-layer's forward as torch's compiler should leave it. D model width, T tokens.

Imported while something compiles: the compiler itself takes seconds to load, and most processes
never need it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from workers.layers.ffn import Apart, SubLayer


def _compute(layer: SubLayer, h_TD: Tensor, added_TD: Tensor | None, ids_T: Tensor) -> Apart:
    # Else a compiler would break at each count and begin anew with other tokens.
    if torch.compiler.is_exporting():
        raise ValueError(
            "torch.export takes designs whose shapes do not depend on the tokens (dense): this one "
            "routes them; use torch.compile, which leaves its experts as they are"
        )
    return layer.compute(h_TD, added_TD, ids_T)


as_it_is = torch.compiler.disable(_compute, reason="tokens an expert gets are known when routed")
