"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

# How this machine multiplies is measured where a test asks for that, and nowhere else.
os.environ.setdefault("FFN_NAS_PRODUCTS", "torch")
# Workers of pytest share the cores: torch's threads would wait for each other in busy loops.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from prepared import Prepared

# Whoever begins with one of these last is what all others wait for.
LONGEST = (
    "benchmarks/test_kills.py",
    "dashboard/test_browser_pages.py",
    "workers/kernels/test_kernels_interpreter.py",
    "workers/training/test_rungs_exact.py",
    "nas/running/test_kill_resume.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest are begun first."""
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


@pytest.fixture(scope="session")
def prepared() -> Iterator[Prepared]:
    """Forks of one process that has loaded torch and transformers."""
    processes = Prepared()
    yield processes
    processes.close()


@pytest.fixture(scope="session", autouse=True)
def _checked_in_forks(prepared: Prepared) -> Iterator[None]:
    """Exports are checked in such forks. One test of the check itself takes a fresh process."""
    from nas.models import verify

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(verify, "run_child", prepared.run)
        yield
