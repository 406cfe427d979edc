"""How much memory a call needs beside what stands already."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

CPU = 0  # of a trace's device types


def peak_extra_bytes(call: Callable[[], object]) -> int:
    """The peak of live CPU tensor bytes during `call()` over those at its start.

    torch's own allocator is asked, so temporaries inside a kernel count and Python objects do not.
    What `call` returns is held until it ended. Call it once before: the first call of a thing may
    build what later ones use again (caches, recycled gradients), and gradients that stand at the
    start are no extra.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = call()
    del result
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(file))
        events = json.loads(file.read_text())["traceEvents"]
    return _peak([e for e in events if e["name"] == "[memory]"])


def _peak(events: list[dict[str, Any]]) -> int:
    live = peak = 0
    for event in sorted(events, key=lambda e: float(e["ts"])):
        if event["args"]["Device Type"] == CPU:
            live += int(event["args"]["Bytes"])
            peak = max(peak, live)
    return peak
