"""A small prepared corpus that the workers' tests share."""

from __future__ import annotations

import pytest

from search_space.corpus import CorpusSpec
from workers.corpus import prepare
from workers.kernels.settings import Backend, override


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """Some of the standard library's source, 300 tokens of vocabulary."""
    folder = tmp_path_factory.mktemp("corpus")
    return prepare(CorpusSpec(max_bytes=600_000), vocab_size=300, seq_len=32, cache_dir=folder)


@pytest.fixture(params=[Backend.NUMBA, Backend.TORCH])
def form(request):
    """Both forms of the CPU's operations; a file asks for it once, for all of its tests."""
    with override(backend=request.param):
        yield request.param
