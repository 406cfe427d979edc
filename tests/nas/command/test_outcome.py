"""What ended a command becomes an exit code and one line."""

from __future__ import annotations

import click
import pytest
from sqlalchemy.exc import OperationalError

from nas.command.cli import run
from nas.command.outcome import outcome
from search_space.errors import InputError, WorkFailed


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (InputError("give another"), 2, "give another"),
        (WorkFailed("it\nbroke"), 1, "it broke"),
        (KeyboardInterrupt(), 130, "stopped"),
        (KeyboardInterrupt("all is recorded"), 130, "stopped; all is recorded"),
        (OperationalError("SELECT 1", {}, OSError("disk\nfull")), 1, "the database failed: disk"),
        (ZeroDivisionError("oh"), 1, "ZeroDivisionError: oh (nas --debug shows where)"),
    ],
)
def test_the_line_and_the_code(capsys, error, code, said):
    assert outcome(error, debug=False) == code
    assert capsys.readouterr().err == f"Error: {said}\n"


def test_what_click_makes_of_an_interrupt_keeps_its_text(capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt("all is recorded")

    monkeypatch.setattr("nas.command.tables.preset_rows", interrupted)
    assert run(["presets"]) == 130
    assert capsys.readouterr().err.strip() == "Error: stopped; all is recorded"


def test_exit_codes_of_click_stay():
    assert outcome(SystemExit(3), debug=False) == 3
    assert outcome(SystemExit("text"), debug=False) == 1
    assert outcome(click.UsageError("no"), debug=False) == 2
