"""Whatever happens to Ray or to a worker ends in time, as a result or as one line."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest
from depth import LONG, leading
from patience import WAIT_S

from benchmarks.abuse.ray_machine import session, wait_for
from nas.running.pool import Ending, PoolLost
from nas.running.ray_limits import Limits
from nas.running.ray_pool import RayPool, check_reachable
from nas.running.ray_process import RayProcess
from nas.running.ray_side import refused
from nas.running.ray_workers import MOST_STARTS, Running, Worker, Workers
from search_space.contract import Status, WorkerLost
from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed

pytestmark = pytest.mark.slow

DISTURBING = {
    "RAY_ADDRESS": "127.0.0.1:6399",
    "RAY_AUTH_MODE": "disabled",
    "RAY_AUTH_TOKEN": "of-some-cluster",
    "RAY_NAMESPACE": "of-some-cluster",
    "RAY_TMPDIR": "/nowhere",
    "RAY_JOB_CONFIG_JSON_ENV_VAR": "{",
    "RAY_gcs_server_port": "1",
    "RAY_RUNTIME_ENV_HOOK": "no.such.hook",
}


@pytest.fixture(scope="module")
def hasty_pool():
    """One worker that may be silent for 6 s, started where the environment names other Rays."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in DISTURBING.items():
            patch.setenv(name, value)
        before = dict(os.environ)
        made = RayPool(count=1, limits=Limits(silent=6.0, answer=30.0))
        assert dict(os.environ) == before
    yield made
    made.close()


@LONG
def test_a_stopped_worker_is_ended_and_replaced(hasty_pool, ray_corpus_dir, make_request, drain):
    hasty_pool.submit(make_request(ray_corpus_dir, 1, steps=1_000_000))
    wait_for(hasty_pool, "ray::TrialActor.run").send_signal(signal.SIGSTOP)
    (ended,) = [e for e in drain(hasty_pool, {1}, 60) if isinstance(e, Ending)]
    assert isinstance(ended, WorkerLost)
    assert ended.error == "the worker gave no sign of life for 6 s and was ended"
    hasty_pool.submit(make_request(ray_corpus_dir, 2))
    assert drain(hasty_pool, {2})[-1].status is Status.FINISHED


@LONG
def test_a_worker_that_dies_while_it_prepares_the_corpus_is_one_line(hasty_pool, tmp_path):
    def kill():
        wait_for(hasty_pool, "ray::prepare_stream").kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(WorkFailed, match="the worker that prepares the corpus died: its process"):
        hasty_pool.prepare(CorpusSpec(max_bytes=20_000_000), 4000, 32, str(tmp_path))
    killer.join()


@LONG
def test_a_guest_with_the_token_works_beside_the_host(
    hasty_pool, ray_corpus_dir, monkeypatch, make_request, drain
):
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # the host is on loopback
    monkeypatch.setenv("RAY_AUTH_TOKEN", (hasty_pool._process.folder / "token").read_text())
    gcs = wait_for(hasty_pool, "gcs_server")
    port = next(c.laddr.port for c in gcs.net_connections("tcp") if c.status == "LISTEN")
    guest = RayPool(count=1, address=f"127.0.0.1:{port}", limits=Limits(start=30.0))
    guest.submit(make_request(ray_corpus_dir, 7))
    hasty_pool.submit(make_request(ray_corpus_dir, 8))
    assert drain(guest, {7})[-1].status is Status.FINISHED
    guest.close()
    assert drain(hasty_pool, {8})[-1].status is Status.FINISHED


@LONG
def test_a_killed_gcs_is_one_line_and_leaves_nothing(
    hasty_pool, ray_corpus_dir, make_request, drain
):
    hasty_pool.submit(make_request(ray_corpus_dir, 3, steps=1_000_000))
    leader, folder = hasty_pool._process.pid, hasty_pool._process.folder
    wait_for(hasty_pool, "gcs_server").kill()
    with pytest.raises(PoolLost, match=r"^the workers are lost: Ray's GCS was killed by signal 9$"):
        drain(hasty_pool, {3}, 20)
    with pytest.raises(PoolLost):
        hasty_pool.events(0.5)
    hasty_pool.close()
    hasty_pool.close()
    assert not session(leader) and not folder.exists()


@LONG
@pytest.mark.parametrize(
    ("number", "says"),
    [
        (signal.SIGKILL, "the process that holds Ray was killed by signal 9"),
        (signal.SIGSTOP, "the process that holds Ray gave no answer for 2 s"),
    ],
)
def test_the_process_that_holds_ray_may_die_or_stop(number, says):
    process = RayProcess(local=True, leave=1.0)
    leader = process.pid
    try:
        os.kill(leader, number)
        with pytest.raises(PoolLost, match=says):
            process.ask("hire", 1, 1, 0, within=2.0)
    finally:
        process.end()
    assert not session(leader) and not process.folder.exists()


# What a driver has done when it is killed: started its workers, or just asked for a Ray.
WHOLE = "from nas.running.ray_pool import RayPool; pool = RayPool(count=1); side = pool._process"
HALF = (
    "from nas.running.ray_limits import Limits; from nas.running.ray_process import RayProcess\n"
    "side = RayProcess(local=True, leave=1.0)\n"
    "side._pipe.send(('start', ('', Limits(), 1, 1, False)))"
)


def of_ray(leader):
    """The session's processes but for the leader and its fork, which watches the driver."""
    found = []
    for process in session(leader):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "nas.running.ray_side" not in process.cmdline():
                found.append(process)
    return found


