"""Workers as Ray actors, their streams of events, and what becomes of one that dies or hangs."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from dataclasses import dataclass
from typing import Any

from nas.running.gpu_sharing import fewer, trials_of
from nas.running.pool import Event
from nas.running.ray_limits import Limits
from search_space.contract import (
    EvalRequest,
    EvalResult,
    Precision,
    Progress,
    Status,
    WorkerLost,
)
from search_space.errors import InputError, WorkFailed

log = logging.getLogger(__name__)
MOST_STARTS = 3  # of a worker that dies while it starts; an evaluation may lose as many, too
DIED = "its process was killed or crashed; lack of memory is the usual cause"


@dataclass(eq=False)
class Worker:
    """An actor; `pid` is None until it has started, and `gpu` is "" without one.

    retired: it gets no further evaluation, and ends with the one that it has.
    """

    actor: Any
    ready: Any
    pid: int | None = None
    gpu: str = ""
    retired: bool = False


@dataclass(eq=False)
class Running:
    """An evaluation on a worker. Seconds are those that `Workers.events` has waited.

    trials: that share its GPU at most.
    silent: without a sign of life.
    still: without a point of the curve.
    longest: of `still`.
    """

    worker: Worker
    request: EvalRequest
    silent: float = 0.0
    still: float = 0.0
    longest: float = 0.0
    trials: int = 1


class Workers:
    """`count` actors of one Ray, one evaluation each at a time; 0 means as many as fit."""

    def __init__(
        self, count: int, threads: int, gpus: float, *, local: bool, limits: Limits
    ) -> None:
        import ray

        from workers.actor import TrialActor

        self._ray, self._local, self._limits, self._threads = ray, local, limits, threads
        self._running: dict[Any, Running] = {}
        self._trials = trials_of(gpus)
        count = fitting(ray.cluster_resources(), count, threads, gpus)
        self._remote = ray.remote(num_cpus=threads, num_gpus=gpus)(TrialActor)
        self._workers = self._started(count)

    def _started(self, count: int) -> list[Worker]:
        """So many workers that are ready, each at its MOST_STARTS-th start at the latest."""
        workers = [self._hire() for _ in range(count)]
        deadline = time.monotonic() + self._limits.start
        for attempt in range(1, MOST_STARTS + 1):
            dead = self._dead(workers, deadline)
            if not dead:
                break
            why = next(iter(dead.values()))
            if attempt == MOST_STARTS:
                raise WorkFailed(f"the workers do not start: {reason(why)}") from why
            log.warning("%d workers died while they started: %s", len(dead), reason(why))
            workers = [self._hire() if worker in dead else worker for worker in workers]
        return workers

    def _dead(self, workers: list[Worker], deadline: float) -> dict[Worker, Exception]:
        """Those that died while they started, and how; waits until each has started or died."""
        left = max(0.0, deadline - time.monotonic())
        waiting = [worker.ready for worker in workers]
        _, late = self._ray.wait(waiting, num_returns=len(waiting), timeout=left)
        if late:
            raise InputError(
                f"{len(late)} of {len(workers)} workers did not start within "
                f"{self._limits.start:g} s; the machines are busy: lower workers.count"
            )
        dead: dict[Worker, Exception] = {}
        for worker in workers:
            try:
                worker.pid, worker.gpu = self._ray.get(worker.ready)
            except self._ray.exceptions.RayError as error:
                dead[worker] = error
        return dead

    def slots(self) -> int:
        """How many take evaluations."""
        return sum(not worker.retired for worker in self._workers)

    def _hire(self) -> Worker:
        actor = self._remote.remote()
        return Worker(actor, actor.ready.remote())

    def precision(self, asked: Precision, device: str) -> Precision:
        """What all workers train in. Raises InputError where one has not what is asked for,
        WorkFailed when one does not answer.

        device: of the evaluations, as the study names it.
        """
        asks = [w.actor.precision.remote(asked, device, self._threads) for w in self._workers]
        try:
            told = self._ray.get(asks, timeout=self._limits.silent)
        except self._ray.exceptions.GetTimeoutError as error:
            raise WorkFailed(
                f"a worker did not say within {self._limits.silent:g} s what precision it has"
            ) from error
        except self._ray.exceptions.RayError as error:
            raise WorkFailed(
                f"a worker could not say what precision it has: {reason(error)}"
            ) from error
        for each in told:
            if "error" in each:
                raise InputError(each["error"])
        found = {each["precision"] for each in told}
        return "bfloat16" if found == {"bfloat16"} else "float32"

    def submit(self, request: EvalRequest) -> None:
        """Start the evaluation on an idle worker."""
        busy = {running.worker for running in self._running.values()}
        worker = next(w for w in self._workers if w not in busy and not w.retired)
        run = worker.actor.run.options(num_returns="streaming")
        self._running[run.remote(request, 1 / self._trials)] = Running(
            worker, request, trials=self._trials
        )

    def events(self, timeout: float) -> list[Event]:
        """What has come in, after at most `timeout` seconds; hung workers are ended."""
        began = time.monotonic()
        found = self._collect(timeout)
        # A machine that slept is no reason to blame a worker.
        waited = min(time.monotonic() - began, timeout + 1)
        for stream, running in list(self._running.items()):
            self._learn_pid(running.worker)
            running.silent += waited
            running.still += waited
            if hung := self._hung(running):
                found.append(self._give_up(stream, hung))
        return found

    def _collect(self, timeout: float) -> list[Event]:
        """Everything that the streams hold; waits for the first event, signs of life are none."""
        found: list[Event] = []
        deadline = time.monotonic() + timeout
        while self._running:
            streams = list(self._running)
            left = 0.0 if found else max(0.0, deadline - time.monotonic())
            ready, _ = self._ray.wait(streams, num_returns=1, timeout=left, fetch_local=False)
            if not ready:
                break
            found += [event for event in map(self._next, ready) if event is not None]
        return found

    def _next(self, stream: Any) -> Event | None:
        """The next event of a stream that has one; None is a sign of life."""
        running = self._running[stream]
        try:
            event: Event | None = self._ray.get(next(stream), timeout=self._limits.silent)
        except StopIteration:
            return self._give_up(stream, f"the worker died: {DIED}")
        except self._ray.exceptions.RayError as error:
            return self._give_up(stream, f"the worker died: {reason(error)}", out_of_memory(error))
        running.silent = 0.0
        if isinstance(event, Progress):
            running.longest = max(running.longest, running.still)
            running.still = 0.0
        elif isinstance(event, EvalResult):
            del self._running[stream]
            event = self._ended(running, event)
        return event

    def _ended(self, running: Running, event: EvalResult) -> EvalResult | WorkerLost:
        """What the driver hears of an ending: lack of memory beside other trials is no fault of the
        design's. It is tried again where fewer share a GPU."""
        told: EvalResult | WorkerLost = event
        if event.status is Status.OUT_OF_MEMORY and running.trials > 1:
            if running.trials == self._trials:
                self._share_among(fewer(self._trials))
            told = WorkerLost(
                evaluation=event.evaluation,
                status=event.status,
                error=f"the GPU's memory is too small for {running.trials} trials; from now on "
                f"{self._trials} share one ({event.error})",
            )
        if running.worker.retired:
            self._dismiss(running.worker)
        return told

    def _share_among(self, trials: int) -> None:
        """Have only so many workers go on at each GPU; the idle ones go first."""
        self._trials = trials
        busy = {running.worker for running in self._running.values()}
        by_gpu: dict[str, list[Worker]] = {}
        for worker in sorted(self._workers, key=lambda worker: worker not in busy):
            if not worker.retired:
                by_gpu.setdefault(worker.gpu, []).append(worker)
        for worker in (each for workers in by_gpu.values() for each in workers[trials:]):
            worker.retired = True
            if worker not in busy:
                self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        if worker in self._workers:
            self._ray.kill(worker.actor)
            self._workers.remove(worker)

    def _hung(self, running: Running) -> str:
        """What is wrong with an evaluation that is waited for, "" for nothing."""
        limits = self._limits
        patience = max(limits.still, 20 * running.longest)
        if running.worker.pid is None:
            if running.silent > limits.start:
                return f"a new worker did not start within {limits.start:g} s"
        elif running.silent > limits.silent:
            return f"the worker gave no sign of life for {limits.silent:g} s and was ended"
        if running.still > patience:
            return f"the evaluation made no progress for {patience:.0f} s and its worker was ended"
        return ""

    def _learn_pid(self, worker: Worker) -> None:
        if worker.pid is None and self._ray.wait([worker.ready], timeout=0)[0]:
            with contextlib.suppress(self._ray.exceptions.RayError):  # its stream says it, too
                worker.pid, worker.gpu = self._ray.get(worker.ready)

    def _give_up(self, stream: Any, why: str, status: Status = Status.FAILED) -> WorkerLost:
        """The evaluation loses its worker, and its slot gets a new one."""
        running = self._running.pop(stream)
        worker = running.worker
        self._ray.kill(worker.actor)
        if self._local and worker.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)  # a stopped process does not hear Ray
        place = self._workers.index(worker)
        self._workers[place : place + 1] = [] if worker.retired else [self._hire()]
        return WorkerLost(evaluation=running.request.evaluation, status=status, error=why)

    def close(self) -> None:
        """End the actors."""
        for worker in self._workers:
            self._ray.kill(worker.actor)


