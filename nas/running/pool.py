"""What a driver needs of a pool of workers."""

from __future__ import annotations

from typing import Any, Protocol

from search_space.contract import (
    EvalRequest,
    EvalResult,
    LogLine,
    Precision,
    Progress,
    WorkerLost,
)
from search_space.corpus import CorpusSpec
from search_space.errors import WorkFailed

Ending = EvalResult | WorkerLost
Event = Progress | LogLine | Ending


class PoolLost(WorkFailed):
    """The pool is gone with all that it ran; the text says what ended. Only `close` is left."""


class Pool(Protocol):
    """Evaluations go in, events come out; the last of each is its `Ending`."""

    @property
    def slots(self) -> int:
        """Evaluations that run at once."""

    @property
    def notes(self) -> list[str]:
        """What there is to say of how the workers were started, in lines."""

    def prepare(
        self, spec: CorpusSpec, vocab_size: int, seq_len: int, cache_dir: str
    ) -> dict[str, Any]:
        """Prepare a corpus: its `dir`, `meta` and `ngram_bits_per_byte`.

        Raises InputError for what the corpus or the user did wrong, WorkFailed when a good one
        could not be prepared, PoolLost.
        """

    def precision(self, asked: Precision, device: str) -> Precision:
        """What all workers train in; of `auto`, bfloat16 only where every one of them chooses it.

        Raises InputError where a worker has not what is asked for, WorkFailed, PoolLost.
        """

    def submit(self, request: EvalRequest) -> None:
        """Start an evaluation; at most `slots` may be unfinished."""

    def events(self, timeout: float) -> list[Event]:
        """What has happened since the last call; waits up to `timeout` seconds for something.

        Raises PoolLost; never waits for ever.
        """

    def close(self) -> None:
        """Stop every evaluation and release the machines. May be called twice."""
