"""The pool on Ray: workers of a local Ray or of a cluster, behind one process that holds Ray."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any, Literal
from urllib.parse import urlsplit

from nas.running.gpu_sharing import Shares
from nas.running.pool import Ending, Event
from nas.running.ray_limits import Limits
from nas.running.ray_preparation import sweep
from nas.running.ray_process import NoAnswer, RayProcess
from search_space.contract import EvalRequest, Precision, WorkerLost
from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed

log = logging.getLogger(__name__)
MEASURING_S = 15.0  # between two words about the measuring


class RayPool:
    """`count` workers on a local Ray (address "") or a cluster, one evaluation each at a time.

    count: 0 means one a core (or a GPU share) of the machine or cluster.
    threads: CPU cores and torch threads of a worker.
    gpus: GPUs of a worker, fractions allowed; "auto" measures, with `probe`, how many should share
        one.
    probe: what stands for the evaluations; "auto" needs it.
    slots: evaluations that run at once. They become fewer when a shared GPU's memory runs out.
    notes: what there is to say of how the workers were started, in lines.

    A local Ray listens on loopback alone, wants a secret that is made anew for each pool, and ends
    with the pool or with this process, whichever is first. Raises InputError when the machine or
    cluster has too little or the address does not answer, WorkFailed when Ray does not start.
    """

    def __init__(
        self,
        *,
        count: int = 0,
        threads: int = 1,
        gpus: float | Literal["auto"] = 0.0,
        probe: EvalRequest | None = None,
        address: str = "",
        limits: Limits | None = None,
    ) -> None:
        self._limits = limits = limits or Limits()
        self._running: set[int] = set()
        self._preparing = ""  # the cache that a corpus is being prepared in
        address = "" if address == "local" else address
        if address:
            check_reachable(address, limits.reach)
        self._process = RayProcess(local=not address, leave=limits.leave)
        try:
            # Where a GPU is whole or none there is nothing to share.
            self._start(address, count, threads, shared=gpus == "auto" or 0 < gpus < 1)
            self.notes: list[str] = []
            share = self._share(probe) if gpus == "auto" else gpus
            self.slots: int = self._process.ask(
                *("hire", count, threads, share, gpus == "auto" and share > 0),
                within=limits.start + limits.answer,
            )
        except BaseException:
            self.close()
            raise

    def _share(self, probe: EvalRequest | None) -> float:
        """What of a GPU each worker reserves, by measurement."""
        assert probe is not None, "auto needs a probe"
        beat = Notes(
            MEASURING_S,
            "measuring how many trials share a GPU, whose kernels are checked when they are first "
            "used (%.0f min so far); workers.gpus_per_trial: NUMBER leaves that out",
        ).beat
        found: Shares = self._process.ask("share", probe, within=self._limits.answer, beat=beat)
        self.notes += [found.words] if found.words else []
        return found.gpus

    def _start(self, address: str, count: int, threads: int, shared: bool) -> None:
        limits = self._limits
        within = limits.connect if address else limits.start
        try:
            self._process.ask("start", address, limits, count, threads, shared, within=within)
        except NoAnswer as error:
            if address:
                raise InputError(
                    f"Ray must be reachable: {address} did not answer as a Ray cluster within "
                    f"{within:g} s; check workers.ray_address"
                ) from error
            raise WorkFailed(
                f"a local Ray did not start within {within:g} s: the machine is too busy"
            ) from error

    def prepare(
        self, spec: CorpusSpec, vocab_size: int, seq_len: int, cache_dir: str
    ) -> dict[str, Any]:
        """Prepare the corpus on a worker: its `dir`, `meta` and `ngram_bits_per_byte`.

        Raises InputError for what the corpus or the user did wrong, WorkFailed when a worker
        died of it, PoolLost.
        """
        self._preparing = cache_dir
        words = "still preparing the corpus after %.0f min; Ctrl-C stops it"
        facts: dict[str, Any] = self._process.ask(
            "prepare",
            spec,
            vocab_size,
            seq_len,
            cache_dir,
            within=self._limits.answer,
            beat=Notes(self._limits.note, words).beat,
        )
        self._preparing = ""
        return facts

    def precision(self, asked: Precision, device: str) -> Precision:
        """What all workers train in: each of them is asked, by its own device and measurement.

        Raises InputError where one has not what is asked for, WorkFailed when one does not answer,
        PoolLost.
        """
        if asked == "float32":
            return asked
        limits = self._limits
        within = limits.silent + limits.answer
        found: Precision = self._process.ask("precision", asked, device, within=within)
        return found

    def submit(self, request: EvalRequest) -> None:
        """Start the evaluation on an idle worker."""
        if len(self._running) >= self.slots:
            raise RuntimeError(f"all {self.slots} slots are busy")
        self._process.ask("submit", request, within=self._limits.answer)
        self._running.add(request.evaluation)

    def events(self, timeout: float) -> list[Event]:
        """Progress, lines and results that have come in, after at most `timeout` seconds.

        Raises PoolLost when Ray or the process that holds it has died or gives no answer.
        """
        if not self._running:
            return []
        found: list[Event] = self._process.ask(
            "events", timeout, within=timeout + self._limits.answer
        )
        self._running -= {event.evaluation for event in found if isinstance(event, Ending)}
        if any(isinstance(each, WorkerLost) for each in found):
            self.slots = self._process.ask("slots", within=self._limits.answer)
        return found

    def close(self) -> None:
        """End the workers and leave Ray; what this pool did not start stays."""
        self._running.clear()
        self._process.end()
        if self._preparing:
            sweep(self._preparing)
            self._preparing = ""


class Notes:
    """Says every `seconds` what is still being done, and for how many minutes: no time is too long
    for it."""

    def __init__(self, seconds: float, words: str) -> None:
        self._seconds, self._words = seconds, words
        self._began, self._said = time.monotonic(), 0

    def beat(self) -> None:
        """Called every second or so."""
        passed = time.monotonic() - self._began
        if passed >= (self._said + 1) * self._seconds:
            self._said = int(passed // self._seconds)
            log.warning(self._words, passed / 60)


def check_reachable(address: str, seconds: float) -> None:
    """Raise InputError unless something listens at a cluster's `address`.

    `auto` is what Ray finds on this machine, or $RAY_ADDRESS.
    """
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "")
        if not address or address == "auto":
            return
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise InputError(
            f"Ray's address must be auto or HOST:PORT, such as 10.0.0.1:6379: got {address!r}; "
            "check workers.ray_address"
        )
    try:
        socket.create_connection((host, port), timeout=seconds).close()
    except OSError as error:
        raise InputError(
            f"Ray must be reachable: {address} is not ({error.strerror or error}); "
            "check workers.ray_address"
        ) from error
