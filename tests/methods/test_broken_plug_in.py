"""A plug-in that breaks under a study: the machine's fault, and no design's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from installing import install

from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.running.launcher import launch_study, resume_study
from nas.store import BrokenRecord, Store, StudyState
from search_space import methods
from search_space.contract import EvalResult, Status
from search_space.errors import BrokenPlugIn, WorkFailed
from workers.evaluate import evaluate

pytestmark = pytest.mark.slow

STUDY = {
    "name": "sound",
    "backbone": {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32},
    "budget": {"trials": 4, "trial_flops": 2e7},
    "warm_start": ["dense"],
    "space": {"methods": ["dense", "hash"]},
}
SAID = (
    "the entry point gone = no_such_package.home:Gone of the package broken 1.0 cannot be "
    "imported: ModuleNotFoundError: No module named 'no_such_package'; mend or uninstall it"
)


@pytest.fixture
def broken(registry, tmp_path):
    """Within it a faulty package is installed, and this process has looked for no method yet."""
    install(tmp_path, "broken", "gone = no_such_package.home:Gone")

    @contextmanager
    def installed() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(tmp_path))
            patch.setattr(methods, "_known", None)
            yield

    return installed


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def ends_well(request):
    seen = {"evaluation": request.evaluation, "attempt": request.attempt}
    return 1.0, [EvalResult(**seen, status=Status.FINISHED, bits_per_byte=2.0, flops=1e7)]


def test_its_designs_are_taken_up_again_once_it_is_mended(store, broken, small_corpus):
    def work(request):
        if request.number == 0:
            return ends_well(request)
        with broken():
            here = dataclasses.replace(request, corpus_dir=str(small_corpus.dir))
            return 1.0, [evaluate(here, lambda point: None)]

    config = StudyConfig.from_dict(STUDY)
    with pytest.raises(WorkFailed) as caught:
        launch_study(config, store, pool_factory=lambda config: SimulatedPool(1, work))
    assert str(caught.value) == f"{SAID}; then go on with: nas resume sound"
    study = store.study()
    trials = store.trials(study.id)
    assert study.state is StudyState.FAILED
    assert [trial.status for trial in trials] == [Status.FINISHED, Status.STOPPED]
    assert store.ledger(study.id).reserved == 0

    study = resume_study(study, store, pool_factory=lambda config: SimulatedPool(1, ends_well))
    assert study.state is StudyState.FINISHED
    assert [trial.status for trial in store.trials(study.id)] == [Status.FINISHED] * 4


def test_what_is_stored_is_not_blamed_for_it(store, broken):
    config = StudyConfig.from_dict(STUDY)
    launch_study(config, store, pool_factory=lambda config: SimulatedPool(1, ends_well))
    with broken(), pytest.raises(BrokenPlugIn) as caught:
        resume_study(store.study(), store)
    assert str(caught.value) == SAID
    with broken(), pytest.raises(BrokenRecord) as unread:
        store.trials(store.study().id)
    assert str(unread.value) == f"trial 0 of study 'sound' cannot be read: {SAID}"
