"""From a configuration to a finished study: prepare everything, then drive."""

from __future__ import annotations

import logging
import os
import platform
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas.checkpoints import folder_name, runs_dir, sweep_drafts
from nas.config import StudyConfig
from nas.driver import Driver, Snapshot
from nas.pool import Pool
from nas.store import Store, StudyRecord

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Where prepared corpora live: $FFN_NAS_CACHE, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FFN_NAS_CACHE") or Path(base) / "ffn-nas")


def open_pool(config: StudyConfig) -> Pool:
    """The Ray pool that the configuration asks for."""
    from nas.ray_pool import RayPool

    workers = config.workers
    return RayPool(
        count=workers.count,
        threads=workers.threads,
        gpus=workers.gpus_per_trial,
        address=workers.ray_address,
    )


def launch_study(
    config: StudyConfig,
    store: Store,
    *,
    name: str | None = None,
    report: Callable[[str], None] = log.info,
    started: Callable[[StudyRecord, StudyConfig], None] = lambda study, config: None,
    listen: Callable[[Snapshot], None] = lambda snapshot: None,
    pool_factory: Callable[[StudyConfig], Pool] = open_pool,
) -> StudyRecord:
    """Run a study to its end and return its record.

    name: instead of the configuration's; taken names are refused then, and numbered otherwise.
    report: told in words what is being prepared.  started: told once the study is stored.
    listen: told the state of the trials at every turn of the loop.
    Raises InputError before anything is stored when the input is wrong, KeyboardInterrupt after
    everything is recorded when the user stops it.
    """
    if name is not None:
        store.check_name(name)
    with terminate_as_interrupt():
        report("starting workers")
        pool = pool_factory(config)
        try:
            report(f"preparing the corpus: {config.corpus.source}")
            backbone = config.backbone
            facts = pool.prepare(
                config.corpus, backbone.vocab_size, backbone.seq_len, str(cache_dir() / "corpora")
            )
            config = config.with_vocab_size(int(facts["meta"]["vocab_size"]))
            study = _create(config, store, name, facts)
            started(study, config)
            folder = Path(study.facts["runs"])
            try:
                return Driver(store, study, config, pool, facts["dir"], folder).run(listen)
            finally:
                pool.close()
                sweep_drafts(folder)
        finally:
            pool.close()


def _create(
    config: StudyConfig, store: Store, name: str | None, facts: dict[str, Any]
) -> StudyRecord:
    study = store.create_study(
        name or config.name,
        config.to_dict(),
        config.seed,
        config.budget.total_flops,
        list(config.objectives),
        exact=name is not None,
    )
    store.update_study(
        study.id,
        facts={
            "corpus": facts["meta"],
            "corpus_dir": facts["dir"],
            "runs": str(runs_dir(store) / folder_name(study)),
            "ngram_bits_per_byte": facts["ngram_bits_per_byte"],
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        },
    )
    return store.study(study.name)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM stops a study as Ctrl-C does; a second signal does not disturb the clean-up."""

    def interrupt(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    try:
        previous = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: the caller's signals are not ours to take
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
