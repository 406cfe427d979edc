"""What all tests share."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

# How this machine multiplies is measured where a test asks for that, and nowhere else.
os.environ.setdefault("FFN_NAS_PRODUCTS", "torch")
# Workers of pytest share the cores: torch's threads would wait for each other in busy loops.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from prepared import Prepared

# Whoever begins with one of these last is what all others wait for, here or in `make test-long`.
LONGEST = (
    "benchmarks/test_kills.py",
    "dashboard/test_browser_pages.py",
    "workers/kernels/test_kernels_interpreter.py",
    "workers/training/test_rungs_exact.py",
    "nas/running/test_kill_resume.py",
)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are made, none of which is garbage: no search among them, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest are begun first."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    """Forks of one process that has loaded torch and transformers."""
    processes = Prepared()
    yield processes
    processes.close()


@pytest.fixture(scope="session")
def new_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """new_database(folder): the URL of a SQLite database without studies there.

    All are copies of one: migrating each would be most of the time of the tests of the store.
    """
    from nas.store import Store

    made = tmp_path_factory.mktemp("database") / "nas.db"
    Store.open(f"sqlite:///{made}").close()

    def copied(folder: Path) -> str:
        return f"sqlite:///{shutil.copy(made, folder / 'nas.db')}"

    return copied


@pytest.fixture(scope="session", autouse=True)
def _checked_in_forks(prepared: Prepared) -> Iterator[None]:
    """Exports are checked in such forks. One test of the check itself takes a fresh process."""
    from nas.models import verify

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "run_child", prepared.run)
        yield
