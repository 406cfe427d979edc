"""A short form of the specs that the abuse benchmark tries."""

from __future__ import annotations

from benchmarks.abuse.attempts import failures
from benchmarks.abuse.specs import SHORT


def test_every_attempt_ends_as_it_should():
    assert failures("specs", SHORT) == []
