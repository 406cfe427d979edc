"""One local Ray for the tests that need a real one, and requests that it can run."""

from __future__ import annotations

import os
import signal
import time

import pytest

from nas.ray_pool import RayPool
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Progress, Recipe
from search_space.corpus import CorpusSpec
from search_space.cost import step_flops
from search_space.spec import FFNSpec

BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)
SPEC = FFNSpec(d_ff=32)
CORPUS = CorpusSpec(max_bytes=400_000)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(scope="session")
def make_request():
    """make_request(corpus_dir, trial, steps): a tiny trial."""

    def make(corpus_dir, trial, steps=4):
        return EvalRequest(
            evaluation=trial,
            spec=SPEC,
            backbone=BACKBONE,
            recipe=Recipe(batch_size=2),
            corpus_dir=corpus_dir,
            until_flops=step_flops(SPEC, BACKBONE, 2) * steps,
            eval_tokens=256,
        )

    return make


@pytest.fixture(scope="session")
def drain():
    """drain(pool, unfinished): all events until these trials have ended."""

    def read(pool, unfinished, seconds=90.0):
        events, deadline = [], time.monotonic() + seconds
        while unfinished and time.monotonic() < deadline:
            for event in pool.events(0.5):
                events.append(event)
                if not isinstance(event, Progress):
                    unfinished.remove(event.evaluation)
        assert not unfinished, "the pool went silent"
        return events

    return read


@pytest.fixture(scope="session")
def before_ray():
    """What must be the same after a pool has started: (environment, signal handlers)."""
    return dict(os.environ), {number: signal.getsignal(number) for number in SIGNALS}


@pytest.fixture(scope="session")
def ray_pool(before_ray):
    """Two workers."""
    made = RayPool(count=2)
    yield made
    made.close()


@pytest.fixture(scope="session")
def ray_corpus_dir(ray_pool, tmp_path_factory):
    """A corpus that the pool has prepared."""
    folder = tmp_path_factory.mktemp("cache")
    facts = ray_pool.prepare(CORPUS, 300, 32, str(folder))
    assert set(facts["ngram_bits_per_byte"]) == {"3", "4", "5"}
    assert facts["meta"]["vocab_size"] == 300
    return facts["dir"]
