"""From a configuration to a finished study: prepare everything, then drive."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nas import interrupts
from nas.checkpoints import folder_name, runs_dir, sweep_drafts
from nas.config import StudyConfig
from nas.driver import Driver, Snapshot
from nas.ending import recorded_ending
from nas.pool import Pool
from nas.preflight import check_store, check_study
from nas.store import Store, StudyRecord
from search_space.places import cache_dir, settle_home

log = logging.getLogger(__name__)


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
    everything is recorded when a signal stops it: nas.interrupts says when each takes effect.
    """
    if name is not None:
        store.check_name(name)
    settle_home()
    cache_dir()  # where it is unknown, nothing is started
    check_study(config)
    check_store(config, store, runs_dir(store))
    with interrupts.listening(), interrupts.held():
        report("starting workers")
        pool, runs = pool_factory(config), None
        try:
            report(f"preparing the corpus: {config.corpus.source}")
            facts = _prepare(config, pool)
            config = config.with_vocab_size(int(facts["meta"]["vocab_size"]))
            study = _create(config, store, name)
            runs = runs_dir(store) / folder_name(study)
            with recorded_ending(store, study):
                study = store.update_study(study.id, facts=_facts(facts) | {"runs": str(runs)})
                started(study, config)
                Driver(store, study, config, pool, facts["dir"], runs).run(listen)
            return store.study(study.name)
        finally:
            _close(pool, runs)


def _prepare(config: StudyConfig, pool: Pool) -> dict[str, Any]:
    """The corpus's facts; a signal ends the wait for them at once."""
    backbone, folder = config.backbone, str(cache_dir() / "corpora")
    try:
        with interrupts.breakable():
            return pool.prepare(config.corpus, backbone.vocab_size, backbone.seq_len, folder)
    except Exception as error:
        if interrupts.asked():  # its effect: the workers may have got the signal, too
            raise KeyboardInterrupt from error
        raise


def _create(config: StudyConfig, store: Store, name: str | None) -> StudyRecord:
    return store.create_study(
        name or config.name,
        config.to_dict(),
        config.seed,
        config.budget.total_flops,
        list(config.objectives),
        exact=name is not None,
    )


def _facts(prepared: dict[str, Any]) -> dict[str, Any]:
    return {
        "corpus": prepared["meta"],
        "corpus_dir": prepared["dir"],
        "ngram_bits_per_byte": prepared["ngram_bits_per_byte"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }


def _close(pool: Pool, runs: Path | None) -> None:
    """End the workers, then remove what they left unfinished in the study's folder `runs`.

    What ended the study is told before what fails here.
    """
    try:
        pool.close()
    except Exception as error:
        log.warning("the workers could not be ended in order: %s", error)
    if runs is not None:
        sweep_drafts(runs)
