"""The comparison of presets: tiny runs in real worker processes, resumed runs, failing trials."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections import deque
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import presets, trials
from benchmarks.presets import Comparison
from benchmarks.trials import Outcome, State, Trial
from search_space.backbone import Backbone
from search_space.contract import Recipe, Status
from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from search_space.presets import PRESETS

TEXT = CorpusSpec(max_bytes=600_000)  # small_corpus, which is in the cache then
BACKBONE = Backbone(
    d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=16, reference_d_ff=32
)


def tiny(**changes) -> Comparison:
    return dataclasses.replace(
        Comparison(
            presets=("dense", "broken", "switch"),
            seeds=(0, 1),
            train_flops=2e7,
            backbone=BACKBONE,
            recipe=Recipe(batch_size=2),
            eval_tokens=256,
        ),
        **changes,
    )


@pytest.fixture(scope="module", autouse=True)
def broken_preset():
    """A preset that cannot be trained: its router's logits leave float32."""

    def broken(backbone):
        return dataclasses.replace(PRESETS["switch"](backbone), lr_multiplier=1e30)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "broken", broken)
        yield


def compare(comparison: Comparison, cache: Path, folder: Path) -> tuple[presets.Outcomes, str]:
    console = Console(file=io.StringIO(), width=200)
    outcomes = presets.compare(
        comparison, TEXT, cache=cache, state=State(folder), workers=1, console=console
    )
    return outcomes, console.file.getvalue()


