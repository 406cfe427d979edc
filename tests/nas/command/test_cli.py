"""The command `nas`: what each prints of what is stored."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from command_tools import Done, dead_owner, fails, write_corpus, write_study

from benchmarks.abuse.processes import Command, until
from nas.store import Store
from nas.store.log_lines import keep_lines
from search_space.contract import LogLine, Status
from search_space.errors import InputError
from search_space.presets import PRESETS
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["status"],
        ["status", "first"],
        ["runs"],
        ["runs", "first"],
        ["pareto"],
        ["pareto", "first", "--all"],
        ["show"],
        ["show", "--trial", "1"],
        ["presets"],
        ["presets", "--d-model", "64"],
        ["cost", "switch"],
        ["cost", '{"d_ff": 96, "selection": {"method": "hash"}, "expert_width": 24}'],
    ],
    ids=" ".join,
)
def test_a_command_prints_a_table_and_json(nas, filled, arguments):
    table, data = nas(*arguments), nas(*arguments, "--json")
    assert (table.code, data.code) == (0, 0)
    assert table.out.strip() and table.err == data.err == ""
    assert json.loads(data.out)


def test_space_prints_what_a_study_searches(nas):
    write_study(space={"methods": ["dense", "hash"], "depth": 1, "activation": "relu"})
    table, data = nas("space", "study.yaml"), nas("space", "study.yaml", "--json")
    assert (table.code, data.code) == (0, 0)
    record = json.loads(data.out)
    assert [row["method"] for row in record["counts"]] == ["dense", "hash"]
    assert record["designs"] > 2


def test_the_figures_are_those_of_the_store(nas, filled):
    study = json.loads(nas("list", "--json").out)[0]
    assert study["study"] == "first" and study["state"] == "stopped"
    counts = ("trials", "finished", "paused", "running", "stopped", "not_finished")
    assert [study[name] for name in counts] == [3, 1, 0, 0, 1, 1]
    assert study["best_bits_per_byte"] == 2.25
    assert study["flops_spent"] == pytest.approx(1.5e9)
    assert json.loads(nas("status", "--json").out)["facts"] == {"ngram_bits_per_byte": {"3": 2.5}}
    front = json.loads(nas("pareto", "--json").out)
    assert [(row["trial"], row["bits_per_byte"]) for row in front] == [(0, 2.25)]
    every = json.loads(nas("pareto", "--all", "--json").out)
    assert [row["frontier"] for row in every] == ["*", "", ""]
    assert json.loads(nas("show", "--trial", 1, "--json").out)["error"] == "[/x] nan"


def test_runs_shows_a_row_an_evaluation(nas, repeated):
    rows = json.loads(nas("runs", "--json").out)
    names = ("trial", "seed", "rung", "status", "attempt", "bits_per_byte")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (0, 0, 0, "finished", 1, 2.5),
        (0, 0, 1, "finished", 1, 2.25),
        (0, 1, 1, "finished", 1, 2.27),
        (1, 0, 0, "finished", 1, 2.0),
        (2, 0, 0, "finished", 1, 2.4),
        (2, 0, 1, "running", 1, None),
    ]
    assert [row["until_flops"] for row in rows[:2]] == [pytest.approx(1e9 / 3), 1e9]
    assert rows[1]["flops"] == 5e8
    assert list(rows[0])[-2:] == ["seconds", "error"]


def test_a_study_is_counted_by_designs_and_by_rungs(nas, repeated):
    row = json.loads(nas("status", "--json").out)
    counts = ("trials", "finished", "paused", "running", "stopped", "not_finished", "repeats")
    assert [row[name] for name in counts] == [3, 1, 1, 1, 0, 0, 1]
    rungs = [(r["rung"], r["until_flops"], r["running"], r["finished"]) for r in row["rungs"]]
    assert rungs == [(0, pytest.approx(1e9 / 3), 0, 3), (1, 1e9, 1, 2)]
    assert row["deviation"] == pytest.approx(0.02 / 2**0.5)
    assert row["flops_reserved"] == 1e9 and row["flops_spent"] == pytest.approx(1.5e9)
    assert row["held_by"] == "somebody elsewhere" and row["held_since"] > row["started"][:10]
    shown = nas("status").out
    assert "rung 1" in shown and "1 running, 2 finished (1e+09 FLOPs)" in shown
    assert "second" in nas("list").out


def test_a_holder_that_is_gone_is_called_so(nas, filled):
    with Store.open("sqlite:///nas.db") as store:
        store.hold_study(store.study().id, dead_owner())
    row = json.loads(nas("status", "--json").out)
    assert row["state"] == "running"
    assert row["held_by"].endswith(", gone; nas resume first")
    assert row["held_by"].startswith(f"process {os.getpid()} on ")


def test_a_study_that_nobody_holds_says_nothing_of_a_holder(nas, filled):
    row = json.loads(nas("status", "--json").out)
    assert (row["held_by"], row["held_since"], row["deviation"]) == (None, None, None)


def test_means_are_shown_and_the_lower_rung_is_on_no_frontier(nas, repeated):
    front = json.loads(nas("pareto", "--json").out)
    shown = [(r["trial"], r["bits_per_byte"], r["rung"], r["seeds"]) for r in front]
    assert shown == [(0, 2.26, 1, 2)]
    assert front[0]["±"] == 0.01 and front[0]["deviation"] == pytest.approx(0.02 / 2**0.5)
    every = json.loads(nas("pareto", "--all", "--json").out)
    marked = [(r["trial"], r["status"], r["rung"], r["frontier"]) for r in every]
    assert marked == [(0, "finished", 1, "*"), (1, "paused", 0, ""), (2, "running", 0, "")]


@pytest.mark.parametrize("experts", [64, 1296])
def test_many_experts_loads_are_shown_as_their_range(nas, filled, experts):
    load = [0.0, 0.0, *((n + 1) / 1e6 for n in range(experts - 2))]
    stats = json.dumps({"routing": {"layers.0.ffn": {"active": 0.5, "load": load}}})
    with Store.open("sqlite:///nas.db") as store, store._sessions.begin() as session:
        change = "UPDATE evaluation SET stats = ? WHERE id = 1"
        session.connection().exec_driver_sql(change, (stats,))
    record = json.loads(nas("show", "--trial", 0, "--json").out)
    assert record["routing"]["layers.0.ffn"]["load"] == load
    shown = " ".join(nas("show", "--trial", 0).out.split())
    words = "1,296 experts: smallest 0, median 0.0006465, largest 0.001294; 2 unused"
    assert (words in shown) == (experts > 64)
    assert (str(load[3]) in shown) == (experts <= 64)


def test_json_has_every_digit_and_a_table_four(nas, filled):
    with Store.open("sqlite:///nas.db") as store, store._sessions.begin() as session:
        change = "UPDATE evaluation SET bits_per_byte_se = 0.0123456789 WHERE id = 1"
        session.connection().exec_driver_sql(change)
        change = "UPDATE trial SET bits_per_byte = 2.2512345678 WHERE number = 0"
        session.connection().exec_driver_sql(change)
    (row,) = json.loads(nas("pareto", "--json").out)
    assert (row["bits_per_byte"], row["±"]) == (2.2512345678, 0.0123456789)
    assert " 2.251  0.0123 " in nas("pareto").out


def test_a_trial_is_shown_with_its_runs(nas, repeated):
    record = json.loads(nas("show", "--trial", 0, "--json").out)
    assert (record["bits_per_byte"], record["rung"], record["seeds"]) == (2.26, 1, 2)
    assert record["flops"] == pytest.approx(5e8 + 5e8 + 1e9 / 6)
    assert [(run["rung"], run["seed"]) for run in record["runs"]] == [(0, 0), (1, 0), (1, 1)]
    table = nas("show", "--trial", 0).out
    assert "until flops" in table and table.count("finished") == 1 + 3


def test_a_trial_is_shown_with_its_log(nas, repeated):
    assert json.loads(nas("show", "--trial", 2, "--json").out)["log"] == []
    at = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    with Store.open("sqlite:///nas.db") as store:
        study = store.study()
        running = store.trial_evaluations(store.trial(study.id, 2).id)[-1]
        line = {"evaluation": running.id, "at": at, "level": "warning", "text": "[/x] slow"}
        with store._writing() as connection:
            keep_lines(connection, [LogLine(**line, number=number) for number in (2, 1)])
    (first, second) = json.loads(nas("show", "--trial", 2, "--json").out)["log"]
    assert first == {
        "rung": 1, "seed": 0, "attempt": 1, "at": "2026-03-04T05:06:07+00:00",
        "level": "warning", "text": "[/x] slow",
    }  # fmt: skip
    assert second == first
    assert nas("show", "--trial", 2).out.count("[/x] slow") == 2


def test_a_printed_error_is_not_read_as_markup(nas, filled):
    assert "[/x] nan" in nas("show", "--trial", 1).out


def test_pareto_draws_a_page(nas, filled):
    done = nas("pareto", "--html", "front.html")
    assert done.code == 0 and done.err == "wrote front.html\n"
    assert "plotly" in Path("front.html").read_text()


def test_a_database_without_studies_is_no_error(nas):
    Store.open("sqlite:///nas.db").close()
    assert nas("list") == Done(0, "nothing to show yet\n", "")
    assert json.loads(nas("list", "--json").out) == []


def test_presets_say_where_they_are_from(nas):
    rows = json.loads(nas("presets", "--json").out)
    assert [row["preset"] for row in rows] == list(PRESETS)
    assert "2101.03961): one expert" in next(r["what"] for r in rows if r["preset"] == "switch")


def test_presets_and_a_cost_say_which_class_computes_the_same(nas):
    rows = json.loads(nas("presets", "--json").out)
    native = {row["preset"]: row["native"] for row in rows if row["native"]}
    assert native == dict.fromkeys(("mixtral", "olmoe"), "Qwen3MoeForCausalLM")
    found = json.loads(nas("cost", "switch", "--json").out)["native_form"]
    assert found.startswith("none: its experts are plain relu")
    assert found.endswith("; nearest: topk 1/8x512 swiglu")


def test_a_cost_reads_a_spec_from_a_file(nas):
    spec = FFNSpec(d_ff=96, activation="relu")
    Path("spec.json").write_text(json.dumps(spec.to_dict()))
    record = json.loads(nas("cost", "spec.json", "--d-model", 64, "--json").out)
    assert record["key"] == spec.key
    assert record["ffn_active_flops"] == 2 * 2 * 64 * 96


def test_help_and_version(nas):
    assert "Commands:" in nas("--help").out
    assert nas("--version").out.startswith("nas, version ")
    bare = nas()
    assert bare.code == 2 and "Commands:" in bare.out


def test_doctor(nas, in_process, folder):
    in_process(fails)
    rows = {row["check"]: row for row in json.loads(nas("doctor", "--json").out)}
    assert {"python", "torch", "ray", "workers", "database", "cache"} <= set(rows)
    assert rows["database"]["state"] == "ok"
    assert rows["products"]["state"] == "ok"
    assert rows["products"]["found"].startswith("torch: torch ")  # as the tests' environment asks
    assert rows["precision"]["found"].startswith(("auto is float32 (", "auto is bfloat16 ("))
    broken = nas("doctor", "--db", f"sqlite:///{folder}/none/nas.db", "--json")
    rows = {row["check"]: row for row in json.loads(broken.out)}
    assert broken.code == 1 and rows["database"]["state"] == "broken"


# In processes of their own, with Ray


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@needs_proc
def test_an_empty_corpus_with_ray_leaves_no_process(folder):
    command = Command(folder, "launch", str(write_study(corpus=write_corpus(""))))
    assert command.end(90) == ""
    assert command.process.returncode == 2 and command.out.read_text() == ""
    err = command.err.read_text()
    assert "Error: corpus: source 'corpus.txt' holds no text" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not list(folder.glob("nas.db*"))


def running_trials() -> int:
    try:
        with Store.open("sqlite:///nas.db", create=False) as store:
            trials = store.trials(store.study().id)
    except InputError:
        return 0  # no database, tables or study yet
    return sum(trial.status is Status.RUNNING for trial in trials)


@needs_proc
def test_ctrl_c_ends_the_trials_and_every_process(nas, folder):
    budget = {"trials": 500, "trial_flops": 1e12}
    command = Command(folder, "launch", str(write_study(corpus=write_corpus(), budget=budget)))
    try:
        assert until(lambda: running_trials() > 0, 90), "no trial began"
        assert len(command.left()) > 1
        os.killpg(command.process.pid, signal.SIGINT)  # what a terminal does
    finally:
        wrong = command.end(60)
    assert wrong == ""
    assert command.process.returncode == 130
    err = command.err.read_text()
    assert err.splitlines()[-1] == (
        "Error: stopped; what was running is recorded as stopped; go on with: nas resume tiny"
    )
    assert "Traceback" not in err

    status = json.loads(nas("status", "--json").out)
    assert status["state"] == "stopped" and status["running"] == 0
    every = json.loads(nas("pareto", "--all", "--json").out)
    assert "stopped" in {row["status"] for row in every}
    assert nas("pareto").code == 0
