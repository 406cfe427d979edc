"""The least time an operation can take: bytes it must move, FLOPs it must do, data-sheet rates.

Predicted, not measured: no cache, no launch, every byte read or written once.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import catalog_entry as sizes

BF16, FP32, INDEX = 2, 4, 8  # bytes


@dataclass(frozen=True)
class Device:
    """Bytes a second of memory, dense bfloat16 FLOPs a second of the matrix units."""

    name: str
    bandwidth: float
    flops: float


# NVIDIA A100 80 GB SXM and H100 SXM data sheets; AMD Instinct MI300X data sheet.
DEVICES = (
    Device("A100", 2.039e12, 312e12),
    Device("H100", 3.35e12, 989e12),
    Device("MI300X", 5.3e12, 1307e12),
)


@dataclass(frozen=True)
class Work:
    """One operation at the catalog's size."""

    name: str
    moved: float
    flops: float

    def seconds(self, device: Device) -> float:
        """The slower of memory and arithmetic."""
        return max(self.moved / device.bandwidth, self.flops / device.flops)


def works() -> tuple[Work, ...]:
    """Every operation of the catalog in bfloat16; row reads are counted once a read."""
    width, hidden, experts = sizes.WIDTH, sizes.HIDDEN, sizes.EXPERTS
    tokens, pairs = sizes.TOKENS, sizes.TOKENS * sizes.PER_TOKEN
    reads, vocabulary = sizes.PAIRS, sizes.VOCABULARY
    weights = BF16 * experts * width * hidden
    product = 2.0 * pairs * width * hidden
    token_rows, read_rows = BF16 * tokens * width, BF16 * reads * width
    pair_rows, scores = BF16 * pairs * width, FP32 * sizes.READS // sizes.CHOICES * 2 * tokens
    hidden_rows = BF16 * pairs * hidden
    units = BF16 * tokens * sizes.FEW * hidden
    chosen = (FP32 + INDEX) * tokens * sizes.READS
    return (
        Work("grouped product", pair_rows + weights + hidden_rows, product),
        # The gather reads each token's row once where a cache holds it.
        Work("grouped product, fused", token_rows + weights + hidden_rows, product),
        Work("weight gradient", pair_rows + hidden_rows + weights, product),
        Work("row sum", read_rows + (BF16 + INDEX) * reads + token_rows, 2.0 * reads * width),
        Work("row dot", read_rows + (BF16 + INDEX) * reads + token_rows, 2.0 * reads * width),
        Work("row gradient", 2 * read_rows + 3 * INDEX * reads, 2.0 * reads * width),
        Work("product key", scores * sizes.ROOT + chosen, 0.0),
        Work("gated forward", 3 * hidden_rows, 0.0),
        Work("gated backward", 5 * hidden_rows, 0.0),
        Work("output gates", 3 * units, 0.0),
        Work("output gate gradients", 6 * units, 0.0),
        Work("RMSNorm forward", 2 * token_rows, 0.0),
        Work("RMSNorm backward", 3 * token_rows, 0.0),
        # The stream and its gradient are float32, what products read and give bfloat16.
        Work("residual norm forward", 8 * token_rows, 0.0),
        Work("residual norm backward", 10 * token_rows, 0.0),
        Work(
            "linear + cross-entropy",
            8 * BF16 * tokens * vocabulary + 2 * FP32 * vocabulary * width,
            6.0 * tokens * vocabulary * width,
        ),
    )