def fitting(have: dict[str, float], count: int, threads: int, gpus: float) -> int:
    """How many workers start: `count`, or as many as fit for 0. InputError when too little is."""
    if count == 0:
        by_gpu = have.get("GPU", 0) / gpus if gpus else float("inf")
        count = max(1, int(min(have.get("CPU", 1) / threads, by_gpu)))
    for name, need in (("CPU", count * threads), ("GPU", count * gpus)):
        if need > have.get(name, 0):
            raise InputError(
                f"workers need {need:g} {name}, the Ray cluster has {have.get(name, 0):g}; "
                "lower workers.count, workers.threads or workers.gpus_per_trial"
            )
    return count


def reason(error: Exception) -> str:
    """Why a task or an actor ended, in words of ours or in those of its own exception."""
    import ray

    if isinstance(error, ray.exceptions.RayTaskError):
        lines = [line for line in str(error.cause).splitlines() if line.strip()]
        return lines[0].strip() if lines else "it gives no reason"
    if isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed:
        # The last line of the traceback that it carries: "ImportError: what".
        return str(error).strip().splitlines()[-1].partition(": ")[2]
    if out_of_memory(error) is Status.OUT_OF_MEMORY:
        return "the machine ran short of memory, and Ray ended it"
    return DIED


def out_of_memory(error: Exception) -> Status:
    """The status of an evaluation whose worker ended with `error`."""
    import ray

    short = isinstance(error, ray.exceptions.OutOfMemoryError)
    return Status.OUT_OF_MEMORY if short else Status.FAILED
