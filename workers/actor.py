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
from search_space.errors import InputError
from workers.corpus import prepare
from workers.ngram import corpus_ngrams


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
    """Prepare the corpus where the data is and say what it holds; {"error": text} for bad input."""
    try:
        corpus = prepare(spec, vocab_size, seq_len, cache_dir)
    except InputError as error:
        return {"error": str(error)}
    ngrams = {str(n): bits for n, bits in corpus_ngrams(corpus).items()}
    return {"dir": str(corpus.dir), "meta": corpus.meta, "ngram_bits_per_byte": ngrams}
