"""The short form of `benchmarks.reading`: every reader is measured, and reads what it should."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from depth import LONG
from patience import WAIT_S

from benchmarks.reading import COMMANDS, rows
from benchmarks.reading_store import NAME, fill
from nas.command.cli import run
from nas.store import Store

pytestmark = pytest.mark.slow


@LONG
def test_every_reader_has_a_row() -> None:
    found = {row.name: row for row in rows(trials=40, times=1)}
    for words in COMMANDS:
        assert 0 < found[f"nas {words[0]}"].value < 60
    assert 0 < found["an ask after it"].value < 60


def test_the_study_is_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/nas.db"
    with Store.open(url) as store:
        study = fill(store, trials=30, points=4)
        trials = store.trials(study.id)
        assert [trial.number for trial in trials] == list(range(30))
        assert len({trial.key for trial in trials}) == 30
        evaluations = store.evaluations(study.id)
        assert all(len(store.curve(each.id)) == 4 for each in evaluations)
        assert store.ledger(study.id).reserved == 0.0
        spent = sum(trial.flops for trial in trials)
        assert store.ledger(study.id).spent == pytest.approx(spent, abs=1.0)
        # What stands in a trial's row is what its evaluations say.
        assert Counter(trial.rung for trial in trials) == {0: 20, 1: 6, 2: 4}
        assert (trials[0].seeds, trials[9].seeds) == (2, 1)
        for trial in trials:
            own = store.trial_evaluations(trial.id)
            peers = [each.bits_per_byte for each in own if each.rung == trial.rung]
            assert trial.bits_per_byte == pytest.approx(sum(peers) / trial.seeds)
            assert trial.result is not None and trial.result.evaluation in {e.id for e in own}
    assert run(["status", NAME, "--db", url, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["trials"], row["finished"], row["running"]) == (30, 4, 0)


def test_listing_and_the_frontier_of_two_objectives_load_no_numbers_library(tmp_path) -> None:
    url = f"sqlite:///{tmp_path}/nas.db"
    with Store.open(url) as store:
        fill(store, trials=30, points=1)
    program = (
        "import sys; from nas.command.cli import run; "
        "codes = [run([word, '--db', sys.argv[1]]) for word in ('list', 'status', 'pareto')]; "
        "heavy = ('numpy', 'pandas', 'moocore', 'plotly', 'optuna', 'yaml', 'alembic'); "
        "print(codes, [name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S)
    assert done.stderr.strip() == "[0, 0, 0] []"
