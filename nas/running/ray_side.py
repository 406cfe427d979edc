"""The process that holds Ray: starts or joins one and does what the pool asks over a pipe.

`python -m nas.running.ray_side FD FOLDER`, started by `nas.running.ray_process` as the leader of a
session. It ends, with all of a local Ray, when the other end of the pipe closes: the pool's process
needs no chance to say goodbye.
"""

from __future__ import annotations

import logging
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from nas.running.gpu_sharing import Shares, measured, start_mps
from nas.running.ray_folder import INSIDE
from nas.running.ray_limits import Limits
from nas.running.ray_preparation import prepare
from nas.running.ray_process import end_session, ended, remove
from nas.running.ray_workers import Workers, fitting
from search_space.contract import EvalRequest
from search_space.errors import InputError, WorkFailed
from search_space.machine import usable_cpus

WATCH_SECONDS = 0.2


class Side:
    """Answers one question at a time: `RayProcess.ask` names a method of this or of the workers."""

    def __init__(self, pipe: multiprocessing.connection.Connection, folder: Path) -> None:
        self._pipe, self._sending = pipe, threading.Lock()
        self._folder = folder
        self._address = ""
        self._workers: Workers | None = None

    def serve(self) -> None:
        """Until the other end closes: EOFError or OSError."""
        while True:
            name, args = self._pipe.recv()
            try:
                asked = self if hasattr(self, name) else self._workers
                answer = ("done", getattr(asked, name)(*args))
            except InputError as error:
                answer = ("input", str(error))
            except WorkFailed as error:
                answer = ("failed", str(error))
            self._send(*answer)

    def _send(self, kind: str, value: Any = None) -> None:
        with self._sending:
            self._pipe.send((kind, value))

    def start(self, address: str, limits: Limits, count: int, threads: int, shared: bool) -> None:
        """Start a local Ray that can hold the workers, or join the cluster at `address`.

        shared: whether several trials may share a GPU.
        """
        self._address, self._limits = address, limits
        if address:
            join_cluster(address)
        else:
            self._end_with_driver()
            cpus = usable_cpus()
            fitting({"CPU": cpus}, count, threads, 0)
            if shared:
                start_mps(self._folder)
            start_local(str(self._folder / INSIDE), cpus)
            threading.Thread(target=self._watch, args=(processes(),), daemon=True).start()
        take_no_signals()  # Ray has put its own handler there

    def hire(self, count: int, threads: int, gpus: float, at_most: bool) -> int:
        """Start the workers; how many there are.

        at_most: whether fewer than `count` will do, where so many do not fit.
        """
        if at_most and count:
            import ray

            count = min(count, fitting(ray.cluster_resources(), 0, threads, gpus))
        self._workers = Workers(count, threads, gpus, local=not self._address, limits=self._limits)
        return self._workers.slots()

    def share(self, probe: EvalRequest) -> Shares:
        """How much of a GPU each of the study's workers should have."""
        return measured(probe, self._limits, alive=lambda: self._send("beat"))

    def prepare(self, *args: Any) -> dict[str, Any]:
        """Prepare a corpus on a worker."""
        return prepare(*args, limits=self._limits, alive=lambda: self._send("beat"))

    def _watch(self, watched: dict[str, Any]) -> None:
        """Without its raylet or its GCS a Ray hangs, or dies a minute later: say so at once."""
        stopped = dict.fromkeys(watched, 0.0)
        while True:
            time.sleep(WATCH_SECONDS)
            for name, process in watched.items():
                if (code := process.poll()) is not None:
                    self._lose(f"{name} {ended(code)}")
                stopped[name] = stopped[name] + WATCH_SECONDS if is_stopped(process.pid) else 0.0
                if stopped[name] >= self._limits.stopped:
                    self._lose(f"{name} was stopped by a signal")

    def _end_with_driver(self) -> None:
        """Have a local Ray ended when the pool's process is gone, also while it still starts: then
        nobody reads the pipe, and Ray holds the interpreter. So a process of its own watches."""
        leader, driver = os.getpid(), os.getppid()
        if os.fork():
            return
        try:
            self._pipe.close()  # the pool's end must close with the leader
            while _is_child(leader, driver):
                time.sleep(WATCH_SECONDS)
            end_session(leader)
            if not psutil.pid_exists(driver):
                remove(self._folder)
        except Exception:
            logging.exception("the processes of a Ray without a driver could not be ended")
        finally:
            os._exit(0)

    def _lose(self, what: str) -> None:
        self._send("lost", f"the workers are lost: Ray's {what}")
        os._exit(1)

    def leave(self) -> None:
        """End a local Ray whole, this process last; leave a cluster in order."""
        if self._address:
            if self._workers is not None:
                self._workers.close()
            import ray

            ray.shutdown()
        end_session(os.getsid(0))
        remove(self._folder)


