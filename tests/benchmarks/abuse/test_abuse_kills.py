"""A process of Ray killed under a study: one line, a recorded state, nothing left."""

from __future__ import annotations

from depth import LONG

from benchmarks.abuse.attempts import failures
from benchmarks.abuse.kills import SHORT

pytestmark = LONG


def test_a_killed_process_of_ray_ends_a_study_in_order():
    assert failures("kills", SHORT) == []
