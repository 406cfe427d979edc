"""What the tests of commands share: a study's file, a pool in simulated time, what a failure is."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.simulated_pool import SimulatedPool
from nas.process.holder import new_owner
from search_space.contract import EvalRequest, EvalResult, Progress, Status
from search_space.errors import InputError

BACKBONE = {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32}
STUDY = {
    "name": "tiny",
    "backbone": BACKBONE,
    "recipe": {"batch_size": 2},
    "eval_tokens": 256,
    "budget": {"trials": 2, "trial_flops": 1e8},
    "warm_start": ["dense"],
    "space": {"methods": ["dense", "topk"], "depth": 1, "granularity": [1, 2]},
    "workers": {"count": 1, "device": "cpu"},
}
RUNGS = {"trials": 9, "trial_flops": 9e10, "rungs": 2}
TEXT = "".join(f"def add_{n}(a, b):\n    return a + b + {n * n}\n\n" for n in range(4000))


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


def write_study(**changes) -> Path:
    path = Path("study.yaml")
    path.write_text(yaml.safe_dump(STUDY | changes))
    return path


def write_corpus(text: str = TEXT) -> dict[str, str]:
    Path("corpus.txt").write_text(text)
    return {"source": "corpus.txt"}


def the_error(done: Done, code: int = 2, preparing: int = 0) -> str:
    """The one line that a failed command leaves on stderr, after `preparing` lines of progress."""
    assert done.code == code, done
    assert done.out == ""
    *before, last = done.err.splitlines()
    assert len(before) == preparing, done.err
    assert last.startswith("Error: "), done.err
    assert "Traceback" not in done.err
    return last.removeprefix("Error: ")


def contents() -> tuple[list[str], list[str]]:
    """All that a command could change: the database's rows, and the names of all files."""
    with sqlite3.connect("nas.db") as connection:
        rows = list(connection.iterdump())
    connection.close()
    return rows, sorted(str(path) for path in Path().rglob("*"))


def dead_owner() -> str:
    """A process of this machine that does not live: with this one's id, and another start."""
    return re.sub(r"since tick \d+", "since tick 1", new_owner())


class FakePool(SimulatedPool):
    """Where the Ray pool would be, in simulated time; `work` ends its evaluations."""

    work = staticmethod(lambda request: (1.0, []))
    text = "a text"

    def __init__(self, **options):
        super().__init__(1, self.work)

    def prepare(self, spec, vocab_size, seq_len, cache_dir):
        meta = {"source": spec.source, "vocab_size": vocab_size, "hash": self.text}
        meta |= {"tokens": {"train": 900}}
        return {"dir": "/corpus", "meta": meta, "ngram_bits_per_byte": {"3": 2.5}}


class PreparingPool(FakePool):
    """One that prepares corpora as workers do."""

    def prepare(self, spec, vocab_size, seq_len, cache_dir):
        from workers.actor import prepare_corpus

        facts = prepare_corpus(spec, vocab_size, seq_len, cache_dir)
        if "error" in facts:
            raise InputError(facts["error"])
        return facts


def train_here(request: EvalRequest):
    """Work that is done, in this process."""
    from workers.evaluate import evaluate

    events = []
    result = evaluate(request, events.append)
    return 1.0, [*events, result]


def trains(request: EvalRequest):
    """More training and more hidden units are better; seeds differ a little."""
    Path(request.state_dir).mkdir(parents=True, exist_ok=True)
    share = request.until_flops / 9e10
    mine = {"evaluation": request.evaluation, "attempt": request.attempt}
    result = EvalResult(
        **mine,
        status=Status.FINISHED,
        bits_per_byte=2.0 - 0.1 * share - 1e-4 * request.spec.d_ff + 0.01 * request.seed,
        bits_per_byte_se=0.01,
        flops=request.until_flops - request.start_flops,
        trunk_flops=0.7 * request.until_flops,
        seconds=2.0,
    )
    point = Progress(
        **mine, step=1, steps=2, flops=request.until_flops, loss=3.0, seconds=1.0
    )  # fmt: skip
    return 1.0, [point, result]


def fails(request: EvalRequest):
    mine = {"evaluation": request.evaluation, "attempt": request.attempt}
    return 1.0, [EvalResult(**mine, status=Status.FAILED, error="no [/such] luck")]


def stops_after(evaluations: int):
    """Work that is interrupted, as by Ctrl-C, once so many evaluations have begun."""
    begun = []

    def work(request: EvalRequest):
        begun.append(request)
        if len(begun) > evaluations:
            raise KeyboardInterrupt
        return trains(request)

    return work
