"""A study whose driver is killed, stopped or late is the study that was left alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sqlite3
import time
from collections import defaultdict
from pathlib import Path

import killed_driver
import pytest
from killed_driver import FLAT, LOST, NAME, REFUSED, RUNGS, STOPPED, run
from patience import WAIT_S

from nas.models.checkpoints import study_folder
from nas.running.launcher import resume_study
from nas.store import Store, StudyState
from search_space.contract import MANIFEST, WEIGHTS, Status
from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus import prepare

pytestmark = pytest.mark.slow

# Points, and the pass of each at which a driver is killed; each later one goes on with the study.
KILLS = {
    "in the driver": (
        *(("begun", 2), ("begun", 3), ("begun", 1)),
        *(("result not committed", 2), ("result not committed", 1), ("result not committed", 3)),
        *(("result recorded", 1), ("result recorded", 2), ("begun", 1)),
    ),
    "in the worker": (
        *(("on the trunk", 5), ("on the branch", 2), ("state half written", 5)),
        *(("on the trunk", 30), ("weights half written", 1), ("on the branch", 11)),
        *(("state half written", 12), ("on the branch", 12)),
    ),
}


@pytest.fixture(scope="module")
def corpus_dir(tmp_path_factory):
    """Some of the standard library's source."""
    folder = tmp_path_factory.mktemp("cache")
    spec = CorpusSpec(max_bytes=300_000)
    return str(prepare(spec, vocab_size=300, seq_len=16, cache_dir=folder).dir)


@pytest.fixture(scope="module")
def left_alone(corpus_dir, tmp_path_factory):
    """left_alone(config): where a study is that nothing happened to, made once; read it only."""
    made = {}

    def url_of(config):
        key = json.dumps(config)
        if key not in made:
            made[key] = f"sqlite:///{tmp_path_factory.mktemp('undisturbed')}/nas.db"
            assert run(made[key], corpus_dir, config, states=False) == 0
        return made[key]

    return url_of


@pytest.fixture(scope="module")
def undisturbed(left_alone):
    """undisturbed(config): what such a study tells."""
    return lambda config: told(left_alone(config))


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/nas.db"


def told(url):
    """All that a study is, but for times and attempts: by trial, by evaluation, by ledger line."""
    with Store.open(url, create=False) as store:
        study = store.study(NAME)
        trials = store.trials(study.id)
        evaluations = store.evaluations(study.id)
        folder = study_folder(study, store)
        return {
            "state": study.state,
            "deviation": study.deviation,
            "trials": [
                (t.number, t.key, t.params, t.source, t.cost, t.status, t.rung, t.seeds)
                + (t.bits_per_byte, t.active_flops, t.flops)
                for t in trials
            ],
            "evaluations": [
                (e.id, e.trial, e.seed, e.rung, e.status, e.until_flops, e.start_flops, e.losses)
                for e in evaluations
            ],
            "results": [result_told(store.result(e.id)) for e in evaluations],
            "points": {
                (e.id, p.step, p.steps, p.flops, p.loss)
                for e in evaluations
                for p in store.curve(e.id)
            },
            "folders": len(list(folder.glob("trial-*"))),
            "weights": [weights(folder, store.result(e.id)) for e in evaluations],
            "account": store.ledger(study.id),
            "ledger": ledger(url),
            "states": sorted(path.name for path in folder.glob("states/*")),
        }


def result_told(result):
    fields = {"seconds": 0.0, "attempt": 0, "checkpoint": "", "checkpoint_digest": ""}
    return dataclasses.replace(result, **fields)


def weights(folder: Path, result):
    """The checksum of an evaluation's weights, once they are known to be there."""
    if not result.checkpoint:
        return ""
    assert (folder / result.checkpoint / WEIGHTS).is_file()
    return json.loads((folder / result.checkpoint / MANIFEST).read_text())["files"][WEIGHTS]


def query(url, text):
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        found = database.execute(text).fetchall()
        database.commit()
    return found


def ledger(url):
    return query(url, "select evaluation_id, kind, flops from ledger_entry order by id")


def by_evaluation(lines):
    """What each evaluation spent, and what it holds: a stopped one has lines for each part."""
    spent, held = defaultdict(float), defaultdict(float)
    for evaluation, kind, flops in lines:
        spent[evaluation] += flops if kind == "spend" else 0.0
        held[evaluation] += flops if kind == "reserve" else -flops
    return dict(spent), {id: flops for id, flops in held.items() if abs(flops) > 0.5}


def assert_same(found, expected):
    """A point of a curve that the killed driver had not yet stored may be lost, no more."""
    for name, value in expected.items():
        assert found[name] <= value if name == "points" else found[name] == value, name
    assert found["state"] is StudyState.FINISHED
    assert found["account"].reserved == 0


def test_the_study_that_is_killed_is_worth_it(undisturbed):
    rungs = undisturbed(RUNGS)
    statuses = {status for _, _, _, _, status, *_ in rungs["evaluations"]}
    assert statuses == {Status.FINISHED}
    assert {rung for _, _, _, rung, *_ in rungs["evaluations"]} == {0, 1, 2}
    assert len({seed for _, _, seed, *_ in rungs["evaluations"]}) == 2, "nothing was repeated"
    promoted = {trial for _, trial, _, rung, *_ in rungs["evaluations"] if rung == 1}
    sources = [trial[3] for trial in rungs["trials"]]
    assert any(sources[trial] != "dense" for trial in promoted), "a proposal was promoted"
    assert "relu_routing" in {t[2].get("method") for t in rungs["trials"]}, "prices are fixed"


def log_of(url):
    return query(url, "select * from log_line order by evaluation_id, attempt, number")


