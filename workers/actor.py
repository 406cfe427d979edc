"""The thin Ray actor: one process that does one evaluation at a time."""

from __future__ import annotations

import functools
import logging
import os
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from search_space.contract import EvalRequest, EvalResult, LogLine, Precision, Progress
from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed
from search_space.secrets import redacted
from workers.corpus import prepare
from workers.corpus.reasons import reason
from workers.log_lines import sent_lines
from workers.ngram import corpus_ngrams

log = logging.getLogger(__name__)
BEAT_SECONDS = (
    2.0  # between signs of life; how long without one is too long: nas.running.ray_limits
)


class TrialActor:
    """Made remote by `nas.running.ray_workers`; imports torch before the first one."""

    def __init__(self) -> None:
        import workers.evaluate

        logging.basicConfig(level=logging.WARNING)
        self._evaluate = workers.evaluate.evaluate

    def ready(self) -> tuple[int, str]:
        """The process id, once the actor has started, and which GPU of which machine it sees; ""
        for none."""
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return os.getpid(), f"{socket.gethostname()} {seen}" if seen else ""

    def precision(self, asked: Precision, device: str, threads: int) -> dict[str, str]:
        """{"precision": what this worker would train in}, or {"error": one line} where its device
        has not what is asked for."""
        from workers.device import resolve_device
        from workers.precision import chosen

        try:
            return {"precision": chosen(asked, resolve_device(device), threads)}
        except InputError as error:
            return {"error": str(error)}

    def run(
        self, request: EvalRequest, share: float = 1.0
    ) -> Iterator[Progress | LogLine | EvalResult | None]:
        """Yield progress and what is logged while it trains, None as a sign of life, the
        evaluation's result last.

        share: of a GPU's memory, the most that this process may take.
        """
        from workers.device import limit_memory

        def work(put: Callable[[Progress | LogLine], None]) -> EvalResult:
            with sent_lines(request, put):
                return self._evaluate(request, put)

        limit_memory(share)
        yield from living(work)


def living(work: Callable[[Callable[[Any], None]], Any]) -> Iterator[Any]:
    """Run work(put) in this process's thread for work: yield what it puts, what it returns last,
    and None at once and every BEAT_SECONDS, which says that this process lives. Raises what `work`
    raises. Works that are begun together take turns."""
    items: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            items.put(("last", work(lambda item: items.put(("item", item)))))
        except BaseException as error:
            items.put(("raised", error))

    _works().put(run)
    yield None
    kind = ""
    while kind != "last":
        try:
            kind, item = items.get(timeout=BEAT_SECONDS)
        except queue.Empty:
            yield None
            continue
        if kind == "raised":
            raise item
        yield item


@functools.cache
def _works() -> queue.SimpleQueue[Callable[[], None]]:
    """What one thread does, one after another: it is never another thread's turn.

    glibc gives threads arenas, in which freed memory stays. When every training had a thread, one
    after another filled an arena: a worker grew by what a training takes, up to eight times a core.
    """
    works: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run() -> None:
        while True:
            works.get()()

    threading.Thread(target=run, daemon=True).start()
    return works


def prepare_stream(
    spec: CorpusSpec, vocab_size: int, seq_len: int, cache_dir: str
) -> Iterator[dict[str, Any] | None]:
    """`prepare_corpus` with signs of life; the last item is what it returns."""
    yield from living(lambda put: prepare_corpus(spec, vocab_size, seq_len, cache_dir))


def prepare_corpus(
    spec: CorpusSpec, vocab_size: int, seq_len: int, cache_dir: str
) -> dict[str, Any]:
    """Prepare the corpus where the data is and say what it holds.

    For what went wrong {"error": one line, "kind": "input"} when the user's input did, and
    {"error": one line, "kind": "failed"} for every other reason, whose traceback is logged here.
    """
    try:
        corpus = prepare(spec, vocab_size, seq_len, cache_dir)
        ngrams = {str(n): bits for n, bits in corpus_ngrams(corpus).items()}
    except InputError as error:
        return {"error": str(error), "kind": "input"}
    except Exception as error:
        log.exception("preparing the corpus %r failed", redacted(spec.source))
        return {"error": _failure(error), "kind": "failed"}
    return {"dir": str(corpus.dir), "meta": corpus.meta, "ngram_bits_per_byte": ngrams}


def share_stream(probe: EvalRequest) -> Iterator[dict[str, Any] | None]:
    """How many trials like `probe` should share this process's GPU, with signs of life; the last
    item has "trials" and "words", or "error" in one line, of "kind" "input" where nothing fits."""
    yield from living(lambda put: measure_share(probe))


def measure_share(probe: EvalRequest) -> dict[str, Any]:
    """What `share_stream` says last."""
    from workers.sharing import measure

    try:
        found = measure(probe)
    except InputError as error:
        return {"error": str(error), "kind": "input"}
    except WorkFailed as error:
        return {"error": str(error), "kind": "failed"}
    return {"trials": found.trials, "words": found.words}


def _failure(error: Exception) -> str:
    if isinstance(error, WorkFailed):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "preparing the corpus failed: there is too little memory to hold its text; "
            "lower corpus.max_bytes"
        )
    return (
        f"preparing the corpus failed: {reason(error)}; try a part of the source to see which file "
        "it is"
    )
