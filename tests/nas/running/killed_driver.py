"""A driver of real, tiny studies in one process, which can end itself at a named point.

Nothing of the product is there for it: the points are patched into the driver's process.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from typing import Any

import pytest
from patience import WAIT_S

from benchmarks.simulated_pool import SimulatedPool
from nas import config as study_config
from nas.config import StudyConfig
from nas.running.launcher import launch_study, resume_study
from nas.store import LeaseLost, Store, evaluations
from search_space.contract import EvalRequest
from search_space.errors import InputError
from workers import checkpoint
from workers.corpus import Corpus
from workers.evaluate import evaluate
from workers.log_lines import sent_lines
from workers.training import keeping, loop, state

NAME = "tiny"
LOST, REFUSED, STOPPED = 3, 4, 130  # exit codes of this driver
STATE_STEPS = 4  # between two states
CONFIG = {
    "name": NAME,
    "backbone": {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 16},
    "recipe": {"batch_size": 2, "warmup": 5},
    "warm_start": ["dense"],
    "space": {
        "methods": ["dense", "relu_routing", "topk"],
        "active_width": [0.5, 1.0],
        "expansion": 4.0,
        "granularity": [1, 2],
        "activation": "relu",
        "shared_width": 0.0,
        "lr_multiplier": [0.5, 1.0],
    },
    "constraints": {"training_flops": 1.2},
    "workers": {"count": 1, "device": "cpu"},
    "eval_tokens": 512,
    "seed": 5,
}
FLAT = {"budget": {"trials": 6, "trial_flops": 3e7}}
RUNGS = {
    "budget": {
        "trials": 6,
        "trial_flops": 5e7,
        "rungs": 3,
        "reduction": 2,
        "repeats": {"share": 0.3, "seeds": 2},
    }
}


class OnePool(SimulatedPool):
    """One worker in this process. Points of a curve come in a turn of their own, before the end.

    corpus_dir: a prepared corpus.
    """

    def __init__(self, corpus_dir: str) -> None:
        super().__init__(1, _work)
        self.corpus_dir, self._later = corpus_dir, []

    def prepare(self, spec, vocab_size, seq_len, cache_dir) -> dict[str, Any]:
        """What the corpus holds."""
        meta = Corpus.open(self.corpus_dir).meta
        return {"dir": self.corpus_dir, "meta": meta, "ngram_bits_per_byte": {}}

    def events(self, timeout: float) -> list[Any]:
        """The points and lines of what runs; then its result."""
        if self._later:
            found, self._later = self._later, []
            return found
        *points, result = super().events(timeout)
        self._later = [result]
        return points


def _work(request: EvalRequest) -> tuple[float, list[Any]]:
    events: list[Any] = []
    with sent_lines(request, events.append):
        result = evaluate(request, events.append)
    return 1.0, [*events, result]


def drive(url: str, corpus_dir: str, config: dict[str, Any] | None) -> None:
    """Launch the study of a configuration, or without one go on with the study that there is."""
    with Store.open(url) as store:
        named: dict[str, Any] = {"pool_factory": lambda config: OnePool(corpus_dir)}
        if config is not None:
            launch_study(StudyConfig.from_dict(CONFIG | config), store, **named)
        else:
            resume_study(store.study(NAME), store, **named)


# The points. Each patches one function so that `at` is called at every pass of the point.

At = Callable[[], None]


def _begun(at: At) -> None:
    """An evaluation is stored, begun or taken up, and no worker has it."""
    submit = OnePool.submit

    def dying(self: OnePool, request: EvalRequest) -> None:
        at()
        submit(self, request)

    OnePool.submit = dying


def _stepped(on_branch: bool) -> Callable[[At], None]:
    def patch(at: At) -> None:
        step = loop.Training.step

        def dying(self: loop.Training) -> None:
            step(self)
            if self.on_branch is on_branch:
                at()

        loop.Training.step = dying

    return patch


def _weights(at: At) -> None:
    """Half of a checkpoint's weights are written."""
    save = checkpoint.save_model

    def dying(model: Any, path: str) -> None:
        save(model, path)
        os.truncate(path, os.path.getsize(path) // 2)
        at()
        save(model, path)

    checkpoint.save_model = dying


def _keeping(at: At) -> None:
    """Half of one of the two files of a training's state is written."""

    def dying(path: str, mode: str) -> Any:
        file = open(path, mode)  # noqa: SIM115 - its caller closes what it gets
        write = file.write

        class Dying:
            def write(self, data: bytes) -> None:
                write(data[: len(data) // 2])
                file.flush()
                at()
                write(data[len(data) // 2 :])

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *error: object) -> None:
                file.close()

            flush, fileno = file.flush, file.fileno

        return Dying()

    state.open = dying


def _settling(at: At) -> None:
    """A result is written to the database, the ledger too, and not committed."""
    settle = evaluations.settle

    def dying(*arguments: Any) -> int:
        trial = settle(*arguments)
        at()
        return trial

    evaluations.settle = dying


def _recorded(at: At) -> None:
    """A result is recorded, and nothing that comes after has been done."""
    end = Store.end_evaluation

    def dying(self: Store, *arguments: Any, **named: Any) -> Any:
        found = end(self, *arguments, **named)
        at()
        return found

    Store.end_evaluation = dying


POINTS = {
    "begun": _begun,
    "on the trunk": _stepped(on_branch=False),
    "on the branch": _stepped(on_branch=True),
    "weights half written": _weights,
    "state half written": _keeping,
    "result not committed": _settling,
    "result recorded": _recorded,
}


def _keep_states() -> None:
    """Keep a training's state every few steps, so that what was lost is a few steps."""
    after = keeping.States.after_step

    def seldom(self: keeping.States, training: loop.Training) -> None:
        if training.steps % STATE_STEPS == 0:
            after(self, training)

    keeping.STATE_SECONDS, keeping.States.after_step = 0.0, seldom


def _drive_to(
    url: str,
    corpus_dir: str,
    config: dict[str, Any] | None,
    point: str,
    passes: int,
    number: int,
    states: bool,
) -> None:
    assert "warm_driver" in sys.modules, "each driver would load everything itself"
    left = passes

    def at() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), number)

    if point:
        POINTS[point](at)
    if states:
        _keep_states()
    study_config.LEAST_STEPS = 5  # at the lowest rung: enough to be killed in
    try:
        drive(url, corpus_dir, config)
    except LeaseLost:
        os._exit(LOST)
    except InputError:
        os._exit(REFUSED)
    except KeyboardInterrupt:
        os._exit(STOPPED)


@functools.cache
def _processes() -> multiprocessing.context.ForkServerContext:
    """Where drivers come from: forks of a process that has driven a study already."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["warm_driver"])
    with pytest.MonkeyPatch.context() as patch:
        # The server looks for modules on its own path alone, and is silent about what it lacks.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    return processes


@contextlib.contextmanager
def driver(
    url: str,
    corpus_dir: str,
    config: dict[str, Any] | None = None,
    *,
    point: str = "",
    passes: int = 0,
    number: int = signal.SIGKILL,
    states: bool = True,
) -> Iterator[multiprocessing.Process]:
    """A driver in a process of its own, which sends itself a signal at a pass of a point.

    states: keep a training's state every few steps, not every minute.
    """
    process = _processes().Process(
        target=_drive_to, args=(url, corpus_dir, config, point, passes, number, states)
    )
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def run(*arguments: Any, **named: Any) -> int:
    """`driver`, to its end; its exit code."""
    with driver(*arguments, **named) as process:
        process.join(WAIT_S)
        code = process.exitcode
    assert code is not None, "it never ended"
    return code
