"""The comparison of presets: tiny trainings in this process, cut runs, failing designs."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
import shutil

import pytest
from rich.console import Console

from benchmarks import preset_rows, preset_studies, presets
from benchmarks.preset_comparison import Comparison, Outcomes
from benchmarks.preset_studies import Outcome, Studies
from benchmarks.presets import kept_in
from benchmarks.simulated_pool import SimulatedPool
from nas.running.driver import MOST_FAILURES, MOST_LOSSES
from nas.store import StudyState
from nas.store.records import MeasuredRun
from search_space.backbone import Backbone
from search_space.contract import EvalResult, Recipe, Status, WorkerLost
from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed
from search_space.places import cache_dir
from search_space.presets import PRESETS
from workers.corpus import prepare
from workers.evaluate import evaluate

pytestmark = pytest.mark.slow

TEXT = CorpusSpec(max_bytes=600_000)  # small_corpus, which is in the cache then
BACKBONE = Backbone(
    d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=16, reference_d_ff=32
)


def tiny(**changes) -> Comparison:
    return dataclasses.replace(
        Comparison(
            presets=("dense", "broken", "switch"),
            seeds=(0, 1),
            flops=2e7,
            backbone=BACKBONE,
            recipe=Recipe(batch_size=2),
            eval_tokens=256,
        ),
        **changes,
    )


def broken(backbone):
    """A design that cannot be trained: its router's logits leave float32."""
    return dataclasses.replace(PRESETS["switch"](backbone), lr_multiplier=1e30)


