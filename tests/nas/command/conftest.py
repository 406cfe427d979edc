"""A working directory, the command in this process, and studies to show."""

from __future__ import annotations

import pytest
from command_tools import BACKBONE, STUDY, Done, FakePool

from nas.command.cli import run
from nas.store import Facts, Store, StudyState
from search_space.backbone import Backbone
from search_space.contract import EvalResult, Progress, Status
from search_space.cost import model_cost
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFN_NAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NAS_DB", raising=False)
    return tmp_path


@pytest.fixture
def nas(capsys):
    """nas("list", "--json") -> Done."""

    def call(*arguments: object) -> Done:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture
def in_process(monkeypatch):
    """in_process(work): studies run in this process, and `work` ends their evaluations."""

    def use(work, pool=FakePool):
        monkeypatch.setattr(pool, "work", staticmethod(work))
        monkeypatch.setattr("nas.running.ray_pool.RayPool", pool)

    return use


@pytest.fixture
def add(folder):
    """add(store, study, spec, seed=0, rung=0): a running evaluation of that design's run."""
    trials = {}

    def begin(store, study, spec, *, seed=0, rung=0):
        until = 1e9 * 3 ** (rung + 1 - study.rungs)
        if spec.key in trials:
            return store.add_evaluation(
                study.id, trials[spec.key], seed=seed, rung=rung, until_flops=until
            )
        trial, evaluation = store.add_trial(
            study.id,
            spec,
            seed=seed,
            source="preset",
            params={},
            until_flops=until,
            rung=rung,
            cost=model_cost(spec, Backbone(**BACKBONE)).to_dict(),
        )
        trials[spec.key] = trial.id
        return evaluation

    return begin


@pytest.fixture
def end():
    """end(store, evaluation, status, bits, error): it ends so, after half its FLOPs."""

    def ended(store, evaluation, status=Status.FINISHED, bits=None, error=""):
        store.end_evaluation(
            EvalResult(
                evaluation=evaluation.id,
                status=status,
                bits_per_byte=bits,
                bits_per_byte_se=bits and 0.01,
                flops=evaluation.until_flops / 2,
                error=error,
            )
        )

    return ended


@pytest.fixture
def filled(add, end):
    """nas.db with one stopped study: trial 0 finished, 1 diverged, 2 stopped."""
    endings = (
        (FFNSpec(d_ff=64), Status.FINISHED, 2.25, ""),
        (FFNSpec(d_ff=128, expert_width=32, selection=TopK()), Status.DIVERGED, None, "[/x] nan"),
        (FFNSpec(d_ff=32), Status.STOPPED, None, "the study was stopped before it ended"),
    )
    with Store.open("sqlite:///nas.db") as store:
        study = store.create_study("first", {}, 0, 3e9, ["bits_per_byte", "active_flops"])
        store.update_study(study.id, facts=Facts(ngram_bits_per_byte={"3": 2.5}))
        for spec, status, bits, error in endings:
            evaluation = add(store, study, spec)
            point = Progress(
                evaluation=evaluation.id, step=1, steps=2, flops=5e8, loss=3.0, seconds=0.5
            )
            store.add_progress([point])
            end(store, evaluation, status, bits, error)
        store.update_study(study.id, state=StudyState.STOPPED)


@pytest.fixture
def repeated(add, end):
    """nas.db with a study of two rungs that is held: by trial, what it shows.

    0: finished, with two seeds.  1: paused, better than 0 on both objectives.
    2: measured at the lower rung, and running at the upper.
    """
    budget = {"trials": 9, "trial_flops": 1e9, "rungs": 2, "reduction": 3.0}
    with Store.open("sqlite:///nas.db") as store:
        study = store.create_study(
            "second", STUDY | {"budget": budget}, 0, 9e9, ["bits_per_byte", "active_flops"], rungs=2
        )
        first, better, running = (FFNSpec(d_ff=width) for width in (64, 32, 96))
        end(store, add(store, study, first), bits=2.5)
        end(store, add(store, study, first, rung=1), bits=2.25)
        end(store, add(store, study, first, seed=1, rung=1), bits=2.27)
        end(store, add(store, study, better), bits=2.0)
        end(store, add(store, study, running), bits=2.4)
        add(store, study, running, rung=1)
        store.hold_study(study.id, "somebody elsewhere")
