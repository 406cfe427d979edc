"""What every backend of the store must do, on SQLite and on a real PostgreSQL: studies."""

from __future__ import annotations

import pytest
from store_cases import new_study

from nas.store import Facts, Store, StoreError, StudyState
from search_space.errors import InputError


class TestStudies:
    def test_a_study_reads_back_equal_after_reopening(self, url: str) -> None:
        with Store.open(url) as store:
            study = new_study(store)
        with Store.open(url, create=False) as reader:
            assert reader.study("demo") == study
        assert study.state is StudyState.RUNNING
        assert study.created_at.utcoffset() is not None
        assert study.ended_at is None

    def test_a_taken_name_gets_a_number(self, store: Store) -> None:
        names = [new_study(store).name for _ in range(3)]
        assert names == ["demo", "demo-2", "demo-3"]
        long = "x" * 64
        assert [new_study(store, long).name for _ in range(2)] == [long, "x" * 62 + "-2"]

    def test_an_exact_name_must_be_new(self, store: Store) -> None:
        store.check_name("demo")
        new_study(store, exact=True)
        with pytest.raises(InputError, match="'demo' exists; choose another"):
            new_study(store, exact=True)
        with pytest.raises(InputError, match="'demo' exists; choose another"):
            store.check_name("demo")
        with pytest.raises(InputError, match="1 to 64 letters"):
            store.check_name("a b")

    @pytest.mark.parametrize("name", ["", "x" * 65, "a b", "a/b", "..", "-x", "é", "a\n"])
    def test_an_illegal_name_is_refused(self, store: Store, name: str) -> None:
        with pytest.raises(InputError, match="1 to 64 letters"):
            new_study(store, name)

    @pytest.mark.parametrize("budget", [0.0, -1.0, float("inf"), float("nan")])
    def test_a_budget_is_finite_and_above_zero(self, store: Store, budget: float) -> None:
        with pytest.raises(InputError, match=r"budget in FLOPs must be (above 0|a finite number)"):
            new_study(store, budget_flops=budget)

    def test_a_seed_fits_in_64_bits(self, store: Store) -> None:
        assert new_study(store, seed=2**63 - 1).seed == 2**63 - 1
        with pytest.raises(InputError, match="64 bits"):
            new_study(store, seed=2**63)

    def test_studies_come_newest_first(self, store: Store) -> None:
        with pytest.raises(InputError, match="no studies yet; start one with: nas launch"):
            store.study(None)
        for name in ("one", "two"):
            new_study(store, name)
        assert [study.name for study in store.studies()] == ["two", "one"]
        assert store.study(None).name == "two"

    def test_an_unknown_study_names_the_nearest(self, store: Store) -> None:
        new_study(store, "prose")
        with pytest.raises(InputError, match="did you mean 'prose'"):
            store.study("pose")

    def test_facts_merge_and_a_state_sets_the_end(self, store: Store) -> None:
        study = new_study(store)
        first = Facts(machine="a", ngram_bits_per_byte={"3": 2.5}, more={"x": 1})
        store.update_study(study.id, facts=first)
        store.update_study(study.id, facts=Facts(machine="b", more={"y": None}))
        ended = store.update_study(study.id, state=StudyState.STOPPED)
        assert ended == store.study("demo")
        assert ended.facts == Facts(
            machine="b", ngram_bits_per_byte={"3": 2.5}, more={"x": 1, "y": None}
        )
        assert ended.state is StudyState.STOPPED
        assert ended.ended_at is not None
        assert ended.ended_at >= study.created_at
        again = store.update_study(study.id, state=StudyState.RUNNING)
        assert again.ended_at is None
        with pytest.raises(StoreError, match="no study with id 99"):
            store.update_study(99, facts=Facts(machine="a"))


def test_a_file_that_somebody_else_has_open_is_not_removed(tmp_path):
    url = f"sqlite:///{tmp_path}/nas.db"
    with Store.open(url) as refused:
        with Store.open(url) as other:
            refused.discard_if_unused()
            study = other.create_study("a", {}, 0, 1e9, ["bits_per_byte"])
            assert other.study("a") == study
        with Store.open(url, create=False) as reader:
            assert reader.study("a") == study


def test_a_file_that_nobody_used_is_removed_whole(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as refused:
        refused.discard_if_unused()
    assert list(tmp_path.iterdir()) == []
