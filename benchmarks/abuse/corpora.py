"""Corpora that are broken, odd or empty: whole, with a word on what is not, or one line."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.abuse.corpus_cases import CASES, Case
from search_space.corpus import CorpusSpec
from search_space.errors import InputError

FULL = len(CASES)
SHORT = 12
LIMIT = 60  # seconds for one corpus

VOCAB, SEQ_LEN = 300, 1


def attempts(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Prepare `count` of the cases; see `benchmarks.abuse`."""
    for number, case in enumerate(random.Random(seed).sample(CASES, count)):
        yield attempt(case, folder / str(number))


def attempt(case: Case, folder: Path) -> str:
    """Prepare one corpus; "" for the right outcome, else what was wrong."""
    source, cache = folder / "corpus", folder / "cache"
    source.mkdir(parents=True)
    try:
        with _time_limit():
            wrong = _outcome(case, case.make(source), cache)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    left = sorted(path.name for path in cache.glob(".*"))
    wrong = wrong or (f"left behind: {left}" if left else "")
    return f"{case.name}: {wrong}" if wrong else ""


def _outcome(case: Case, keys: dict[str, Any], cache: Path) -> str:
    from workers.corpus import prepare
    from workers.corpus.documents import read_documents
    from workers.corpus.files import list_files

    try:
        spec = CorpusSpec(**{"validation": 0.1, "test": 0.1} | keys)
        corpus = prepare(spec, VOCAB, SEQ_LEN, cache)
    except InputError as error:
        line = str(error)
        right = bool(case.refused) and case.refused in line and "hunter2" not in line
        return "" if right and "\n" not in line and len(line) < 1500 else f"refused: {line}"
    if case.refused:
        return "was prepared, not refused"
    meta = corpus.meta
    texts = list(read_documents(spec, list_files(spec), "", cache))
    size = sum(len(text.encode()) for text in case.texts)
    for name, found, right in (
        ("documents", sorted(texts), sorted(case.texts)),
        ("bytes", sum(meta["bytes"].values()), size),
        ("number of documents", meta["source_documents"], len(case.texts)),
        ("dropped", meta["dropped"], case.dropped),
        ("notes", len(meta["notes"]), len(case.dropped)),
        ("lossless", meta["lossless"], True),
    ):
        if found != right:
            return f"{name}: {str(found)[:300]}, not {str(right)[:300]}"
    return ""


@contextmanager
def _time_limit() -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"no end after {LIMIT} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
