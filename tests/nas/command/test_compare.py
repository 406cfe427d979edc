"""`nas compare`, `Study.compare`, and what `nas pareto` says of its frontier."""

from __future__ import annotations

import json
import math
import random

import pytest

from nas.search.seeds import PRIOR_DEVIATION
from nas.store import CorpusFacts, Facts, Store
from nas.study import Study
from search_space.contract import EvalResult, Status
from search_space.errors import InputError
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow

URL = "sqlite:///nas.db"
BYTES = 64 * 300
OBJECTIVES = ["bits_per_byte", "active_flops"]
CONFIG = {"backbone": {"d_model": 64, "seq_len": 128}, "eval_tokens": 8192, "recipe": {}}


class Made:
    """Studies whose trials were measured on 64 windows of common hardness."""

    def __init__(self, store: Store) -> None:
        self.store, self.source = store, random.Random(0)
        self.hard = [self.source.gauss(400, 50) for _ in range(64)]

    def study(self, name: str, corpus: str = "text", rungs: int = 1, **changes):
        study = self.store.create_study(name, CONFIG | changes, 0, 1e15, OBJECTIVES, rungs=rungs)
        return self.store.update_study(study.id, facts=Facts(corpus=CorpusFacts(hash=corpus)))

    def trial(self, study, width: int, more: float, *, seeds=1, rung=0, copying=()) -> None:
        """A trial whose windows are harder by `more` of each, and all its seeds at one rung.

        copying: of each seed.
        """
        spec, until = FFNSpec(d_ff=width), 1e12 * 3**rung
        cost = {"active_flops": 1e3 * width, "total_params": 1.0}
        trial, evaluation = self.store.add_trial(
            study.id, spec, seed=0, source="x", params={}, until_flops=until, rung=rung, cost=cost
        )
        for seed in range(seeds):
            if seed:
                evaluation = self.store.add_evaluation(
                    study.id, trial.id, seed=seed, rung=rung, until_flops=until
                )
            self.end(evaluation, more + 0.0002 * seed, copying[seed] if copying else None)

    def end(self, evaluation, more: float, copying: float | None = None) -> None:
        nats = [hard * (1 + more) + self.source.gauss(0, 2) for hard in self.hard]
        self.store.end_evaluation(
            EvalResult(
                evaluation=evaluation.id,
                status=Status.FINISHED,
                bits_per_byte=math.fsum(nats) / math.log(2) / BYTES,
                bits_per_byte_se=0.03,
                windows=nats,
                flops=1e9,
                stats={} if copying is None else {"copying": copying},
            )
        )


@pytest.fixture
def made(folder):
    with Store.open(URL) as store:
        yield Made(store)


@pytest.fixture
def one(made):
    """Trials 0 and 1 are alike, 2 is better by 5%, and has two seeds as 1 has."""
    study = made.study("one")
    made.trial(study, 64, 0.0)
    made.trial(study, 96, 0.0005, seeds=2)
    made.trial(study, 128, -0.05, seeds=2)
    return study


def test_it_says_which_is_better_and_by_how_much(nas, one):
    found = json.loads(nas("compare", 0, 2, "--json").out)
    assert (found["a"]["trial"], found["b"]["trial"]) == (0, 2)
    assert (found["a"]["seeds"], found["b"]["seeds"]) == (1, 2)
    assert found["difference"] == pytest.approx(
        found["a"]["bits_per_byte"] - found["b"]["bits_per_byte"]
    )
    assert found["differ"] and found["paired"] and found["p_better"] < 0.001
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    assert found["error"] == pytest.approx(math.hypot(found["windows_error"], found["seeds_error"]))
    assert 0.5 < found["seeds_error"] / (found["deviation"] * math.sqrt(1.5)) < 1
    assert found["repeats"] == 2 and found["deviation"] < PRIOR_DEVIATION
    assert found["until_flops"] == 1e12
    assert found["sentence"].startswith("trial 2 is better than trial 0 by 0.0")
    table = nas("compare", 0, 2)
    assert table.code == 0 and found["sentence"] in " ".join(table.out.split())


