"""The thin Ray actor: one process that evaluates one trial at a time."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Iterator
from typing import Any

from search_space.contract import EvalRequest, EvalResult, Progress
from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed
from search_space.secrets import redacted
from workers.corpus import prepare
from workers.corpus.reasons import reason
from workers.ngram import corpus_ngrams

log = logging.getLogger(__name__)


class TrialActor:
    """Made remote by `nas.ray_pool`; imports torch when it starts, before the first trial."""

    def __init__(self) -> None:
        import workers.evaluate

        logging.basicConfig(level=logging.WARNING)
        self._evaluate = workers.evaluate.evaluate

    def ready(self) -> int:
        """The process id, once the actor has started."""
        return os.getpid()

    def run(self, request: EvalRequest) -> Iterator[Progress | EvalResult]:
        """Yield the trial's progress while it trains; the last item is its result."""
        items: queue.Queue[Progress | EvalResult] = queue.Queue()

        def work() -> None:
            items.put(self._evaluate(request, items.put))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while True:
            item = items.get()
            yield item
            if isinstance(item, EvalResult):
                return


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


def _failure(error: Exception) -> str:
    if isinstance(error, WorkFailed):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "preparing the corpus failed: there is too little memory to hold its text; "
            "lower corpus.max_bytes"
        )
    return (
        f"preparing the corpus failed: {reason(error)}; the worker's log has the traceback; "
        "try a part of the source to see which file it is"
    )
