"""Columns that are kept on disk: a new server goes on from them, and never from another's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dashboard.data import follower, kept
from dashboard.data.follower import Follower
from dashboard.data.kept import Kept, agrees
from dashboard.data.reading import Reading
from dashboard.data.source import Source
from nas.store import Store, StudyState
from search_space.contract import EvalResult, Status
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of its own, in which small studies are kept too, and at once."""
    monkeypatch.setenv("FFN_NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(follower, "LEAST", 1)
    monkeypatch.setattr(Kept, "save", Kept.write)
    return tmp_path / "cache" / kept.FOLDER


@pytest.fixture
def whole(monkeypatch) -> list[str]:
    """The names of studies that were read from their beginning."""
    seen, begin = list[str](), Follower._begin

    def noted(self, store, study):
        seen.append(study.name)
        begin(self, store, study)

    monkeypatch.setattr(Follower, "_begin", noted)
    return seen


def anew(url: str, store: Store, name: str = "demo") -> Reading:
    """As a server reads it that has just begun."""
    return Follower(Kept(url)).read(store, name)


def assert_same(found: Reading, expected: Reading) -> None:
    assert found.trials.equals(expected.trials)
    assert found.evaluations.equals(expected.evaluations)
    assert (found.stamp, found.chances) == (expected.stamp, expected.chances)
    assert found.knobs.equals(expected.knobs)


def go_on(store: Store, study_id: int) -> None:
    """The open evaluation ends, a trial begins, another is measured."""
    (running,) = (each.id for each in store.evaluations(study_id) if each.ended_at is None)
    store.end_evaluation(
        EvalResult(evaluation=running, status=Status.FINISHED, bits_per_byte=1.5, flops=2.0)
    )
    more = {"source": "x", "params": {}, "until_flops": 1e9, "cost": {}}
    _, measured = store.add_trial(study_id, FFNSpec(d_ff=24), seed=0, **more)
    store.end_evaluation(
        EvalResult(evaluation=measured.id, status=Status.FINISHED, bits_per_byte=1.8, seconds=3.0)
    )
    store.add_trial(study_id, FFNSpec(d_ff=8), seed=0, **more)


def test_what_is_kept_is_gone_on_from(url: str, fill, whole) -> None:
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        first = anew(url, store)
        assert whole == ["demo"]
        assert_same(anew(url, store), first)
        go_on(store, study.id)
        later = anew(url, store)
        assert whole == ["demo"], "the second and the third were read from what is kept"
        assert_same(later, Follower().read(store, "demo"))
        assert len(later.trials) == 7 and later.trials.loc[4, "bits_per_byte"] == 1.5


def test_another_history_under_the_same_name_is_read_whole(url: str, fill, whole) -> None:
    """As when an older copy of the database is put back, and the study goes another way from it."""
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.FINISHED)
        anew(url, store)
        last = store.evaluations(study.id)[-1].id
        with store._writing() as connection:
            connection.exec_driver_sql(f"UPDATE evaluation SET seconds = 7.5 WHERE id = {last}")
        assert anew(url, store).evaluations.loc[last, "seconds"] == 7.5
        assert whole == ["demo"] * 2


def test_a_copy_of_a_database_has_columns_of_its_own(tmp_path, fill, whole, cache) -> None:
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("a", "b")]
    with Store.open(urls[0]) as store:
        fill(store, "demo", StudyState.FINISHED)
        anew(urls[0], store)
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    with Store.open(urls[1]) as store:
        anew(urls[1], store)
    assert whole == ["demo"] * 2 and len(list(cache.glob("*.arrow"))) == 4


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "older"])
def test_what_cannot_be_read_is_made_again(url: str, fill, whole, cache, monkeypatch, damage):
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        first = anew(url, store)
        (file,) = cache.glob("*.trial.arrow")
        if damage == "gone":
            file.unlink()
        elif damage == "older":
            monkeypatch.setattr(kept, "_code", lambda: b"of another version")
        else:
            file.write_bytes(file.read_bytes()[: 300 if damage == "cut" else 0])
        assert_same(anew(url, store), first)
        assert whole == ["demo"] * 2
        assert_same(anew(url, store), first)
        assert whole == ["demo"] * 2, "it was kept again"


def test_without_a_place_to_keep_them_columns_are_read(url: str, fill, cache, caplog) -> None:
    caplog.set_level("INFO", logger=kept.__name__)
    cache.parent.write_text("no folder")
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        assert len(anew(url, store).trials) == 5
    assert "columns are read from the database each time" in caplog.text


def test_few_studies_are_kept_and_no_drafts(url: str, fill, cache, monkeypatch) -> None:
    monkeypatch.setattr(kept, "FILES", 2)
    with Store.open(url) as store:
        for name in ("a", "b", "c"):
            fill(store, name, StudyState.FINISHED)
            anew(url, store, name)
        assert len(list(cache.iterdir())) == 4
        newest = store.study("c").uid
    assert Kept(url).load(newest) is not None


def test_small_studies_are_not_kept_and_growing_ones_now_and_then(url, fill, cache, monkeypatch):
    monkeypatch.setattr(follower, "LEAST", 6)
    written, write = [], Kept.save
    monkeypatch.setattr(
        Kept, "save", lambda *given: written.append(len(given[2]["id"])) or write(*given)
    )
    more = {"seed": 0, "source": "x", "params": {}, "until_flops": 1e9, "cost": {}}
    with Store.open(url) as store:
        study = fill(store, "demo", StudyState.RUNNING)
        follows = Follower(Kept(url))
        for number in range(20):
            follows.read(store, "demo")
            store.add_trial(study.id, FFNSpec(d_ff=8 + number), **more)
    assert written == [6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 21, 24]


def test_sums_are_those_of_the_columns(url: str, fill_with_rungs) -> None:
    with Store.open(url) as store:
        study = fill_with_rungs(store, "demo")
        follows = Follower()
        follows.read(store, "demo")
        sums = store.sums(study.id)
        assert agrees(sums, follows._evaluations, follows._trials)
        for table, columns in sums.items():
            for name in columns:
                other = {**sums, table: columns | {name: 1.01 * columns[name] + 1}}
                assert not agrees(other, follows._evaluations, follows._trials), (table, name)


def test_the_list_of_studies_takes_what_is_kept(url: str, fill, monkeypatch) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        fill(store, "small", StudyState.FINISHED)
    counted = {each.study.name: each for each in Source(url).summaries()}
    Source(url).reading("demo")
    source = Source(url)
    source.reading("demo")
    asked, columns = [], Store.finished_columns
    monkeypatch.setattr(
        Store, "finished_columns", lambda self, ids: asked.append(list(ids)) or columns(self, ids)
    )
    again = {each.study.name: each for each in source.summaries()}
    assert asked == [[counted["small"].study.id]]
    for name, each in counted.items():
        found = again[name]
        assert (found.best, found.frontier, found.spent) == (each.best, each.frontier, each.spent)
        assert found.trials == each.trials
