"""A short form of the command lines that the abuse benchmark tries."""

from __future__ import annotations

import pytest

from benchmarks.abuse.attempts import failures
from benchmarks.abuse.command_lines import SHORT

pytestmark = pytest.mark.slow


def test_every_attempt_ends_as_it_should():
    assert failures("command_lines", SHORT) == []