@pytest.mark.parametrize("done", leading([WHOLE, HALF], 1), ids=["working", "starting"])
def test_nothing_stays_when_the_driver_is_killed(done):
    code = f"import time\n{done}\nprint(side.pid, side.folder, flush=True); time.sleep(600)"
    driver = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    leader, folder = driver.stdout.readline().split()
    if done is HALF:  # when the first of Ray's own processes is there, the rest is not
        deadline = time.monotonic() + WAIT_S
        while not (rays := of_ray(int(leader))) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert rays, "Ray has started no process"
        for process in rays:
            process.suspend()  # so that Ray never has started
    assert session(int(leader)) and os.path.isdir(folder)
    driver.kill()
    driver.communicate()
    deadline = time.monotonic() + WAIT_S
    while (session(int(leader)) or os.path.exists(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not session(int(leader)) and not os.path.exists(folder)


class StartingRay:
    """A Ray whose actors die at their first starts: `deaths` of them in all."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self, deaths: int) -> None:
        self.deaths, self.hired = deaths, 0

    def remote(self):
        self.hired += 1
        ready = SimpleNamespace(remote=lambda: self.hired)
        return SimpleNamespace(ready=ready)

    def wait(self, waiting, num_returns, timeout):
        return waiting, []

    def get(self, ready):
        if ready <= self.deaths:
            raise self.exceptions.RayError("killed")
        return 1000 + ready, ""


def starting(deaths: int) -> tuple[Workers, StartingRay]:
    workers, ray = Workers.__new__(Workers), StartingRay(deaths)
    workers._ray, workers._remote, workers._limits = ray, ray, Limits()
    return workers, ray


@LONG
def test_a_worker_that_dies_while_it_starts_is_started_again(caplog):
    workers, ray = starting(deaths=3)
    assert [worker.pid for worker in workers._started(2)] == [1005, 1004]  # the first died twice
    assert ray.hired == 5
    assert "died while they started" in caplog.text


@LONG
def test_workers_that_die_at_every_start_are_one_line():
    workers, ray = starting(deaths=100)
    with pytest.raises(WorkFailed, match="the workers do not start"):
        workers._started(2)
    assert ray.hired == 2 * MOST_STARTS


@pytest.mark.parametrize(
    ("silent", "still", "longest", "pid", "says"),
    [
        (1, 100, 0, 7, ""),
        (61, 61, 0, 7, "the worker gave no sign of life for 60 s and was ended"),
        (61, 61, 0, None, ""),
        (121, 121, 0, None, "a new worker did not start within 120 s"),
        (1, 1801, 0, 7, "the evaluation made no progress for 1800 s and its worker was ended"),
        (1, 1801, 100, 7, ""),
        (1, 2001, 100, 7, "the evaluation made no progress for 2000 s and its worker was ended"),
    ],
)
def test_when_a_trial_counts_as_hung(silent, still, longest, pid, says):
    workers = Workers.__new__(Workers)
    workers._limits = Limits()
    running = Running(Worker(None, None, pid), None, silent, still, longest)
    assert workers._hung(running) == says


@pytest.mark.parametrize("address", ["x", "x:y", "x:0", "host:70000", ":6379", "ray://", "a:b:c"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(InputError, match="address must be auto or HOST:PORT"):
        check_reachable(address, 1.0)


def test_a_dead_address_is_refused_at_once(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    for given in (address, f"ray://{address}"):
        with pytest.raises(InputError, match=f"{given} is not .*; check workers.ray_address"):
            RayPool(count=1, address=given)
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=address):
        RayPool(count=1, address="auto")


def test_an_address_that_does_not_speak_is_refused_in_time():
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(InputError, match=f"{address} did not answer as a Ray cluster within 2"):
            RayPool(count=1, address=address, limits=Limits(connect=2.0))
    assert time.monotonic() - began < 10


def test_the_word_about_a_token_comes_from_the_whole_chain():
    error = ConnectionError("Failed to connect")
    error.__cause__ = PermissionError("Unauthenticated: wrong token")
    assert "RAY_AUTH_TOKEN_PATH" in str(refused("h:1", error))
    assert "h:1 is not (no luck)" in str(refused("h:1", ConnectionError("no luck\nstack")))


def test_a_preparation_that_goes_on_is_told_of(monkeypatch, caplog):
    clock = [0.0]
    monkeypatch.setattr("nas.running.ray_pool.time.monotonic", lambda: clock[0])

    class Process:
        def ask(self, name, *args, within, beat):
            for clock[0] in (1.0, 299.0, 301.0, 302.0, 1000.0, 1001.0):
                beat()
            return {"dir": ""}

    pool = object.__new__(RayPool)
    pool._limits, pool._process = Limits(), Process()
    assert pool.prepare(CorpusSpec(), 300, 32, "") == {"dir": ""}
    assert [record.getMessage() for record in caplog.records] == [
        f"still preparing the corpus after {minutes} min; Ctrl-C stops it" for minutes in (5, 17)
    ]


def test_a_question_passes_on_the_signs_of_life_before_its_answer():
    process, beats = object.__new__(RayProcess), []
    process._asking = False
    process._pipe, theirs = multiprocessing.Pipe()
    for message in (("beat", None), ("beat", None), ("done", 7)):
        theirs.send(message)
    assert process.ask("prepare", within=5, beat=lambda: beats.append(1)) == 7
    assert beats == [1, 1]
