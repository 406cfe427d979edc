"""The short form of the kind `signals`."""

from pathlib import Path

import pytest
from depth import LONG

from benchmarks.abuse.attempts import failures
from benchmarks.abuse.signals import SHORT

pytestmark = LONG


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="reads /proc")
def test_signals():
    assert failures("signals", SHORT) == []
