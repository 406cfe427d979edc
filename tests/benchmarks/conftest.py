"""A small prepared corpus that the benchmarks' tests share."""

from __future__ import annotations

import pytest

from search_space.corpus import CorpusSpec
from workers.corpus import prepare


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """Some of the standard library's source, 300 tokens of vocabulary."""
    folder = tmp_path_factory.mktemp("corpus")
    return prepare(CorpusSpec(max_bytes=600_000), vocab_size=300, seq_len=32, cache_dir=folder)
