"""The command `nas`: what each prints, its exit codes, and one line for whatever is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from benchmarks.abuse.processes import Command, until
from nas.cli import run
from nas.pool import SimulatedPool
from nas.store import Store, StudyState
from search_space.backbone import Backbone
from search_space.contract import EvalResult, Progress, Status
from search_space.cost import model_cost
from search_space.errors import InputError
from search_space.presets import PRESETS
from search_space.spec import FFNSpec, TopK

BACKBONE = {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32}
STUDY = {
    "name": "tiny",
    "backbone": BACKBONE,
    "recipe": {"batch_size": 2},
    "eval_tokens": 256,
    "budget": {"trials": 2, "trial_flops": 1e8},
    "warm_start": ["dense"],
    "space": {"methods": ["dense", "topk"], "depth": 1, "granularity": [1, 2]},
    "workers": {"count": 1, "device": "cpu"},
}
TEXT = "".join(f"def add_{n}(a, b):\n    return a + b + {n * n}\n\n" for n in range(4000))


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


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
def filled(folder):
    """nas.db with one stopped study: trial 0 finished, 1 diverged, 2 stopped."""
    endings = (
        (FFNSpec(d_ff=64), Status.FINISHED, 2.25, ""),
        (FFNSpec(d_ff=128, expert_width=32, selection=TopK()), Status.DIVERGED, None, "[/x] nan"),
        (FFNSpec(d_ff=32), Status.STOPPED, None, "the study was stopped before it ended"),
    )
    with Store.open("sqlite:///nas.db") as store:
        study = store.create_study("first", {}, 0, 3e9, ["bits_per_byte", "active_flops"])
        store.update_study(study.id, facts={"ngram_bits_per_byte": {"3": 2.5}})
        for spec, status, bits, error in endings:
            trial = store.add_trial(
                study.id,
                spec,
                seed=0,
                source="preset",
                params={},
                train_flops=1e9,
                cost=model_cost(spec, Backbone(**BACKBONE)).to_dict(),
            )
            store.add_progress(
                [Progress(trial=trial.id, step=1, steps=2, flops=5e8, loss=3.0, seconds=0.5)]
            )
            store.end_trial(
                EvalResult(
                    trial=trial.id,
                    status=status,
                    bits_per_byte=bits,
                    bits_per_byte_se=bits and 0.01,
                    flops=5e8,
                    error=error,
                )
            )
        store.update_study(study.id, state=StudyState.STOPPED)


def write_study(**changes) -> Path:
    path = Path("study.yaml")
    path.write_text(yaml.safe_dump(STUDY | changes))
    return path


def write_corpus(text: str = TEXT) -> dict[str, str]:
    Path("corpus.txt").write_text(text)
    return {"source": "corpus.txt"}


def the_error(done: Done, code: int = 2) -> str:
    """The one line that a failed command leaves on stderr."""
    assert done.code == code, done
    assert done.out == ""
    assert done.err.startswith("Error: "), done.err
    assert done.err.count("\n") == 1, done.err
    assert "Traceback" not in done.err
    return done.err.removeprefix("Error: ").strip()


# What each command prints


@pytest.mark.parametrize(
    "arguments",
    [
        ["list"],
        ["status"],
        ["status", "first"],
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
    assert (study["trials"], study["finished"], study["not_finished"]) == (3, 1, 2)
    assert study["best_bits_per_byte"] == 2.25
    assert study["flops_spent"] == pytest.approx(1.5e9)
    assert json.loads(nas("status", "--json").out)["facts"] == {"ngram_bits_per_byte": {"3": 2.5}}
    front = json.loads(nas("pareto", "--json").out)
    assert [(row["trial"], row["bits_per_byte"]) for row in front] == [(0, 2.25)]
    every = json.loads(nas("pareto", "--all", "--json").out)
    assert [row["frontier"] for row in every] == ["*", "", ""]
    assert json.loads(nas("show", "--trial", 1, "--json").out)["error"] == "[/x] nan"


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


class FakePool(SimulatedPool):
    """Where the Ray pool would be: prepares corpora in this process; trials end as told."""

    work = staticmethod(lambda request: (1.0, []))

    def __init__(self, **options):
        super().__init__(1, self.work)

    def prepare(self, spec, vocab_size, seq_len, cache_dir):
        from workers.actor import prepare_corpus

        facts = prepare_corpus(spec, vocab_size, seq_len, cache_dir)
        if "error" in facts:
            raise InputError(facts["error"])
        return facts


def train_here(request):
    from workers.evaluate import evaluate

    events = []
    result = evaluate(request, events.append)
    return 1.0, [*events, result]


def fail(request):
    return 1.0, [EvalResult(trial=request.trial, status=Status.FAILED, error="no [/such] luck")]


@pytest.fixture
def in_process(monkeypatch):
    """in_process(work): studies run in this process, and `work` ends their trials."""

    def use(work):
        monkeypatch.setattr(FakePool, "work", staticmethod(work))
        monkeypatch.setattr("nas.ray_pool.RayPool", FakePool)

    return use


def test_launch_export_generate(nas, in_process):
    in_process(train_here)
    launched = nas("launch", write_study(corpus=write_corpus()))
    assert launched.code == 0, launched.err
    assert "study tiny: 2 of 2 trials finished" in launched.out
    assert "[2/2] trial 1" in launched.err
    assert "byte n-grams" in launched.out
    assert list(Path("nas-runs").glob("tiny-*/trial-0/model.safetensors"))

    exported = nas("export", "--to", "model", "--no-verify")
    assert (exported.code, exported.out) == (0, "model\n")
    text = nas("generate", "model", "--prompt", "def ", "--tokens", 8, "--temperature", 0)
    assert text.code == 0 and text.out.startswith("def ")

    again = nas("export", "--to", "model")
    assert "export needs a new or empty directory: model holds files" in the_error(again)
    taken = nas("launch", "study.yaml", "--name", "tiny")
    assert "a study's name must be new: 'tiny' exists; choose another" in the_error(taken)


@pytest.mark.parametrize(("bits", "warned"), [(7.9, True), (0.1, False)])
def test_a_study_that_learned_nothing_says_so(nas, in_process, bits, warned):
    def work(request):
        result = EvalResult(trial=request.trial, status=Status.FINISHED, bits_per_byte=bits)
        return 1.0, [result]

    in_process(work)
    done = nas("launch", write_study(corpus=write_corpus()))
    assert done.code == 0
    assert ("warning: no design beats the byte trigram" in done.err) is warned
    assert f"best: {bits:.4f} bits per byte; byte n-grams: n=3 " in done.out


def test_a_study_of_failures_exits_with_1_and_says_why(nas, in_process):
    in_process(fail)
    done = nas("launch", write_study(corpus=write_corpus()))
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert last.startswith("Error: no trial of tiny finished; the last: no [/such] luck; ")

    done = nas(
        "launch", write_study(corpus=write_corpus(), budget={"trials": 9, "trial_flops": 1e8})
    )
    assert done.code == 1
    assert "5 trials in a row failed; the last: no [/such] luck" in done.err.splitlines()[-1]
    assert json.loads(nas("status", "--json").out)["state"] == "failed"


def test_doctor(nas, in_process, folder):
    in_process(fail)
    rows = {row["check"]: row for row in json.loads(nas("doctor", "--json").out)}
    assert {"python", "torch", "ray", "workers", "database", "cache"} <= set(rows)
    assert rows["database"]["state"] == "ok"
    broken = nas("doctor", "--db", f"sqlite:///{folder}/none/nas.db", "--json")
    rows = {row["check"]: row for row in json.loads(broken.out)}
    assert broken.code == 1 and rows["database"]["state"] == "broken"


# Bad input: one line, exit code 2, nothing written


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lanch"], ["No such command 'lanch'", "'launch'", "see: nas --help"]),
        (["pareto", "--jsn"], ["No such option '--jsn'", "'--json'", "see: nas pareto --help"]),
        (["export"], ["Missing option '--to'", "see: nas export --help"]),
        (["cost"], ["Missing argument 'DESIGN'", "see: nas cost --help"]),
        (["cost", "swich"], ["'swich' is none", "did you mean 'switch'?"]),
        (["cost", "{}"], ["a spec needs d_ff"]),
        (["cost", "{d_ff}"], ['a spec is JSON such as {"d_ff": 512}']),
        (
            ["cost", '{"d_ff": 512, "selection": {"method": ["topk"]}}'],
            ["selection: unknown method ['topk']", "did you mean 'topk'?"],
        ),
        (["cost", f'{{"d_ff": {"9" * 400}}}'], ["d_ff: a whole number has at most 64 bits"]),
        (["cost", f'{{"d_ff": {"9" * 5_000}}}'], ["a whole number has at most 64 bits"]),
        (["cost", '{"d_ff": 4, "d_ff": 8}'], ["key 'd_ff' is given twice; keep one"]),
        (["cost", '{"a":' * 5_000], ["nested more than 64 levels deep"]),
        (["cost", "."], ["cannot read .: Is a directory", "give the path of a JSON file"]),
        (["cost", "x" * 5_000], ["a design is a preset, a spec as JSON or a file"]),
        (["cost", "dense", "--d-model", "9" * 400], ["'--d-model'", "1<=x<=65536"]),
        (["cost", "dense", "--layers", "9" * 5_000], ["'--layers'", " ... ", "nas cost --help"]),
        (["cost", "dense", "--vocab", "nan"], ["'--vocab'", "'nan'"]),
        (["presets", "--d-model", "65537"], ["'--d-model'", "1<=x<=65536"]),
        (["show", "--trial", "-1"], ["'--trial'", "0<=x<=2147483647"]),
        (["show", "--trial", "1" + "0" * 30], ["'--trial'", "0<=x<=2147483647"]),
        (["generate", ".", "--seed", "-1"], ["'--seed'", "0<=x<="]),
        (["generate", ".", "--seed", str(2**64)], ["'--seed'", "0<=x<="]),
        (["generate", ".", "--tokens", "1" + "0" * 12], ["'--tokens'", "1<=x<=16777216"]),
        (["generate", "x" * 5_000], ["a model directory holds config.json"]),
        (["launch", "x/" * 3_000], ["File name too long", "give the path of a YAML file"]),
        (["space", "."], ["cannot read .: Is a directory"]),
        (["cost", "dense", "--d-model", "10"], ["d_model must be a multiple of", "8"]),
        (["cost", "dense", "--d-model", "0"], ["'--d-model'", "1<=x<=65536"]),
        (["presets", "--d-model", "7"], ["d_model must be even", "7"]),
        (["generate", "."], ["a model directory holds config.json", "nas export"]),
        (["launch", "none.yaml"], ["cannot read none.yaml", "No such file", "give the path"]),
        (["list"], ["no studies at nas.db yet", "nas launch STUDY.yaml"]),
        (["status", "--db", "mysql://x/y"], ["must be SQLite or PostgreSQL", "sqlite:///FILE"]),
        (["list", "--db", "nas.db"], ["a database URL has the form", "sqlite:///FILE"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line(nas, folder, arguments, said):
    error = the_error(nas(*arguments))
    for text in said:
        assert text in error
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"bugdet": {}}, ["unknown key 'bugdet'", "did you mean 'budget'?"]),
        ({"backbone": {"dmodel": 16}}, ["backbone: unknown key 'dmodel'", "'d_model'"]),
        ({"warm_start": ["swich"]}, ["no preset is named 'swich'", "did you mean 'switch'?"]),
        (
            {"warm_start": [{"d_ff": 100, "expert_width": 33}]},
            ["warm_start: expert_width must divide d_ff/depth", "33 does not", "nearest: 25, 50"],
        ),
        (
            {"budget": {"trials": 2, "trial_flops": 10}},
            ["budget.trial_flops 10 is below one training step", "raise trial_flops"],
        ),
        ({"budget": {"trials": 0, "trial_flops": 1e9}}, ["budget.trials", "at least 1", "got 0"]),
        ({"workers": {"device": "cuda"}}, ["workers.device: cuda needs gpus_per_trial above 0"]),
        ({"objectives": ["active_flops"]}, ["the first must be bits_per_byte"]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_study_file(nas, folder, changes, said):
    error = the_error(nas("launch", write_study(**changes)))
    assert error.startswith("study.yaml: ")
    for text in said:
        assert text in error
    assert [path.name for path in folder.iterdir()] == ["study.yaml"]


def test_a_file_that_is_no_yaml(nas, folder):
    Path("study.yaml").write_text("name: [first\nbudget: {\n")
    assert "study.yaml:2 is not valid YAML" in the_error(nas("launch", "study.yaml"))
    Path("study.yaml").write_text("")
    assert "study.yaml is empty: write a mapping" in the_error(nas("launch", "study.yaml"))
    assert [path.name for path in folder.iterdir()] == ["study.yaml"]


LONG_SEQUENCES = {
    "backbone": BACKBONE | {"seq_len": 16_384},
    "eval_tokens": 16_384,
    "budget": {"trials": 2, "trial_flops": 1e12},
}


@pytest.mark.parametrize(
    ("source", "text", "changes", "said"),
    [
        ("corpus.txt", "", {}, ["source 'corpus.txt' holds no text", "give another source"]),
        ("none.txt", TEXT, {}, ["no file matches source 'none.txt'", "path, folder, glob or URL"]),
        ("corpus.txt", "x = 1\n", {}, ["fits the validation split", "give more text"]),
        ("corpus.txt", TEXT, LONG_SEQUENCES, ["one sequence needs 16385", "a smaller seq_len"]),
    ],
    ids=["empty", "missing", "tiny", "shorter than a sequence"],
)
def test_a_wrong_corpus(nas, in_process, source, text, changes, said):
    in_process(train_here)
    write_corpus(text)
    done = nas("launch", write_study(corpus={"source": source}, **changes))
    assert done.code == 2
    assert done.out == ""
    *preparing, error = done.err.splitlines()
    assert preparing == ["starting workers", f"preparing the corpus: {source}"]
    assert error.startswith("Error: corpus: ")
    for part in said:
        assert part in error
    assert not list(Path().glob("nas.db*"))
    assert not Path("nas-runs").exists()


@pytest.mark.parametrize("option", [["--temperature", "nan"], ["--temperature", "1e-9"]])
def test_a_temperature_that_gives_no_probabilities(nas, folder, option):
    Path("config.json").write_text("{}")
    error = the_error(nas("generate", ".", *option))
    assert "a temperature is 0, for the likeliest token, or from 0.01 to 100" in error


def test_a_host_that_is_none(nas, filled):
    error = the_error(nas("dashboard", "--host", "a" * 100))
    assert "--host is a name or an address: got 'aaa" in error


@pytest.mark.parametrize("name", ["\udcff", "x" * 5_000, "a b", ""])
def test_a_name_that_no_study_can_have(nas, filled, folder, name):
    before = {path.name for path in folder.iterdir()}
    assert "no study named '" in the_error(nas("status", name))
    assert {path.name for path in folder.iterdir()} == before


def test_an_unknown_study_or_trial(nas, filled):
    for command in ("status", "pareto", "show"):
        assert "did you mean 'first'?" in the_error(nas(command, "frist"))
    assert "no trial 7 in this study; it has 0 to 2" in the_error(nas("show", "--trial", 7))
    error = the_error(nas("export", "--trial", 1, "--to", "model"))
    assert "only a finished trial with a checkpoint can be exported: trial 1" in error
    assert not Path("model").exists()


@pytest.mark.parametrize("command", ["list", "launch study.yaml", "dashboard"])
def test_a_database_that_cannot_be_used(nas, folder, command):
    write_study()
    missing = nas(*command.split(), "--db", "sqlite:///none/nas.db")
    assert "the database's folder must exist: none does not" in the_error(missing)
    Path("notes.txt").write_text("these are notes, not a database " * 99)
    other = nas(*command.split(), "--db", "sqlite:///notes.txt")
    assert "notes.txt is not an SQLite database; choose another file" in the_error(other)
    assert {path.name for path in folder.iterdir()} == {"study.yaml", "notes.txt"}


def test_a_dashboard_port_in_use(nas, filled):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        error = the_error(nas("dashboard", "--port", port))
    assert f"port must be free: 127.0.0.1:{port} is not" in error
    assert "choose another with --port" in error


def test_an_export_into_a_folder_that_holds_files(nas, filled):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("keep me")
    assert "mine holds files; choose another --to" in the_error(nas("export", "--to", "mine"))
    assert [path.name for path in Path("mine").iterdir()] == ["notes.txt"]


def test_a_defect_is_one_line_and_debug_shows_where(nas, filled, monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("nas.tables.study_row", broken)
    assert the_error(nas("list"), code=1) == "ZeroDivisionError: oh (nas --debug shows where)"
    with pytest.raises(ZeroDivisionError):
        run(["--debug", "list"])


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
    assert err.splitlines()[-1] == "Error: stopped; what was running is recorded as stopped"
    assert "Traceback" not in err

    status = json.loads(nas("status", "--json").out)
    assert status["state"] == "stopped" and status["running"] == 0
    every = json.loads(nas("pareto", "--all", "--json").out)
    assert "stopped" in {row["status"] for row in every}
    assert nas("pareto").code == 0