def assert_whole_logs(url):
    """Every evaluation's log ends with its measure, and an attempt's lines are one after another;
    of an attempt that was killed the last ones may be missing."""
    ends = dict(query(url, "select id, attempt from evaluation"))
    logs = defaultdict(lambda: defaultdict(list))
    for evaluation, attempt, number, _, _, text in log_of(url):
        logs[evaluation][attempt].append((number, text))
    assert logs.keys() == ends.keys()
    for evaluation, last in ends.items():
        for attempt, lines in logs[evaluation].items():
            first = 0 if attempt > 1 else 1  # the driver's says why there is another attempt
            assert [number for number, _ in lines] == list(range(first, first + len(lines)))
            assert (attempt == 1) == ("taken up again" not in lines[0][1])
        assert max(logs[evaluation]) == last
        assert any(text.startswith("measured on") for _, text in logs[evaluation][last])


@pytest.mark.parametrize("where", KILLS)
def test_a_study_killed_at_a_point_is_the_study_that_was_left_alone(
    url, corpus_dir, undisturbed, where
):
    config, log = RUNGS, []
    for point, passes in KILLS[where]:
        code = run(url, corpus_dir, config, point=point, passes=passes)
        assert code == -signal.SIGKILL, f"it never came to the point: {point}"
        assert set(log) <= set(log_of(url)), "what was stored is lost or changed"
        config, log = None, log_of(url)
    assert run(url, corpus_dir) == 0
    assert set(log) <= set(log_of(url)), "what was stored is lost or changed"
    assert_whole_logs(url)
    assert_same(told(url), undisturbed(RUNGS))
    attempts = [attempt for (attempt,) in query(url, "select attempt from evaluation")]
    # What was recorded is not begun again.
    expected = sum(point != "result recorded" for point, _ in KILLS[where])
    assert sum(attempts) - len(attempts) == expected
    folder = Path(url.removeprefix("sqlite:///")).parent
    assert not list(folder.glob("nas-runs/*/.*")), "drafts are left"


def test_a_flat_study_killed_half_way_is_the_study_that_was_left_alone(
    url, corpus_dir, undisturbed
):
    half = FLAT["budget"]["trials"] // 2
    config = FLAT
    # What is not committed has its weights already, and they are written again.
    for point, passes in [("result recorded", half), ("result not committed", 1)]:
        assert run(url, corpus_dir, config, point=point, passes=passes) == -signal.SIGKILL
        assert query(url, "select state from study") == [("running",)]
        config = None
    assert query(url, "select count(*) from trial") == [(half + 1,)]
    assert run(url, corpus_dir) == 0
    assert_same(told(url), undisturbed(FLAT))


def test_a_study_stopped_twice_charges_to_the_flop(url, corpus_dir, undisturbed):
    expected = undisturbed(RUNGS)
    stop = {"point": "on the trunk", "number": signal.SIGINT}
    assert run(url, corpus_dir, RUNGS, passes=5, **stop) == STOPPED
    assert query(url, "select state from study") == [("stopped",)]
    assert query(url, "select status, reserved from evaluation") == [("stopped", 0.0)]
    assert run(url, corpus_dir, passes=50, **stop) == STOPPED
    assert run(url, corpus_dir) == 0
    found = told(url)
    assert len(found["ledger"]) == len(expected["ledger"]) + 2 * 3
    assert by_evaluation(found.pop("ledger")) == by_evaluation(expected["ledger"])
    assert_same(found, {name: value for name, value in expected.items() if name != "ledger"})


def test_a_finished_study_is_not_resumed(left_alone, corpus_dir):
    url = left_alone(FLAT)
    before = dump(url)
    with (
        Store.open(url) as store,
        pytest.raises(InputError, match="is finished; give it more with: nas extend tiny"),
    ):
        resume_study(store.study(NAME), store)
    assert run(url, corpus_dir) == REFUSED
    assert dump(url) == before


def test_a_driver_that_woke_up_late_writes_nothing(url, corpus_dir, undisturbed):
    point = {"point": "on the branch", "passes": 20, "number": signal.SIGSTOP}
    with killed_driver.driver(url, corpus_dir, RUNGS, **point) as first:
        wait_until_stopped(first.pid)
        before = dump(url)
        assert run(url, corpus_dir) == REFUSED, "two drivers"
        assert dump(url) == before
        query(url, "update study set lease_until = 1")
        assert run(url, corpus_dir) == 0
        after = dump(url)
        os.kill(first.pid, signal.SIGCONT)
        first.join(WAIT_S)
        assert first.exitcode == LOST
    assert dump(url) == after
    # Its worker, in the same process, could still write files of its own, beside those that count.
    files = dict.fromkeys(("states", "folders"))
    assert_same(told(url) | files, undisturbed(RUNGS) | files)


def test_a_driver_that_lost_its_study_while_nothing_ran_starts_nothing(url, corpus_dir):
    point = {"point": "result recorded", "passes": 2, "number": signal.SIGSTOP}
    with killed_driver.driver(url, corpus_dir, FLAT, **point) as first:
        wait_until_stopped(first.pid)
        query(url, "update study set lease_until = 1")
        assert run(url, corpus_dir, point="begun", passes=2) == -signal.SIGKILL
        after = dump(url)
        os.kill(first.pid, signal.SIGCONT)
        first.join(WAIT_S)
        assert first.exitcode == LOST
    assert dump(url) == after


def dump(url):
    """The whole database, as text."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
        return list(database.iterdump())


def wait_until_stopped(pid):
    deadline = time.monotonic() + WAIT_S
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, "it never came to the point"
        time.sleep(0.02)
