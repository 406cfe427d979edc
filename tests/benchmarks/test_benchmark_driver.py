"""The short form of `python -m benchmarks.driver`: the same study, with few trials."""

from __future__ import annotations

import pytest

from benchmarks import driver

pytestmark = pytest.mark.slow


def test_a_study_in_simulated_time_is_measured_whole(monkeypatch):
    monkeypatch.setattr(driver, "configuration", lambda trials: small(trials))
    rows = {row.name: row for row in driver.rows(trials=60, workers=8)}
    assert rows["trials"].value == 60
    assert 2 * 60 <= rows["evaluations"].value <= 6 * 60
    assert rows["FLOPs still reserved"].value == 0
    # The process's: other tests may have filled it before.
    assert rows["memory at its peak"].value > 0
    assert rows["trials of the study that is resumed"].value >= 60
    assert rows["resuming it"].holds
    assert 100 < rows["calls of functions, an evaluation"].value < 100_000
    assert 0.2 < rows["growth of the calls: last part / first part"].value < 5  # of few evaluations
    assert 0 < rows["driver and store, an evaluation"].value < 100  # ms; a busy machine


def small(trials, configuration=driver.configuration):
    """As many trials as are measured: the resumed study has a thousand more otherwise."""
    return configuration(min(trials, 80))
