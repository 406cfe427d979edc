"""The display of a long study: what it says of an update, and what an update costs."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from rich.console import Console

from nas.command import progress as module
from nas.command.progress import StudyDisplay
from nas.config import StudyConfig
from nas.running.turn import Running, Turn
from nas.search.decisions import Counts
from nas.store import CorpusFacts, EvaluationRecord, Facts, TrialRecord
from search_space.contract import Progress, Status
from search_space.spec import FFNSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONFIG = StudyConfig.from_dict(
    {
        "backbone": {"d_model": 64, "n_layers": 2, "n_heads": 4},
        "budget": {"trials": 40, "trial_flops": 9e12, "flops": 1e14, "rungs": 3},
    }
)
FACTS = Facts(
    corpus=CorpusFacts(source="[b]books", tokens={"train": 5}), ngram_bits_per_byte={"3": 2.5}
)
STUDY = SimpleNamespace(
    name="s",
    facts=FACTS,
    seed=0,
    budget_flops=1e14,
    objectives=["bits_per_byte", "active_flops"],
)


def trial(number: int, status=Status.PAUSED, bits=2.5, rung=0, seeds=1) -> TrialRecord:
    return TrialRecord(
        id=100 + number,
        study_id=1,
        number=number,
        spec=FFNSpec(d_ff=8 * (number + 1)),
        key=str(number),
        params={},
        source="x",
        cost={"active_flops": 1e6 + number},
        status=status,
        rung=rung,
        seeds=seeds,
        bits_per_byte=bits,
        created_at=NOW,
    )


def evaluation(number: int, status=Status.FINISHED, bits=2.5, rung=0, seed=0) -> EvaluationRecord:
    return EvaluationRecord(
        id=1000 + 10 * number + rung,
        trial_id=100 + number,
        trial=number,
        seed=seed,
        rung=rung,
        attempt=1,
        losses=0,
        owner="",
        status=status,
        until_flops=1e12 * 3**rung,
        start_flops=0.7e12 * 3 ** (rung - 1) if rung else 0.0,
        reserved=0.0,
        flops=0.0,
        trunk_flops=0.0,
        bits_per_byte=bits if status is Status.FINISHED else None,
        bits_per_byte_se=None,
        active_flops=None,
        seconds=7.0,
        error="" if status is Status.FINISHED else "it [/b] broke",
        created_at=NOW,
        ended_at=NOW,
    )


def turn(trials, running=(), ended=(), begun=None, charged=0.0) -> Turn:
    counts = Counts(
        trials=len(trials) if begun is None else begun,
        running=(0, 0, 0),
        stopped=(0, 0, 0),
        ended=(0, 0, 0),
        repeats=0,
        committed=charged,
        charged=charged,
    )
    return Turn(trials, list(running), list(ended), counts, refused=0)


class Clock:
    """A clock that stands still until it is told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def show(clock):
    """show(terminal): a display that was told of the study, and what it prints to."""

    def make(terminal=False):
        out = io.StringIO()
        console = Console(file=out, width=200, force_terminal=terminal, highlight=False)
        display = StudyDisplay(console, clock)
        display.started(STUDY, CONFIG)
        return display, out

    return make


def lines(out: io.StringIO) -> list[str]:
    return out.getvalue().splitlines()[2:]


def test_what_is_tried_names_the_rungs(show):
    _, out = show()
    first = out.getvalue().splitlines()[0]
    assert first == (
        "study s: 40 trials through 3 rungs of 1e+12, 3e+12, 9e+12 FLOPs on [b]books "
        "(5 training tokens)"
    )


def test_a_line_an_evaluation_that_ended(show):
    display, out = show()
    ended = [
        (trial(0), evaluation(0)),
        (trial(1, Status.DIVERGED, None, None), evaluation(1, Status.DIVERGED)),
        (trial(0, bits=2.4, rung=1), evaluation(0, bits=2.4, rung=1)),
        (trial(0, Status.FINISHED, 2.3, 2), evaluation(0, bits=2.3, rung=2)),
        (trial(0, Status.FINISHED, 2.31, 2, seeds=2), evaluation(0, bits=2.32, rung=2, seed=1)),
    ]
    display.update(turn([trial(0), trial(1, Status.DIVERGED, None, None)], ended=ended))
    label = trial(0).spec.label
    assert lines(out) == [
        f"[1/40] trial 0 {label}, rung 0 of 2: 2.5000 bits per byte, 7 s, paused",
        f"[2/40] trial 1 {trial(1).spec.label}, rung 0 of 2: diverged: it [/b] broke",
        f"[2/40] trial 0 {label}, rung 1 of 2: 2.4000 bits per byte, 7 s, "
        "promoted from rung 0, paused",
        f"[2/40] trial 0 {label}, rung 2 of 2: 2.3000 bits per byte, 7 s, promoted from rung 1",
        f"[2/40] trial 0 {label}, rung 2 of 2, seed 1: 2.3200 bits per byte, 7 s, "
        "mean of 2 seeds 2.3100",
    ]


