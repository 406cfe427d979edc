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
