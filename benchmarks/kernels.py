"""What compilers make of the Triton kernels, and the roofline's predictions; needs no GPU.

Every kernel is compiled in bfloat16 at real sizes, with each configuration of its table, for three
NVIDIA and two AMD architectures. Bars: no spill, no stack, shared memory within the device's limit,
matrix instructions in every product (on sm_90 wgmma for tiles of 64 rows or more), and global loads
of 8 bytes or more: in every configuration of a product, in one at least of other kernels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.catalog import catalog
from benchmarks.catalog_entry import Entry
from benchmarks.offline import SHARED_LIMIT, TARGETS, Compiled, compile_for
from benchmarks.report import Row, at_least, at_most, parser, publish
from benchmarks.roofline import DEVICES, works

LOAD_BYTES = 8


def rows(targets: list[str], first_only: bool = False) -> Iterator[Row]:
    """The worst of each kernel's configurations, a target, then the predictions."""
    for entry in catalog():
        for target in targets:
            amd = target.startswith("gfx")
            configs = [config for config in entry.configs if not (amd and config.nvidia)]
            configs = configs[:1] if first_only else configs
            yield from judged(entry, target, [compile_for(entry, c, target) for c in configs])
    for work in works():
        for device in DEVICES:
            microseconds = 1e6 * work.seconds(device)
            yield Row(f"{work.name}, predicted, {device.name}", microseconds, "µs")


def judged(entry: Entry, target: str, compiled: list[Compiled]) -> Iterator[Row]:
    """Rows of one kernel on one target."""
    name = f"{entry.name}, {target}"
    yield at_most(f"{name}: spills", max(c.spills for c in compiled), 0, "bytes or registers")
    yield at_most(f"{name}: stack", max(c.stack for c in compiled), 0, "bytes")
    shared = max(c.shared for c in compiled)
    yield at_most(f"{name}: shared memory", shared, SHARED_LIMIT[target], "bytes")
    judge = min if entry.product else max
    yield at_least(f"{name}: loads", judge(c.load_bytes for c in compiled), LOAD_BYTES, "bytes")
    yield Row(f"{name}: registers", max(c.registers for c in compiled), "a thread")
    if entry.product:
        yield at_least(f"{name}: matrix", min(c.matrix for c in compiled), 1, "instructions")


def main() -> int:
    """The command."""
    command = parser(__doc__)
    command.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    command.add_argument("--first-only", action="store_true", help="each table's first alone")
    options = command.parse_args()
    return publish(rows(options.targets, options.first_only), options.json)


if __name__ == "__main__":
    sys.exit(main())
