"""A short form of the study files that the abuse benchmark tries."""

from __future__ import annotations

import pytest

from benchmarks.abuse.attempts import failures
from benchmarks.abuse.study_files import SHORT

pytestmark = pytest.mark.slow


def test_every_attempt_ends_as_it_should():
    assert failures("study_files", SHORT) == []