def _is_child(pid: int, parent: int) -> bool:
    """Whether a process lives and its parent, too."""
    try:
        process = psutil.Process(pid)
        return bool(process.ppid() == parent and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def own_code_alone() -> Any:
    """A job whose workers import what is installed and ours, nothing of the user's folder.

    Ray puts the driver's working directory first on its workers' path, unless the job has a folder
    of its own for code; the directory itself stays, which relative paths are meant from.
    """
    from ray.job_config import JobConfig

    class OwnCode(JobConfig):  # type: ignore[misc]
        def _runtime_env_has_working_dir(self) -> bool:
            return True

    return OwnCode()


# Ray's own starters of processes that nobody here asks anything: the autoscaler of a cluster, the
# reader of logs that `log_to_driver` turns off, the server of a web page. Each is a Python of its
# own. A Ray that calls them otherwise starts them; a test then says so.
NOT_STARTED = ("start_monitor", "start_log_monitor", "start_api_server")


def leave_out_helpers() -> None:
    """A Ray that this process starts is without the processes of `NOT_STARTED`."""
    from ray._private.node import Node

    for name in NOT_STARTED:
        if hasattr(Node, name):
            setattr(Node, name, lambda self, **named: None)


def start_local(folder: str, cpus: int) -> None:
    """A Ray of our own: private, on loopback, and as small as it can be."""
    import ray
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    leave_out_helpers()
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=folder,
            _node_ip_address="127.0.0.1",
            job_config=own_code_alone(),
        )
    except Exception as error:
        logging.exception("a local Ray did not start")
        raise WorkFailed(f"a local Ray did not start: {first_line(error)}") from error
    address = ray.get_runtime_context().gcs_address
    if not is_token_auth_enabled() or not address.startswith("127.0.0.1:"):
        raise WorkFailed(f"Ray {ray.__version__} does not keep strangers out; install ray>=2.60")


def join_cluster(address: str) -> None:
    """Become a driver of a running cluster. InputError when it does not take us."""
    import ray

    try:
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            log_to_driver=False,
            job_config=own_code_alone(),
        )
    except Exception as error:
        logging.exception("the cluster did not take us in")
        raise refused(address, error) from error


def refused(address: str, error: Exception) -> InputError:
    """The user's line for a cluster that does not take us in."""
    seen: BaseException | None = error
    while seen is not None:
        if "uthenticat" in f"{type(seen).__name__} {seen}":
            return InputError(
                f"the Ray cluster at {address} wants its token, and does not take ours; put the "
                "token that its owner has into RAY_AUTH_TOKEN, or its file's path into "
                "RAY_AUTH_TOKEN_PATH"
            )
        seen = seen.__cause__ or seen.__context__
    return InputError(
        f"Ray must be reachable: {address} is not ({first_line(error)}); check workers.ray_address"
    )


def first_line(error: BaseException) -> str:
    """An exception's text, cut to what one line can say."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else "Ray gives no reason"


def processes() -> dict[str, Any]:
    """The processes of our own Ray that nothing works without, by name."""
    from ray._private.worker import _global_node

    started = _global_node.all_processes
    return {
        name: started[kind][0].process
        for kind, name in (("raylet", "raylet"), ("gcs_server", "GCS"))
    }


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal and lives."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:  # it has just ended, which its handle says next
        return False


def take_no_signals() -> None:
    """What a supervisor sends to all processes is for the pool's: it decides, and ends us."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Not SIG_IGN, which Ray's processes would inherit.
        signal.signal(number, lambda number, frame: None)


def main() -> None:
    """Serve the pipe of this descriptor, with a private folder."""
    take_no_signals()
    descriptor, folder = sys.argv[1:]
    side = Side(multiprocessing.connection.Connection(int(descriptor)), Path(folder))
    try:
        side.serve()
    except (EOFError, OSError):
        logging.debug("the pool has closed the pipe", exc_info=True)
    finally:
        side.leave()


if __name__ == "__main__":
    main()
