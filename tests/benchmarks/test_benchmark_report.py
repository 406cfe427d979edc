"""The benchmarks' common report: rows, bars, JSON and the exit code."""

from __future__ import annotations

import json

import pytest

from benchmarks.report import Row, at_least, at_most, commit, main, publish
from search_space.errors import InputError


def test_a_failed_bar_is_written_and_ends_with_1(tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert publish([at_most("spills", 3, 0, "bytes"), Row("speed", 1.5, "GFLOP/s")], file) == 1
    record = json.loads(file.read_text())
    assert record["rows"][0] == {
        "name": "spills",
        "value": 3,
        "unit": "bytes",
        "bar": "<= 0",
        "holds": False,
    }
    assert record["machine"]["cores"] >= 1
    assert record["commit"] == commit()
    assert "NO" in capsys.readouterr().out


def test_bars_that_hold_end_with_0():
    assert publish([at_least("speed", 2.0, 2.0), at_most("time", 1.0, 1.0), Row("note", "x")]) == 0


@pytest.mark.parametrize(("value", "code"), [(1.0, 0), (3.0, 1)])
def test_a_benchmark_without_options_is_one_call(value, code, monkeypatch, tmp_path):
    file = tmp_path / "rows.json"
    monkeypatch.setattr("sys.argv", ["benchmark", "--json", str(file)])
    with pytest.raises(SystemExit) as ended:
        main(lambda: [at_most("time", value, 2.0)], "A benchmark.")
    assert ended.value.code == code
    assert json.loads(file.read_text())["rows"][0]["value"] == value


def test_what_cannot_be_measured_is_one_line_and_code_2(capsys, tmp_path):
    def rows():
        yield Row("a", 1.0)
        raise InputError("folder: of another study; give another folder")

    assert publish(rows(), tmp_path / "rows.json") == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "folder: of another study; give another folder\n")
    assert not (tmp_path / "rows.json").exists()
