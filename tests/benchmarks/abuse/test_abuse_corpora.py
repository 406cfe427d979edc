"""Odd, broken and empty corpora, in every format."""

import pytest

from benchmarks.abuse.attempts import failures
from benchmarks.abuse.corpora import SHORT, attempt
from benchmarks.abuse.corpus_cases import CASES

pytestmark = pytest.mark.slow


def test_corpora():
    assert failures("corpora", SHORT) == []


# Every case, because each is one that somebody met.
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_corpus_arrives_whole_or_with_a_word(case, tmp_path):
    assert attempt(case, tmp_path / "x") == ""
