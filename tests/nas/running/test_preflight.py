"""What would end a study later is refused before a worker starts."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace
from pathlib import Path

import pytest

from nas.config import StudyConfig
from nas.models.checkpoints import RUNS
from nas.running.launcher import launch_study
from nas.running.preflight import check_store, check_study, check_writable
from nas.store import Store
from search_space.errors import InputError

pytestmark = pytest.mark.slow

CONFIG = {
    "name": "early",
    "backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "budget": {"trials": 4, "trial_flops": 1e12},
}


def config(**changes) -> StudyConfig:
    return StudyConfig.from_dict(CONFIG | changes)


def refused(store: Store, **changes) -> str:
    """The line that a launch ends with before it asks for a pool."""

    def pool(config):
        raise AssertionError("workers were started")

    with pytest.raises(InputError) as caught:
        launch_study(config(**changes), store, pool_factory=pool)
    assert store.studies() == []
    return str(caught.value)


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def test_a_file_where_the_checkpoints_go(store, tmp_path):
    (tmp_path / RUNS).write_text("mine")
    assert f"checkpoints need a folder: {tmp_path}/{RUNS} is a file" in refused(store)
    assert (tmp_path / RUNS).read_text() == "mine"


def test_a_link_to_nowhere(store, tmp_path):
    (tmp_path / RUNS).symlink_to(tmp_path / "none")
    assert "is a link to" in (said := refused(store)) and "which does not exist" in said


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder nobody can write")
def test_a_folder_that_cannot_be_written():
    with pytest.raises(InputError, match=r"/proc cannot be written to: .*; make it a writable"):
        check_writable(Path("/proc") / RUNS / "deeper")


def test_a_good_place_is_left_as_it_was(tmp_path):
    assert check_writable(tmp_path / "a" / RUNS) == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_hold_the_checkpoints(store):
    backbone = {"d_model": 2048, "n_layers": 24, "n_heads": 16}
    budget = {"trials": 10**6, "trial_flops": 1e15}
    said = refused(store, budget=budget, backbone=backbone)
    assert "1,000,000 trials of about 1,210,163,200 parameters need 4.84 PB" in said
    assert "free; free some, lower budget.trials" in said


def test_the_need_is_the_checkpoints_the_states_and_the_database(store, tmp_path, monkeypatch):
    from search_space.cost import model_cost
    from search_space.spec import FFNSpec

    given = config()
    given = replace(given, workers=replace(given.workers, count=3))
    spec = FFNSpec(d_ff=given.backbone.reference_d_ff)
    params = model_cost(spec, given.backbone).total_params
    need = (4 + 3 * 9) * 4 * params + 2**20 + 4 * 32 * 2**10

    def free(count, begun=None):
        usage = type("usage", (), {"free": count})
        monkeypatch.setattr("nas.running.preflight.shutil.disk_usage", lambda folder: usage)
        check_store(given, store, tmp_path / RUNS, begun)

    free(need)
    with pytest.raises(InputError, match=r"has .* free"):
        free(need - 1)
    begun = tmp_path / RUNS / "begun" / "states"
    begun.mkdir(parents=True)
    (begun / "x").write_bytes(b"12")
    free(need - 2, begun.parent)  # what it has already needs no further room
    with pytest.raises(InputError, match=r"has .* free"):
        free(need - 3, begun.parent)


def test_the_need_of_a_study_with_rungs_counts_the_states_of_paused_runs(
    store, tmp_path, monkeypatch
):
    usage = type("usage", (), {"free": 0})
    monkeypatch.setattr("nas.running.preflight.shutil.disk_usage", lambda folder: usage)
    budget = {"trials": 90, "trial_flops": 1e15}
    flat = _need(config(budget=budget), store, tmp_path)
    rungs = _need(config(budget=budget | {"rungs": 3}), store, tmp_path)
    url = {"state_url": "memory://x"}
    elsewhere = _need(config(budget=budget | {"rungs": 3}, workers=url), store, tmp_path)
    assert elsewhere < flat < rungs  # a ninth of the checkpoints, but a state a run


def _need(given, store, tmp_path):
    """Bytes of checkpoints and states, as the refusal says them, in MB."""
    with pytest.raises(InputError) as caught:
        check_store(given, store, tmp_path / RUNS)
    found = re.findall(r"([0-9.]+) MB", str(caught.value))
    return sum(map(float, found[:2]))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trials": 20, "trial_flops": 1e307}, "trial_flops must be a finite number"),
        ({"flops": 1e300}, "the account could not see one trial of trial_flops 1e+12"),
        ({"trial_flops": 1e25}, "more than the store can count (9e+15)"),
    ],
)
def test_a_number_that_the_store_cannot_hold(changes, said):
    given = config()
    # The study file's own checks may refuse some of these first.
    budget = dataclasses.replace(given.budget)
    for name, value in changes.items():
        object.__setattr__(budget, name, value)
    object.__setattr__(given, "budget", budget)
    with pytest.raises(InputError) as caught:
        check_study(given)
    assert said in str(caught.value)


def test_a_large_study_is_not_refused():
    check_study(config(budget={"trials": 10_000, "trial_flops": 1e20}, seed=2**63 - 1))
