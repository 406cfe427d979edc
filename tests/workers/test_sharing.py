"""How many trials should share a GPU: what is taken of what is measured, and one real measuring."""

from __future__ import annotations

import dataclasses

import pytest
from depth import LONG

from nas.running.gpu_sharing import probe
from search_space.backbone import Backbone
from search_space.base import Base
from search_space.contract import Recipe
from search_space.errors import InputError, WorkFailed
from workers import sharing
from workers.sharing import OutOfMemory, best, measure

GIB = 2.0**30
SMALL = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=16, reference_d_ff=32)


@pytest.fixture
def request_():
    return probe(SMALL, Recipe(batch_size=8), 1e12, "cpu")


@pytest.fixture
def gpu(monkeypatch):
    """A GPU of 8 GiB: what `rates` says of so many trials, each of which holds `peak` bytes a
    sequence of its batch."""

    def stand(rates, peak=0.125 * GIB, grown=None):
        class Team(sharing.Team):
            def grow(self, count):
                if grown is not None:
                    grown.append(count)

            def train(self, count, seconds):
                held = peak * self.request.recipe.batch_size
                if count * held > 8 * GIB:
                    raise OutOfMemory("full")
                return rates[count], held

        monkeypatch.setattr(sharing, "memory_of", lambda device: 8 * GIB)
        monkeypatch.setattr(sharing, "Team", Team)

    return stand


def test_the_fewest_that_are_as_good_as_any_share():
    assert best([(1, 100.0)]) == 1
    assert best([(1, 100.0), (2, 104.0)]) == 1
    assert best([(1, 100.0), (2, 180.0), (4, 186.0), (8, 120.0)]) == 2
    assert best([(1, 100.0), (2, 90.0), (4, 150.0)]) == 4


def test_it_stops_where_more_stand_in_each_others_way(request_, gpu):
    gpu({1: 100.0, 2: 190.0, 4: 195.0})
    found = measure(request_)
    assert found.trials == 2
    assert found.rates == ((1, 100.0), (2, 190.0), (4, 195.0))
    assert found.words == (
        "2 trials share a GPU: 1, 2, 4 of them train 1.00, 1.90, 1.95 times the tokens of one a "
        "second (100); one holds 1.0 of 8.0 GiB; more would stand in each other's way"
    )


def test_it_stops_before_the_memory_is_full(request_, gpu):
    gpu({1: 100.0, 2: 190.0, 4: 350.0, 8: 600.0})
    found = measure(request_)  # 8 of 1 GiB each would leave nothing of 8 GiB
    assert found.trials == 4
    assert found.why == "8 would not fit into its memory"


def test_all_that_may_be_tried_start_at_once(request_, gpu):
    """Starting costs seconds, and the first alone says how many fit."""
    grown = []
    gpu({1: 100.0, 2: 190.0, 4: 350.0}, grown=grown)
    measure(request_)
    assert grown == [1, 4, 4]
    grown.clear()
    gpu({1: 100.0, 2: 101.0}, peak=0.01 * GIB, grown=grown)
    measure(request_)
    assert grown == [1, 16]


def test_a_gpu_that_not_one_trial_fits_into_names_the_batch_that_does(request_, gpu):
    gpu({1: 100.0}, peak=3 * GIB)
    with pytest.raises(InputError, match=r"batch_size 8 needs more memory.*8.0 GiB; 2 fits"):
        measure(request_)
    gpu({1: 100.0}, peak=9 * GIB)
    with pytest.raises(InputError, match=r"even with recipe.batch_size 1; make the backbone"):
        measure(request_)


def test_a_cut_model_is_measured_by_its_shapes():
    base = Base(model="m", digest="d", family="llama", head_dim=8, n_kv_heads=2)
    assert probe(dataclasses.replace(SMALL, base=base), Recipe(), 1e12, "cpu").backbone == SMALL


@LONG
@pytest.mark.slow
def test_processes_train_beside_each_other_and_a_broken_one_is_one_line(request_):
    rate, peak = sharing.together(request_, 2, 0.05)
    assert rate > 0 and peak == 0  # on a CPU nobody counts it
    with sharing.Team(request_) as team:
        team.grow(2)
        first = team.children[0]
        assert team.train(1, 0.05)[0] > 0
        assert team.train(2, 0.05)[0] > 0
        with pytest.raises(OutOfMemory):
            team.train(3, 0.05)
    assert first.poll() is not None and not team.children
    broken = dataclasses.replace(request_, backbone=dataclasses.replace(SMALL, n_heads=2))
    object.__setattr__(broken.backbone, "n_heads", 3)
    with pytest.raises(WorkFailed, match=r"set workers.gpus_per_trial to a number"):
        measure(broken, counts=(1,))