@pytest.fixture(scope="module")
def first_run(broken_preset, small_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets")
    return folder, *compare(tiny(), small_corpus.dir.parent, folder)


def test_all_designs_take_a_seed_before_the_next(first_run):
    _, outcomes, printed = first_run
    order = [(name, seed) for seed in (0, 1) for name in ("dense", "broken", "switch")]
    assert list(outcomes) == order
    positions = [printed.index(f"{name}, seed {seed}: ") for name, seed in order]
    assert positions == sorted(positions)
    assert "6/6" in printed


def test_a_failing_trial_is_a_row_that_does_not_hold(first_run):
    _, outcomes, _ = first_run
    rows = {row.name: row for row in presets.rows(tiny(), outcomes)}
    failed = [row for row in rows.values() if not row.holds]
    assert [row.name for row in failed] == ["broken, seed 0", "broken, seed 1", "trials finished"]
    assert re.fullmatch("(failed|diverged): .+", str(failed[0].value))
    assert rows["trials finished"].value == 4
    assert rows["trials finished"].bar == ">= 6"
    assert f"- broken, seed 1: {failed[1].value}" in presets.markdown(tiny(), outcomes)


def test_finished_trials_are_not_run_again(first_run, small_corpus, monkeypatch):
    folder, outcomes, _ = first_run
    again = []
    monkeypatch.setattr(
        presets, "run_trials", lambda waiting, workers, ended: again.extend(waiting)
    )
    resumed, _ = compare(tiny(), small_corpus.dir.parent, folder)
    assert [(t.preset, t.request.seed) for t in again] == [("broken", 0), ("broken", 1)]
    assert resumed == {key: o for key, o in outcomes.items() if o.status is Status.FINISHED}


@pytest.mark.parametrize(
    "change",
    [
        {"train_flops": 3e7},
        {"eval_tokens": 512},
        {"recipe": Recipe(batch_size=2, lr=0.5)},
        {"backbone": dataclasses.replace(BACKBONE, reference_d_ff=64)},
        {"seeds": (2, 3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_a_trial_is_in_its_key(change, first_run, small_corpus):
    folder, _, _ = first_run
    state, corpus = State(folder), small_corpus.dir
    assert sum(state.find(t) is not None for t in tiny().trials(corpus)) == 4
    assert not any(state.find(t) for t in tiny(**change).trials(corpus))
    assert not any(state.find(t) for t in tiny().trials(corpus.with_name("another")))


def test_a_worker_that_dies_fails_its_own_trial_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(trials, "ProcessPoolExecutor", DyingPool)
    ended: list[tuple[str, Outcome]] = []
    waiting: deque[Trial] = deque(tiny(seeds=(0,)).trials(tmp_path))
    trials.run_trials(waiting, 1, lambda trial, outcome: ended.append((trial.preset, outcome)))
    assert [name for name, _ in ended] == ["dense", "broken", "switch"]
    assert [o.status for _, o in ended] == [Status.FINISHED, Status.FAILED, Status.FINISHED]
    assert "a worker process died" in ended[1][1].error


class DyingPool:
    """A pool that breaks at the design `broken`, as ProcessPoolExecutor does: for good."""

    def __init__(self, *options):
        self.broken = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None

    def submit(self, function, request):
        future = trials.Future()
        if self.broken:
            raise trials.BrokenProcessPool
        if request.spec.lr_multiplier > 1:
            self.broken = True
            future.set_exception(trials.BrokenProcessPool())
        else:
            future.set_result(Outcome(status=Status.FINISHED, bits_per_byte=1.0))
        return future


def outcomes_of(bits: dict[str, list[float]]) -> presets.Outcomes:
    return {
        (name, seed): Outcome(
            status=Status.FINISHED, bits_per_byte=value, active_flops=1e6, seconds=2.0, code="a"
        )
        for name, values in bits.items()
        for seed, value in enumerate(values)
    }


def test_the_best_is_first_and_differences_are_in_pooled_deviations():
    outcomes = outcomes_of({"dense": [2.00, 2.04, 2.30], "switch": [1.92, 1.96], "hash": [1.99]})
    comparison = tiny(presets=("dense", "switch", "hash", "avgk"), seeds=(0, 1, 2))
    dense, switch, hashed = (
        next(s for s in presets.summaries(comparison, outcomes) if s.preset == name)
        for name in ("dense", "switch", "hash")
    )
    names = [s.preset for s in presets.summaries(comparison, outcomes)]
    assert names == ["switch", "hash", "dense"]
    # Squares around the means 2.1133 and 1.94, over 2 + 1 degrees of freedom.
    deviation = ((0.1133**2 + 0.0733**2 + 0.1867**2 + 2 * 0.02**2) / 3) ** 0.5
    assert dense.difference is None
    assert dense.spread == pytest.approx(0.30)
    # Over the two seeds that both have: 1.94 - 2.02, and 1.99 - 2.00 of one.
    assert switch.difference == pytest.approx(-0.08 / deviation, rel=1e-3)
    assert hashed.difference == pytest.approx(-0.01 / deviation, rel=1e-3)
    assert hashed.spread is None
    assert presets.rows(comparison, outcomes)[-1].holds is False


def test_one_seed_alone_has_no_deviation():
    comparison = tiny(presets=("dense", "switch"), seeds=(0,))
    outcomes = outcomes_of({"dense": [2.0], "switch": [1.9]})
    assert [s.difference for s in presets.summaries(comparison, outcomes)] == [None, None]
    assert all(row.holds for row in presets.rows(comparison, outcomes))
    first = presets.markdown(comparison, outcomes).splitlines()[2]
    assert first.startswith("| switch | 1.9000 |  | 1 |  | 1.00 M | ")


def test_a_state_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "trials.jsonl").write_text('{"trial": 1}\n')
    with pytest.raises(InputError, match=r"cannot use .*give another folder"):
        State(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--presets", "dens"], "did you mean 'dense'?"),
        (["--presets", "dense,dense"], "each once: got 'dense,dense'"),
        (["--seeds", "0,-1"], "seeds must be at least 0: got -1"),
        (["--flops", "5"], "flops must pay for one step of every design"),
        (["--flops", "nan"], "got nan"),
        (["--eval-tokens", "1"], "at least one sequence, 128: got 1"),
        (["--workers", "0"], "workers must be at least 1: got 0"),
        (["--text", "none/*.txt"], "no file matches source 'none/*.txt'"),
        (["--json", "none/rows.json"], "there is no folder 'none'"),
    ],
)
def test_bad_arguments_are_one_line_and_code_2(arguments, message, capsys):
    assert presets.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_command_writes_rows_and_markdown(monkeypatch, tmp_path, capsys):
    found = outcomes_of({"dense": [2.0], "switch": [1.9]})
    monkeypatch.setattr(presets, "compare", lambda *_, **__: found)
    file = tmp_path / "rows.json"
    line = ["--presets", "dense,switch", "--seeds", "0", "--markdown", "--json", str(file)]
    assert presets.main(line) == 0
    rows = json.loads(file.read_text())["rows"]
    assert rows[0]["name"] == "switch: mean, n = 1"
    assert [row["bar"] for row in rows if row["bar"]] == [">= 2"]
    captured = capsys.readouterr()
    assert captured.out.startswith("| design | bits per byte, mean |")
    assert "trials finished" in captured.err
