"""From a configuration, or a study that was left, to a finished study: prepare, begin, drive."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

from nas.config import StudyConfig
from nas.machines import this_machine
from nas.models.checkpoints import folder_name, runs_dir, study_folder, sweep_drafts
from nas.process import interrupts
from nas.running.driver import Driver
from nas.running.ending import recorded_ending
from nas.running.pool import Pool
from nas.running.preflight import check_store, check_study, rates_warning
from nas.running.resumption import (
    check_corpus,
    check_place,
    check_states,
    resumable,
    stored_config,
    take,
)
from nas.running.turn import Turn
from nas.store import Facts, LeaseLost, Store, StudyRecord
from search_space.contract import TRAINING, Precision
from search_space.errors import InputError
from search_space.places import cache_dir, corpora_dir, settle_home

log = logging.getLogger(__name__)


def open_pool(config: StudyConfig) -> Pool:
    """The Ray pool that the configuration asks for."""
    from nas.running.gpu_sharing import probe
    from nas.running.ray_pool import RayPool

    workers = config.workers
    return RayPool(
        count=workers.count,
        threads=workers.threads,
        gpus=workers.gpus_per_trial,
        probe=probe(config.backbone, config.recipe, config.plan().levels[-1], workers.device),
        address=workers.ray_address,
    )


Report = Callable[[str], None]
Started = Callable[[StudyRecord, StudyConfig], None]
Listen = Callable[[Turn], None]
PoolFactory = Callable[[StudyConfig], Pool]


def launch_study(
    config: StudyConfig,
    store: Store,
    *,
    name: str | None = None,
    report: Report = log.info,
    started: Started = lambda study, config: None,
    listen: Listen = lambda turn: None,
    pool_factory: PoolFactory = open_pool,
) -> StudyRecord:
    """Run a new study to its end and return its record.

    name: instead of the configuration's; taken names are refused then, and numbered otherwise.
    report: told in words what is being prepared.
    started: told once the study is stored.
    listen: told the state of the trials at every turn of the loop.
    Raises InputError before anything is stored when the input is wrong, KeyboardInterrupt after
    everything is recorded when a signal stops it: `nas.process.interrupts` says when each does.
    """
    if name is not None:
        store.check_name(name)
    settle_home()
    cache_dir()  # where it is unknown, nothing is started
    check_study(config)
    check_store(config, store, runs_dir(store))

    def begin(found: Facts, ready: StudyConfig) -> tuple[StudyRecord, StudyConfig]:
        study = _create(ready, store, name, _launched(found))
        if study.name != (name or config.name):
            report(f"{config.name} exists: this study is {study.name}; nas resume {config.name} "
                   "would go on with the other")  # fmt: skip
        if warning := rates_warning(ready):
            report(warning)
        runs = runs_dir(store) / folder_name(study)
        return store.update_study(study.id, facts=Facts(runs=str(runs))), ready

    return _run(config, store, begin, report, started, listen, pool_factory)


def resume_study(
    study: StudyRecord,
    store: Store,
    *,
    report: Report = log.info,
    started: Started = lambda study, config: None,
    listen: Listen = lambda turn: None,
    pool_factory: PoolFactory = open_pool,
) -> StudyRecord:
    """Go on with a study that was stopped, failed or lost its driver; return its record.

    The arguments are those of `launch_study`. Raises InputError, and changes nothing, when there is
    nothing to go on with: the study is finished or held, of another version, its trainings' states
    are gone, or its corpus is not the one that it began with.
    """
    config = resumable(study, store)
    settle_home()
    cache_dir()
    folder = study_folder(study, store)
    check_store(config, store, runs_dir(store), folder)
    check_place(study, store, folder)
    check_states(study, store, config, folder)

    def begin(found: Facts, ready: StudyConfig) -> tuple[StudyRecord, StudyConfig]:
        check_corpus(study, found.corpus)
        facts = Facts(corpus_dir=found.corpus_dir, runs=str(folder))
        return store.update_study(study.id, facts=facts), config

    return _run(
        config, store, begin, report, started, listen, pool_factory, study.facts.launched_in
    )


def _run(
    config: StudyConfig,
    store: Store,
    begin: Callable[[Facts, StudyConfig], tuple[StudyRecord, StudyConfig]],
    report: Report,
    started: Started,
    listen: Listen,
    pool_factory: PoolFactory,
    launched_in: str = "",
) -> StudyRecord:
    """Open the pool, prepare the corpus, `begin` the study and drive it to its end."""
    with interrupts.listening(), interrupts.held():
        report("starting workers")
        pool, runs = pool_factory(config), None
        try:
            for note in pool.notes:
                report(note)
            precision = _precision(config, pool)
            report(f"preparing the corpus: {config.corpus.source}")
            found = _prepare(config, pool, launched_in)
            ready = config.with_vocab_size(found.corpus.vocab_size).with_precision(precision)
            study, ready = begin(found, ready)
            hold = take(study, store)
            runs = study_folder(study, store)
            with recorded_ending(store, study, hold):
                # Now that nobody else changes it: it may have been extended meanwhile.
                study = store.study(study.name)
                ready = stored_config(study)
                started(study, ready)
                Driver(store, study, ready, pool, found.corpus_dir, runs, hold).run(listen)
            return store.study(study.name)
        except LeaseLost:
            runs = None  # what is unfinished there may be the next driver's
            raise
        finally:
            _close(pool, runs)


def _prepare(config: StudyConfig, pool: Pool, launched_in: str) -> Facts:
    """The corpus's facts; a signal ends the wait for them at once.

    launched_in: the working directory of a study that is resumed, when it is known.
    """
    backbone, folder = config.backbone, str(corpora_dir())
    try:
        with interrupts.breakable():
            told = pool.prepare(config.corpus, backbone.vocab_size, backbone.seq_len, folder)
    except Exception as error:
        if interrupts.asked():  # its effect: the workers may have got the signal, too
            raise KeyboardInterrupt from error
        elsewhere = launched_in not in ("", str(Path.cwd()))
        if isinstance(error, InputError) and elsewhere and config.corpus.is_relative:
            way_out = f"the study was launched in {launched_in}: resume it from there"
            raise InputError(f"{error}; {way_out}") from error
        raise
    return Facts.from_dict(
        {
            "corpus": told["meta"],
            "corpus_dir": told["dir"],
            "ngram_bits_per_byte": told["ngram_bits_per_byte"],
        }
    )


def _precision(config: StudyConfig, pool: Pool) -> Precision:
    """What all runs of the study are trained in: two precisions are not comparable, so that
    `auto` is settled here, once, and stored. A study that is resumed asks whether the workers
    still have its own."""
    try:
        return pool.precision(config.recipe.precision, config.workers.device)
    except Exception as error:
        if interrupts.asked():  # its effect: the workers may have got the signal, too
            raise KeyboardInterrupt from error
        raise


def _create(config: StudyConfig, store: Store, name: str | None, facts: Facts) -> StudyRecord:
    return store.create_study(
        name or config.name,
        config.to_dict(),
        config.seed,
        config.total_flops,
        list(config.objectives),
        exact=name is not None,
        rungs=config.budget.rungs,
        facts=facts,  # with the study: one without them could not be resumed
    )


def _launched(found: Facts) -> Facts:
    """What the corpus taught, and where and how the study is launched."""
    return dataclasses.replace(
        found,
        launched_in=str(Path.cwd()),
        machine=this_machine(),
        training=TRAINING,
    )


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
