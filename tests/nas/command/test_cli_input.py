"""Bad input of the command `nas`: one line, exit code 2, nothing written."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from command_tools import (
    BACKBONE,
    TEXT,
    PreparingPool,
    the_error,
    train_here,
    write_corpus,
    write_study,
)

from nas.command.cli import run


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
        (
            {"workers": {"device": "cuda", "gpus_per_trial": 0}},
            ["workers.device: cuda needs gpus_per_trial above 0"],
        ),
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
    in_process(train_here, PreparingPool)
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
    for command in ("status", "runs", "pareto", "show", "resume", "stop"):
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

    monkeypatch.setattr("nas.command.study_tables.study_row", broken)
    assert the_error(nas("list"), code=1) == "ZeroDivisionError: oh (nas --debug shows where)"
    with pytest.raises(ZeroDivisionError):
        run(["--debug", "list"])
