"""A process of Ray killed under a study: one line, a recorded state, nothing left."""

from __future__ import annotations

import pytest

from benchmarks.abuse.attempts import failures
from benchmarks.abuse.kills import SHORT

pytestmark = pytest.mark.slow


def test_a_killed_process_of_ray_ends_a_study_in_order():
    assert failures("kills", SHORT) == []
