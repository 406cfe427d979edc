"""What a launch says about its corpus before the trials begin."""

from __future__ import annotations

import io
from types import SimpleNamespace

from rich.console import Console

from nas.command.progress import StudyDisplay
from nas.config import StudyConfig
from nas.search.settings import Budget
from nas.store import Facts


def test_what_the_corpus_lost_is_printed_a_line_a_kind():
    notes = ["2 files left out: a dot begins the name ([a], b)", "1 line end " + "x" * 200]
    corpus = {"source": "x", "tokens": {"train": 5}, "notes": notes}
    facts = {"corpus": corpus, "ngram_bits_per_byte": {"3": 2.5}}
    out = io.StringIO()
    display = StudyDisplay(Console(file=out, width=60))
    config = StudyConfig(budget=Budget(trials=1, trial_flops=1e11))
    display.started(SimpleNamespace(name="s", facts=Facts.from_dict(facts)), config)
    lines = out.getvalue().splitlines()
    assert lines[1:3] == [f"corpus: {note}" for note in notes]
    del corpus["notes"]  # a study of an earlier version
    display.started(SimpleNamespace(name="s", facts=Facts.from_dict(facts)), config)
    assert len(out.getvalue().splitlines()) == len(lines) + 2
