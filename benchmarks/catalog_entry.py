"""What an offline compiler needs to know of a kernel, and the sizes that it is asked of.

The sizes are one layer of a 64-expert design on 16,384 tokens: D 1,024, width 512, 8 experts a
token; four experts that all tokens read; a million-row table read by 8 heads of 16; 16 attention
heads; a vocabulary of 50,304.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workers.kernels.triton.config import Config

WIDTH, HIDDEN, EXPERTS, TOKENS, PER_TOKEN = 1024, 512, 64, 16_384, 8
ROWS, READS, VOCABULARY, ROOT, CHOICES, HEADS = 1 << 20, 128, 50_304, 1024, 16, 16
PAIRS, FEW = TOKENS * READS, 4


@dataclass(frozen=True)
class Entry:
    """One kernel, specialised as a launch with these arguments would be.

    sizes: its integers by name.
    constants: what is fixed at compile time, block sizes aside; a pointer that is left out is None.
    types: pointers that hold something else than the data type.
    product: the block that is the rows of its matrix product, "" for a kernel without one.
    """

    name: str
    kernel: Any
    configs: tuple[Config, ...]
    sizes: Mapping[str, int]
    constants: Mapping[str, Any] = field(default_factory=dict)
    types: Mapping[str, str] = field(default_factory=dict)
    product: str = ""

    def source(
        self, config: Config, dtype: str = "bf16"
    ) -> tuple[dict[str, str], dict[str, Any], dict[tuple[int, ...], Any]]:
        """Signature, constants and divisibility attributes for triton's ASTSource."""
        constants = {**self.constants, **dict(config.blocks)}
        # A launch fixes an integer argument of 1, too.
        constants |= {name: 1 for name, size in self.sizes.items() if size == 1}
        signature: dict[str, str] = {}
        attributes: dict[tuple[int, ...], Any] = {}
        for place, name in enumerate(self.kernel.arg_names):
            if name in constants:
                signature[name] = "constexpr"
                continue
            pointer = name.endswith("_ptr")
            signature[name] = self.types.get(name, f"*{dtype}" if pointer else "i32")
            if pointer or (name in self.sizes and self.sizes[name] % 16 == 0):
                attributes[(place,)] = [["tt.divisibility", 16]]
        return signature, constants, attributes
