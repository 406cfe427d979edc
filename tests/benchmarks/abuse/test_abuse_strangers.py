"""A process without the secret does not get into a study's Ray, and does not disturb it."""

from __future__ import annotations

from depth import LONG

from benchmarks.abuse.attempts import failures
from benchmarks.abuse.strangers import SHORT

pytestmark = LONG


def test_strangers_stay_outside():
    assert failures("strangers", SHORT) == []
