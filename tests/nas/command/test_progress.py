"""A display whose reader went away ends itself alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from patience import WAIT_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
STUDY = """
import os, sys
from nas.config import StudyConfig
from nas.running.launcher import launch_study
from benchmarks.simulated_pool import SimulatedPool
from nas.command.progress import StudyDisplay
from nas.store import Store
from nas.command.terminal import console
from search_space.contract import EvalResult, Status

class Pool(SimulatedPool):
    def prepare(self, spec, vocab_size, seq_len, cache_dir):
        facts = super().prepare(spec, vocab_size, seq_len, cache_dir)
        return facts | {"meta": facts["meta"] | {"source": "x", "tokens": {"train": 9}}}

def work(r):
    return 1.0, [
        EvalResult(evaluation=r.evaluation, status=Status.FINISHED, bits_per_byte=2.0)
    ]
config = StudyConfig.from_dict({
    "backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "budget": {"trials": 2, "trial_flops": 1e12},
    "warm_start": ["dense", "hash"],
})
with Store.open("sqlite:///nas.db") as store:
    screen = console(stderr=True)
    assert screen.is_terminal == (sys.argv[2] == "terminal")
    os.close(int(sys.argv[1]))  # the reader of stderr goes away, or the terminal closes
    with StudyDisplay(screen) as display:
        record = launch_study(
            config, store, report=display.note, started=display.started, listen=display.update,
            pool_factory=lambda config: Pool(1, work),
        )
print(record.state.value, flush=True)
"""


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_reader_that_goes_away_does_not_end_the_study(tmp_path, kind):
    ours, theirs = os.pipe() if kind == "pipe" else os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", STUDY, str(ours), kind],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm"},
        pass_fds=[ours],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(ours)
    os.close(theirs)
    out, _ = process.communicate(timeout=WAIT_S)
    assert out == "finished\n"
