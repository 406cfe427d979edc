"""A short form of the specs that the abuse benchmark tries."""

from __future__ import annotations

import pytest

from benchmarks.abuse.attempts import failures
from benchmarks.abuse.specs import SHORT

pytestmark = pytest.mark.slow


def test_every_attempt_ends_as_it_should():
    assert failures("specs", SHORT) == []