@pytest.fixture(scope="module", autouse=True)
def surroundings(small_corpus, tmp_path_factory):
    """A cache that has the corpus, and a preset that is broken."""
    folder = tmp_path_factory.mktemp("cache")
    (folder / "corpora").symlink_to(small_corpus.dir.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFN_NAS_CACHE", str(folder))
        patch.setitem(PRESETS, "broken", broken)
        yield


def trains(request):
    events: list = []
    result = evaluate(request, events.append)
    return 1.0, [*events, result]


class Pool(SimulatedPool):
    """One worker, in this process, on the corpus that real ones would have."""

    def __init__(self, work):
        super().__init__(1, work)

    def prepare(self, spec, vocab_size, seq_len, cache_dir):
        corpus = prepare(spec, vocab_size, seq_len, cache_dir)
        return {"dir": str(corpus.dir), "meta": corpus.meta, "ngram_bits_per_byte": {}}


def compare(comparison, folder, work=None, printed=None) -> tuple[Outcomes, str]:
    """What came of it, and what was printed."""
    console = Console(file=printed or io.StringIO(), width=200)
    with kept_in(folder) as store:
        outcomes = presets.compare(
            comparison,
            TEXT,
            store=store,
            workers=1,
            console=console,
            pool_factory=lambda config: Pool(work or trains),
        )
    return outcomes, console.file.getvalue()


@pytest.fixture(scope="module")
def first_run(surroundings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets")
    return folder, *compare(tiny(), folder)


def bits(outcomes: Outcomes) -> dict:
    return {key: outcome.bits_per_byte for key, outcome in outcomes.items()}


def test_all_designs_take_a_seed_before_the_next(first_run):
    folder, outcomes, printed = first_run
    order = [(name, seed) for seed in (0, 1) for name in ("dense", "broken", "switch")]
    assert list(outcomes) == order
    positions = [printed.index(f"{name}, seed {seed}: ") for name, seed in order]
    assert positions == sorted(positions)
    assert "6/6" in printed
    with kept_in(folder) as store:
        assert [study.name for study in store.studies()] == ["presets-1", "presets-0"]


def test_a_failing_trial_is_a_row_that_does_not_hold(first_run):
    _, outcomes, _ = first_run
    rows = {row.name: row for row in preset_rows.rows(tiny(), outcomes)}
    failed = [row for row in rows.values() if not row.holds]
    assert [row.name for row in failed] == ["broken, seed 0", "broken, seed 1", "trials finished"]
    assert re.fullmatch("(failed|diverged): .+", str(failed[0].value))
    assert rows["trials finished"].value == 4
    assert rows["trials finished"].bar == ">= 6"
    assert f"- broken, seed 1: {failed[1].value}" in preset_rows.markdown(tiny(), outcomes)


def test_an_outcome_is_what_the_training_measured(first_run):
    _, outcomes, _ = first_run
    dense = outcomes["dense", 0]
    assert 1 < dense.bits_per_byte < 8
    assert dense.bits_per_byte != outcomes["dense", 1].bits_per_byte
    assert dense.active_flops > 0
    assert (dense.run.bits_per_byte, len(dense.run.windows)) == (dense.bits_per_byte, 16)
    assert dense.seconds > 0
    assert dense.codes == outcomes["broken", 1].codes == (preset_studies.commit(),)


def never(request):
    raise AssertionError(f"trial {request.number} is trained again")


def test_what_has_ended_is_not_run_again(first_run):
    folder, outcomes, _ = first_run
    assert compare(tiny(), folder, never)[0] == outcomes


def test_a_run_that_was_cut_goes_on(first_run, tmp_path, monkeypatch):
    _, whole, _ = first_run
    trained = []

    def cut(request):
        if len(trained) == 2:
            raise KeyboardInterrupt
        trained.append((request.seed, request.number))
        return trains(request)

    outcomes, printed = compare(tiny(), tmp_path, cut)
    assert list(outcomes) == [("dense", 0), ("broken", 0)]
    assert "interrupted: the rows are of the trials that ended before" in printed
    assert preset_rows.rows(tiny(), outcomes)[-1].value == 1

    def goes_on(request):
        trained.append((request.seed, request.number))
        return trains(request)

    monkeypatch.setattr(preset_studies, "commit", lambda: "a later commit")
    outcomes, _ = compare(tiny(), tmp_path, goes_on)
    assert trained == [(seed, number) for seed in (0, 1) for number in range(3)]
    assert bits(outcomes) == bits(whole)
    versions = {row.name: row for row in preset_rows.rows(tiny(), outcomes)}
    assert versions["versions of the code that trained them"].value == 2
    assert outcomes["dense", 1].codes == ("a later commit",)


def found(folder, comparison, text=TEXT, hash="") -> list[str | None]:
    """Names of the kept studies that the comparison would take."""
    corpus = prepare(TEXT, 300, 16, cache_dir() / "corpora")
    with kept_in(folder) as store:
        studies = Studies(store, hash or corpus.meta["hash"], corpus.meta["vocab_size"])
        kept = (studies.find(comparison.study(seed, text, None)) for seed in comparison.seeds)
        return [study and study.name for study in kept]


@pytest.mark.parametrize(
    "change",
    [
        {"flops": 3e7},
        {"eval_tokens": 512},
        {"recipe": Recipe(batch_size=2, lr=0.5)},
        {"backbone": dataclasses.replace(BACKBONE, reference_d_ff=64)},
        {"presets": ("dense", "switch")},
        {"seeds": (2, 3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_kept_study_of_another_comparison_is_not_taken(change, first_run):
    assert found(first_run[0], tiny()) == ["presets-0", "presets-1"]
    assert found(first_run[0], tiny(**change)) == [None, None]


def test_nor_one_of_another_text_design_or_training(first_run, monkeypatch):
    folder = first_run[0]
    assert found(folder, tiny(), text=CorpusSpec(max_bytes=500_000)) == [None, None]
    assert found(folder, tiny(), hash="of files that have changed") == [None, None]
    with monkeypatch.context() as patch:
        patch.setattr(preset_studies, "TRAINING", 1)
        assert found(folder, tiny()) == [None, None]
    with monkeypatch.context() as patch:
        patch.setitem(PRESETS, "switch", PRESETS["hash"])
        assert found(folder, tiny()) == [None, None]
    assert found(folder, tiny()) == ["presets-0", "presets-1"]


def test_another_comparison_lies_beside_the_kept_one(first_run, tmp_path):
    before, outcomes, _ = first_run
    folder = shutil.copytree(before, tmp_path / "copy")
    other = tiny(presets=("dense",), seeds=(0,), flops=3e7)
    assert compare(other, folder)[0]["dense", 0].bits_per_byte < outcomes["dense", 0].bits_per_byte
    with kept_in(folder) as store:
        assert store.studies()[0].name == "presets-0-2"
    assert compare(tiny(), folder, never)[0] == outcomes


def fails(request):
    """Broken designs fail, the others finish at once."""
    mine = {"evaluation": request.evaluation, "attempt": request.attempt}
    if request.spec.lr_multiplier > 1:
        return 1.0, [EvalResult(**mine, status=Status.FAILED, error="no luck")]
    return 1.0, [EvalResult(**mine, status=Status.FINISHED, bits_per_byte=2.0)]


@pytest.mark.parametrize("more", [0, 1, MOST_FAILURES])
def test_any_number_of_failing_designs_leaves_none_out(more, tmp_path, monkeypatch):
    names = [f"broken-{n}" for n in range(MOST_FAILURES + more)]
    for n, name in enumerate(names):
        design = dataclasses.replace(broken(BACKBONE), lr_multiplier=2.0 + n)
        monkeypatch.setitem(PRESETS, name, lambda backbone, design=design: design)
    comparison = tiny(presets=(*names, *(["dense"] if more else [])), seeds=(0,))
    outcomes, printed = compare(comparison, tmp_path, fails)
    assert [preset for preset, _ in outcomes] == list(comparison.presets)
    assert {outcomes[name, 0].line() for name in names} == {"failed: no luck"}
    assert all(f"{name}, seed 0: failed: no luck" in printed for name in names)
    assert "evaluations in a row failed; the last: no luck; going on" in printed
    with kept_in(tmp_path) as store:
        assert [study.state for study in store.studies()] == [StudyState.FINISHED]
    if more:
        assert outcomes["dense", 0].bits_per_byte == 2.0


def test_each_is_told_as_it_ends(tmp_path):
    printed, told = io.StringIO(), []

    def ends(request):
        told.append(printed.getvalue().count("2.0000 bits per byte"))
        return fails(request)

    compare(tiny(presets=("dense", "switch", "hash")), tmp_path, ends, printed)
    assert told == list(range(6))


def test_spending_more_than_was_granted_leaves_none_out(tmp_path):
    def overspends(request):
        seconds, [result] = fails(request)
        return seconds, [dataclasses.replace(result, flops=1.1 * request.until_flops)]

    comparison = tiny(presets=("dense", "switch", "hash"), seeds=(0,))
    assert len(compare(comparison, tmp_path, overspends)[0]) == 3


def test_a_design_that_kills_its_workers_fails_alone(tmp_path):
    lost = []

    def kills(request):
        if request.spec.lr_multiplier == 1:
            return trains(request)
        lost.append(request.attempt)
        return 1.0, [WorkerLost(evaluation=request.evaluation, error="its worker died")]

    outcomes, _ = compare(tiny(seeds=(0,)), tmp_path, kills)
    expected = {"dense": Status.FINISHED, "broken": Status.FAILED, "switch": Status.FINISHED}
    assert {preset: o.status for (preset, _), o in outcomes.items()} == expected
    assert len(lost) == MOST_LOSSES
    assert "its worker died" in outcomes["broken", 0].error


def outcomes_of(bits: dict[str, list[float]], windows: dict[str, list[float]]) -> Outcomes:
    """Outcomes whose runs have these shares of their nats in each window."""
    out = {}
    for name, values in bits.items():
        for seed, value in enumerate(values):
            nats = [value * math.log(2) * 300 * share for share in windows.get(name, [])]
            run = MeasuredRun(0, 7, 2e7, value, 0.1, nats)
            out[name, seed] = Outcome(
                status=Status.FINISHED,
                bits_per_byte=value,
                run=run,
                active_flops=1.5e6 if name == "switch" else 1e6,
                seconds=2.0,
                codes=("a",),
            )
    return out


def test_the_best_is_first_and_differences_are_those_of_compare():
    shares = {"dense": [0.25, 0.35, 0.4], "switch": [0.3, 0.3, 0.4], "hash": [0.25, 0.35, 0.4]}
    outcomes = outcomes_of(
        {"dense": [2.00, 2.04, 2.30], "switch": [1.92, 1.96], "hash": [1.99]}, shares
    )
    # At their published widths: avgk's experts would be less than a unit wide here.
    comparison = tiny(presets=("dense", "switch", "hash", "avgk"), seeds=(0, 1, 2), match=None)
    found = {s.preset: s for s in preset_rows.summaries(comparison, outcomes)}
    assert list(found) == ["switch", "hash", "dense"]
    dense, switch, hashed = (found[name] for name in ("dense", "switch", "hash"))
    # Each with its own squares and those of all, as much as SHARED repeats would weigh.
    squares = {"dense": 0.1133**2 + 0.0733**2 + 0.1867**2, "switch": 2 * 0.02**2}
    prior = 0.005**2
    of_all = (sum(squares.values()) + 4 * prior) / (3 + 4)
    assert hashed.deviation == pytest.approx(of_all**0.5, rel=1e-3)
    assert dense.deviation == pytest.approx(((squares["dense"] + 4 * of_all) / 6) ** 0.5, rel=1e-3)
    assert dense.from_dense is None
    assert switch.from_dense.value == pytest.approx(1.94 - 2.1133, abs=1e-4)
    seeds = dense.deviation**2 / 3 + switch.deviation**2 / 2
    assert switch.from_dense.seeds_error == pytest.approx(seeds**0.5, rel=1e-6)
    # Paired: the windows' parts of each mean, and what these gaps scatter by.
    gaps = [1.94 * a - 2.11333 * b for a, b in zip(shares["switch"], shares["dense"], strict=True)]
    middle = sum(gaps) / 3
    windows = (1.5 * sum((gap - middle) ** 2 for gap in gaps)) ** 0.5
    assert switch.from_dense.windows_error == pytest.approx(windows, rel=1e-3)
    assert (switch.active_share, hashed.active_share) == (1.5, 1.0)
    assert preset_rows.rows(comparison, outcomes)[-1].holds is False


def test_one_seed_alone_has_the_deviation_that_is_taken_for_granted():
    comparison = tiny(presets=("dense", "switch"), seeds=(0,))
    outcomes = outcomes_of({"dense": [2.0], "switch": [1.9]}, {})
    assert [s.deviation for s in preset_rows.summaries(comparison, outcomes)] == [0.005, 0.005]
    assert all(row.holds for row in preset_rows.rows(comparison, outcomes))
    first = preset_rows.markdown(comparison, outcomes).splitlines()[2]
    assert re.match(
        r"\| switch \| 1\.9000 \| -0\.1000 \(-\d\.\d{4} to \+\d\.\d{4}\) \| 0\.0050 \| 1 \| 1\.50",
        first,
    )


def test_deviations_are_held_against_what_chance_gives():
    bits = {"dense": [2.0, 2.02], "switch": [1.9, 1.91, 1.92], "hash": [1.8]}
    comparison = tiny(presets=tuple(bits), seeds=(0, 1, 2), match=None)
    pooled, largest, chance = preset_rows.seed_rows(comparison, outcomes_of(bits, {}))
    assert pooled.name.endswith("n = 3 repeats")
    assert pooled.value == pytest.approx(((0.0002 + 0.0002) / 3) ** 0.5)
    assert largest.value == pytest.approx(0.0002**0.5)
    # P(chi2_1 < m) P(chi2_2 / 2 < m) = 1 / 2 at m, in pooled variances
    m = (chance.value / pooled.value) ** 2
    assert math.erf((m / 2) ** 0.5) * (1 - math.exp(-m)) == pytest.approx(0.5, abs=0.01)
    assert preset_rows.seed_rows(comparison, outcomes_of({"dense": [2.0]}, {})) == []


def test_without_dense_there_is_nothing_to_differ_from():
    comparison = tiny(presets=("dense", "switch"), seeds=(0,))
    [switch] = preset_rows.summaries(comparison, outcomes_of({"switch": [1.9]}, {}))
    assert switch.from_dense is switch.active_share is None
    assert "| 1.9000 |  | " in preset_rows.markdown(comparison, outcomes_of({"switch": [1.9]}, {}))


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "nas.db").write_text("no database\n" * 100)
    with pytest.raises(InputError, match=r"cannot use .*file.*give another folder"):
        kept_in(tmp_path / "file").__enter__()
    with pytest.raises(InputError, match=r"nas\.db"):
        kept_in(tmp_path).__enter__()


def test_without_a_folder_nothing_is_left(tmp_path):
    with kept_in(None) as store:
        folder = store.file.parent
        assert folder.is_dir()
    assert not folder.exists()
    with kept_in(tmp_path / "odd %3F?"):
        assert (tmp_path / "odd %3F?" / "nas.db").exists()
    assert not (tmp_path / "odd %3F?" / "nas.db").exists()


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


def test_failed_work_is_one_line_and_code_1(monkeypatch, capsys):
    def loses(*_, **__):
        raise WorkFailed("Ray ended")

    monkeypatch.setattr(presets, "compare", loses)
    assert presets.main([]) == 1
    assert capsys.readouterr().err.endswith(": Ray ended\n")


def test_the_command_writes_rows_and_markdown(monkeypatch, tmp_path, capsys):
    found = outcomes_of({"dense": [2.0], "switch": [1.9]}, {})
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