def test_it_says_when_two_are_not_told_apart(nas, one):
    found = json.loads(nas("compare", "0", "1", "--json").out)
    assert not found["differ"] and 0.2 < found["p_better"] < 0.9
    assert found["sentence"].startswith(
        "trial 0 and trial 1 are not told apart: they differ by 0.0"
    )
    back = json.loads(nas("compare", "1", "0", "--json").out)
    assert back["difference"] == -found["difference"]
    assert back["p_better"] == pytest.approx(1 - found["p_better"])


def test_python_has_the_same_answer(nas, one):
    with Study.open("one", URL) as study:
        found = study.compare(0, "one:2")
        assert json.loads(json.dumps(found.to_dict())) == json.loads(
            nas("compare", 0, 2, "--json").out
        )
        assert set(study.chances()) == {0, 1, 2}
        with pytest.raises(InputError, match="no trial 7"):
            study.compare(0, 7)


def test_the_highest_common_rung_counts(nas, made):
    study = made.study("rungs", rungs=2)
    made.trial(study, 64, 0.0)
    made.trial(study, 128, 0.1)
    upper = made.store.add_evaluation(study.id, 2, seed=0, rung=1, until_flops=3e12)
    made.end(upper, -0.2)
    found = json.loads(nas("compare", 0, 1, "--json").out)
    assert found["until_flops"] == 1e12 and found["difference"] < -0.1
    made.end(made.store.add_evaluation(study.id, 1, seed=0, rung=1, until_flops=3e12), 0.0)
    found = json.loads(nas("compare", 0, 1, "--json").out)
    assert found["until_flops"] == 3e12 and found["difference"] > 0.2


def test_trials_of_two_studies(nas, one, made):
    twin = made.study("twin", recipe={"lr": 0.5})
    made.trial(twin, 64, 0.05, seeds=3)
    found = json.loads(nas("compare", "one:0", "twin:0", "--json").out)
    assert (found["a"]["study"], found["b"]["study"]) == ("one", "twin")
    assert found["differ"] and found["difference"] < 0 and found["repeats"] == 4
    assert found["trained_apart"] == ["recipe"]
    assert "trial 0 of one is better than trial 0 of twin" in found["sentence"]
    assert found["sentence"].endswith("they were not trained alike: recipe")


def refused(done) -> str:
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1, done
    return done.err


def test_what_cannot_be_compared_is_one_line(nas, one, made):
    made.trial(made.study("prose", corpus="another"), 64, 0.0)
    assert "different corpora" in refused(nas("compare", "one:0", "prose:0"))
    made.trial(made.study("short", eval_tokens=4096), 64, 0.0)
    told = refused(nas("compare", "one:0", "short:0"))
    assert "different windows: eval_tokens 8192 and 4096" in told
    longer = {"backbone": {"d_model": 64, "seq_len": 256}}
    made.trial(made.study("long", **longer), 64, 0.0)
    assert "seq_len 128 and 256" in refused(nas("compare", "one:0", "long:0"))
    made.trial(made.study("dear", rungs=2), 64, 0.0, rung=1)
    told = refused(nas("compare", "one:0", "dear:0"))
    assert "never measured after the same training FLOPs: 1e+12 and 3e+12" in told


def test_unknown_and_unmeasured_trials_are_one_line(nas, one, made):
    assert "no trial 9" in refused(nas("compare", 0, 9, "--study", "one"))
    assert "takes two different trials" in refused(nas("compare", 1, "one:1"))
    assert "no study named 'none'" in refused(nas("compare", 0, "none:1"))
    for odd in ("x", "1.5", "one:", ":", "one:-1", "9" * 30, "²"):
        assert "a trial is a number" in refused(nas("compare", 0, odd)), odd
    made.store.add_trial(
        one.id, FFNSpec(d_ff=8), seed=0, source="x", params={}, until_flops=1e12, cost={}
    )
    assert "trial 3 of study 'one' was not measured: it is running" in refused(nas("compare", 0, 3))


