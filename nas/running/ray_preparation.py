"""A corpus prepared on a worker, and what is left of one that was not finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas.running.ray_limits import Limits
from nas.running.ray_workers import DIED, reason
from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed


def prepare(
    spec: CorpusSpec,
    vocab_size: int,
    seq_len: int,
    cache_dir: str,
    *,
    limits: Limits,
    alive: Callable[[], None],
) -> dict[str, Any]:
    """Prepare a corpus on a worker and say what it holds; `alive` is called every second or so."""
    import ray

    from workers.actor import prepare_stream

    task = ray.remote(num_cpus=0, max_retries=0)(prepare_stream)
    stream = task.options(num_returns="streaming").remote(spec, vocab_size, seq_len, cache_dir)
    patience, silent, facts = limits.start, 0, None
    while facts is None:
        alive()
        ready, _ = ray.wait([stream], num_returns=1, timeout=1.0, fetch_local=False)
        silent = 0 if ready else silent + 1
        if silent > patience:
            raise WorkFailed(
                f"the worker that prepares the corpus gave no sign of life for {patience:g} s"
            )
        if not ready:
            continue
        patience = limits.silent
        try:
            facts = ray.get(next(stream), timeout=limits.silent)
        except StopIteration as error:
            raise WorkFailed(f"the worker that prepares the corpus died: {DIED}") from error
        except ray.exceptions.RayTaskError as error:
            raise WorkFailed(f"the corpus could not be prepared: {reason(error)}") from error
        except ray.exceptions.RayError as error:
            raise WorkFailed(
                f"the worker that prepares the corpus died: {reason(error)}"
            ) from error
    if "error" in facts:
        kind = WorkFailed if facts.get("kind") == "failed" else InputError
        raise kind(facts["error"])
    return dict(facts)


def sweep(cache_dir: str) -> None:
    """Remove the drafts of corpora whose workers ended without a chance to do it."""
    if any(Path(cache_dir).glob(".*")):  # the import takes a second
        from workers.corpus import sweep as sweep_drafts

        sweep_drafts(Path(cache_dir))