def test_the_count_of_a_study_that_goes_on_begins_where_it_was(show):
    display, out = show()
    trials = [trial(n) for n in range(12)] + [trial(12, Status.RUNNING, None, None)]
    display.update(turn(trials, ended=[(trials[11], evaluation(11))]))
    stopped = evaluation(12, Status.STOPPED)
    display.update(turn(trials, ended=[(trials[12], stopped)]))
    display.update(turn(trials, ended=[(trials[12], evaluation(12))]))
    assert [line.split("]")[0] for line in lines(out)] == ["[12/40", "[12/40", "[13/40"]


class Counted(list):
    """Trials that count how often they were all looked at."""

    looks = 0

    def __iter__(self):
        self.looks += 1
        return super().__iter__()


def test_a_line_does_not_look_at_all_trials_again(show):
    display, out = show()
    trials = Counted(trial(n) for n in range(9))
    for n in range(9):
        display.update(turn(trials, ended=[(trials[n], evaluation(n))]))
    assert trials.looks == 1 and len(lines(out)) == 9


def drawings(display, monkeypatch) -> list[object]:
    drawn = []
    monkeypatch.setattr(display.live, "update", drawn.append)
    return drawn


def test_a_terminal_is_drawn_four_times_a_second_and_trials_seen_once(show, clock, monkeypatch):
    display, _ = show(terminal=True)
    drawn, trials = drawings(display, monkeypatch), Counted(trial(n) for n in range(9))
    for step in range(100):
        clock.now = 100.0 + step / 50  # two seconds
        display.update(turn(trials))
    assert len(drawn) == 8
    assert trials.looks == 2


def test_the_last_state_is_drawn_when_the_display_ends(show, clock, monkeypatch):
    display, _ = show(terminal=True)
    drawn = drawings(display, monkeypatch)
    with display:
        display.update(turn([trial(0)], begun=1))
        display.update(turn([trial(0), trial(1)], begun=2))
        assert len(drawn) == 1
    assert len(drawn) == 2
    assert display.bars.tasks[0].completed == 2


def test_a_look_that_takes_long_comes_seldom(show, clock, monkeypatch):
    display, _ = show(terminal=True)
    drawings(display, monkeypatch)
    monkeypatch.setattr(module, "frontier", lambda *a: setattr(clock, "now", clock.now + 1) or [])
    display.update(turn([trial(0)]))
    assert display.next_look == clock.now + 1 / module.LOOK_SHARE


def drawn_text(display, out) -> str:
    display.console.print(display.live.renderable)
    return out.getvalue()


def test_bars_and_what_runs(show, clock):
    display, out = show(terminal=True)
    trials = [trial(0, Status.FINISHED, 2.3, 2), trial(1), trial(2, Status.RUNNING, 2.4, 0)]
    point = Progress(evaluation=1021, step=3, steps=8, flops=2.7e12, loss=3.25, seconds=1.0)
    running = [
        Running(trials[2], evaluation(2, Status.RUNNING, rung=1), point),
        Running(trials[0], evaluation(0, Status.RUNNING, rung=2, seed=1), None),
    ]
    display.update(turn(trials, running, begun=3, charged=1.3e13))
    trial_bar, flop_bar = display.bars.tasks
    assert (trial_bar.completed, trial_bar.total) == (3, 40)
    text = "begun, 2 evaluations run, 1 paused, frontier 1, best 2.300 bits per byte"
    assert trial_bar.fields["text"] == text
    # 13 T are charged, and 2.7 - 0.7 T of the run that goes on.
    assert flop_bar.completed == 15
    assert flop_bar.fields["text"].startswith("1.50e+13 of 1.00e+14")
    shown = drawn_text(display, out)
    assert "rung 1 of 2" in shown and "step 3/8" in shown and "loss 3.250" in shown
    assert "rung 2 of 2, seed 1" in shown and "starting" in shown


def test_what_was_charged_before_an_evaluation_was_taken_up_counts_once(show):
    display, _ = show(terminal=True)
    again = replace(evaluation(2, Status.RUNNING), flops=4e11)
    point = Progress(evaluation=again.id, step=3, steps=8, flops=6e11, loss=3.0, seconds=1.0)
    waiting = replace(again, flops=8e11)
    trials = [trial(2, Status.RUNNING, None, None)]
    running = [Running(trials[0], again, point), Running(trials[0], waiting, point)]
    display.update(turn(trials, running, charged=1.2e12))
    assert display.bars.tasks[1].fields["text"].startswith("1.40e+12 of ")


def test_the_time_left_is_told_from_what_was_spent_here(show, clock):
    display, _ = show(terminal=True)
    display.update(turn([trial(0)], charged=5e13))
    assert "left" not in display.bars.tasks[1].fields["text"]
    clock.now += 600
    display.update(turn([trial(0)], charged=6e13))  # a tenth in ten minutes: four to go
    assert display.bars.tasks[1].fields["text"].endswith("about 40 min left")
