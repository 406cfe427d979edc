"""The method of docs/extending.md as a package that is installed, and a registry for each test."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installing import install

from search_space import methods
from search_space.corpus import CorpusSpec

HERE = Path(__file__).parent


@pytest.fixture
def registry(monkeypatch):
    """A registry that is filled anew in this test, and forgotten after it."""
    monkeypatch.setattr(methods, "_known", None)
    return methods


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A folder of installed packages with first_k in it."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(HERE / "first_k", folder / "first_k")
    install(folder, "first-k", "first_k = first_k.home:FirstK")
    return folder


@pytest.fixture
def installed(site, registry, monkeypatch) -> Iterator[Path]:
    """First-k as this process and those that it starts find it."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(HERE.parents[1])]))
    yield site
    for name in [name for name in sys.modules if name.split(".")[0] == "first_k"]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory):
    """Some of the standard library's source, 300 tokens of vocabulary."""
    from workers.corpus import prepare

    folder = tmp_path_factory.mktemp("corpus")
    return prepare(CorpusSpec(max_bytes=600_000), vocab_size=300, seq_len=32, cache_dir=folder)
