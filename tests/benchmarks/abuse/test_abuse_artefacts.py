"""Damaged checkpoints and exports: the short form of the measured one."""

import pytest

from benchmarks.abuse.artefacts import SHORT
from benchmarks.abuse.attempts import failures

pytestmark = pytest.mark.slow


def test_damaged_checkpoints_and_exports_are_one_line():
    assert failures("artefacts", SHORT) == []
