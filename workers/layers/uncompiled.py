"""What torch's compiler should leave as it is.

Imported while something compiles: the compiler itself takes seconds to load, and most processes
never need it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _run(compute: Callable[..., Any], *args: Any) -> Any:
    # Else a compiler would break at each count and begin anew with other tokens.
    if torch.compiler.is_exporting():
        raise ValueError(
            "torch.export takes designs whose shapes do not depend on the tokens (dense): this one "
            "routes them; use torch.compile, which leaves its experts as they are"
        )
    return compute(*args)


as_it_is = torch.compiler.disable(_run, reason="tokens an expert gets are known when routed")