def test_without_windows_it_says_so(nas, add, end):
    with Store.open(URL) as store:
        study = store.create_study("bare", CONFIG, 0, 1e15, OBJECTIVES)
        for spec, bits in ((FFNSpec(d_ff=64), 2.0), (FFNSpec(d_ff=32), 2.01)):
            end(store, add(store, study, spec), bits=bits)
    found = json.loads(nas("compare", 0, 1, "--json").out)
    assert not found["paired"] and found["windows_error"] == pytest.approx(0.01 * math.sqrt(2))
    assert "windows were not kept" in found["sentence"]


def test_pareto_says_how_sure_its_frontier_is(nas, one, made):
    made.trial(one, 256, -0.0485)  # dominated by 2, within its noise
    made.trial(one, 512, 0.2)  # dominated by all
    made.store.add_trial(
        one.id, FFNSpec(d_ff=64, expert_width=16, selection=TopK()), seed=0, source="x",
        params={}, until_flops=1e12, cost={},
    )  # fmt: skip
    front = json.loads(nas("pareto", "--json").out)
    assert [row["trial"] for row in front] == [0, 2]
    assert [row["p_frontier"] for row in front] == [1.0, 1.0]
    assert front[0]["cheaper"] is None and front[1]["dearer"] is None
    gap = front[1]["cheaper"]
    known = json.loads(nas("compare", 2, 0, "--json").out)
    assert (gap["trial"], gap["difference"], gap["error"]) == (
        0, known["difference"], known["error"],
    )  # fmt: skip
    assert front[0]["dearer"]["difference"] == -gap["difference"]
    every = {row["trial"]: row for row in json.loads(nas("pareto", "--all", "--json").out)}
    assert 0.1 < every[3]["p_frontier"] < 0.9
    assert every[4]["p_frontier"] is None and every[5]["p_frontier"] is None
    table = nas("pareto")
    assert f"{gap['difference']:+.4f} ± {gap['error']:.4f} (#0)" in table.out
    assert "p frontier" in table.out and "vs cheaper" in table.out


def test_where_attention_copies_in_some_runs_alone_the_answer_says_so(nas, made):
    """That is luck of the seed, which a design's name would be read into."""
    study = made.study("copies")
    made.trial(study, 64, 0.0, seeds=2, copying=(0.61, -0.01))
    made.trial(study, 128, -0.05, copying=(0.02,))
    made.trial(study, 256, -0.1, copying=(0.0,))
    made.trial(study, 512, -0.15)  # of an earlier version
    found = json.loads(nas("compare", 0, 1, "--json").out)
    assert (found["a"]["copied"], found["b"]["copied"]) == (1, 0)
    assert "in some runs and not yet in others" in found["sentence"]
    assert "(seeds: 1 of 2 of trial 0, 0 of 1 of trial 1)" in found["sentence"]
    for a, b in ((1, 2), (2, 3)):
        assert "copy" not in json.loads(nas("compare", a, b, "--json").out)["sentence"]
    front = nas("pareto", "copies")
    assert "Note: attention has learnt to copy" in front.out
    assert "1 of 2 of trial 0, 0 of 1 of trial 1, 0 of 1 of trial 2)" in " ".join(front.out.split())
    rows = json.loads(nas("pareto", "copies", "--json").out)
    assert {row["trial"]: row["copied"] for row in rows} == {0: 1, 1: 0, 2: 0, 3: None}
    made.trial(made.study("alike"), 64, 0.0, seeds=2, copying=(0.61, 0.5))
    assert "copy" not in nas("pareto", "alike").out
