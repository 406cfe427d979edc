"""The Ray side of a pool: actors, streams of events, and what happens when an actor dies."""

from __future__ import annotations

import logging
import os
from typing import Any

from nas.pool import Event
from search_space.contract import EvalRequest, EvalResult, Progress, Status
from search_space.corpus import CorpusSpec
from search_space.errors import InputError

log = logging.getLogger(__name__)
START_TIMEOUT = 120.0  # seconds for an actor to start before we say what is missing


class RayPool:
    """`count` actors on a local Ray (address "") or a cluster, one trial each at a time.

    count: 0 means one a core (or a GPU share) of the machine or cluster.  threads: CPU cores and
    torch threads of an actor.  gpus: GPUs of an actor, fractions allowed.
    """

    def __init__(
        self, *, count: int = 0, threads: int = 1, gpus: float = 0.0, address: str = ""
    ) -> None:
        # Ray reads these when it starts; set here so that no shell setting is needed.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        self._ray = ray
        self._actors: list[Any] = []
        self._busy: dict[Any, tuple[Any, EvalRequest]] = {}
        self._mine = not ray.is_initialized()
        if self._mine:
            self._connect(address, count * threads)
        try:
            self._start_actors(count, threads, gpus)
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str, cpus: int) -> None:
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if not address:
            have = os.cpu_count() or 1
            options |= {"num_cpus": max(cpus, have), "include_dashboard": False}
            options |= {"_node_ip_address": "127.0.0.1", "object_store_memory": 100 * 2**20}
        else:
            options["address"] = address
        try:
            self._ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(
                f"Ray must be reachable: {address or 'a local Ray'} is not "
                f"({str(error).splitlines()[0]}); check workers.ray_address"
            ) from error

    def _start_actors(self, count: int, threads: int, gpus: float) -> None:
        from workers.actor import TrialActor

        have = self._ray.cluster_resources()
        if count == 0:
            by_gpu = have.get("GPU", 0) / gpus if gpus else float("inf")
            count = max(1, int(min(have.get("CPU", 1) / threads, by_gpu)))
        for name, need in (("CPU", count * threads), ("GPU", count * gpus)):
            if need > have.get(name, 0):
                raise InputError(
                    f"workers need {need:g} {name}, the Ray cluster has {have.get(name, 0):g}; "
                    "lower workers.count, workers.threads or workers.gpus_per_trial"
                )
        self._remote = self._ray.remote(num_cpus=threads, num_gpus=gpus)(TrialActor)
        self._actors = [self._remote.remote() for _ in range(count)]
        waiting = [actor.ready.remote() for actor in self._actors]
        _, late = self._ray.wait(waiting, num_returns=count, timeout=START_TIMEOUT)
        if late:
            raise InputError(
                f"{len(late)} of {count} workers did not start within {START_TIMEOUT:.0f} s; "
                "the machines are busy: lower workers.count"
            )
        self._ray.get(waiting)

    @property
    def slots(self) -> int:
        """Trials that run at once."""
        return len(self._actors)

    def prepare(
        self, spec: CorpusSpec, vocab_size: int, seq_len: int, cache_dir: str
    ) -> dict[str, Any]:
        """Prepare the corpus on a worker. InputError for what the corpus or the user did wrong."""
        from workers.actor import prepare_corpus

        task = self._ray.remote(num_cpus=0)(prepare_corpus)
        facts: dict[str, Any] = self._ray.get(task.remote(spec, vocab_size, seq_len, cache_dir))
        if "error" in facts:
            raise InputError(facts["error"])
        return facts

    def submit(self, request: EvalRequest) -> None:
        """Start the trial on an idle actor."""
        busy = {actor for actor, _ in self._busy.values()}
        idle = next((actor for actor in self._actors if actor not in busy), None)
        if idle is None:
            raise RuntimeError(f"all {self.slots} slots are busy")
        stream = idle.run.options(num_returns="streaming").remote(request)
        self._busy[stream] = (idle, request)

    def events(self, timeout: float) -> list[Event]:
        """Progress and results that have come in, after at most `timeout` seconds."""
        if not self._busy:
            return []
        streams = list(self._busy)
        ready, _ = self._ray.wait(streams, num_returns=1, timeout=timeout, fetch_local=False)
        more, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
        return [self._next(stream) for stream in {*ready, *more}]

    def _next(self, stream: Any) -> Event:
        actor, request = self._busy[stream]
        try:
            event: Event = self._ray.get(next(stream))
        except (self._ray.exceptions.RayError, StopIteration) as error:
            del self._busy[stream]
            self._replace(actor)
            first = str(error).strip().splitlines()[:1]
            text = f"the worker died: {type(error).__name__}: {' '.join(first)}"
            log.warning("trial %d: %s", request.trial, text)
            return EvalResult(trial=request.trial, status=Status.FAILED, error=text)
        if not isinstance(event, Progress):
            del self._busy[stream]
        return event

    def _replace(self, actor: Any) -> None:
        self._ray.kill(actor)
        self._actors[self._actors.index(actor)] = self._remote.remote()

    def close(self) -> None:
        """Kill the actors and leave Ray; what this pool did not start stays."""
        actors, self._actors, self._busy = self._actors, [], {}
        try:
            for actor in actors:
                self._ray.kill(actor)
        finally:
            if self._mine and self._ray.is_initialized():
                self._ray.shutdown()
