"""What is caught of a worker's logging: ours, few, short, without secrets; and what it says."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import replace

import pytest

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, EvalResult, LogLine, Progress, Recipe, Status
from search_space.cost import step_flops
from search_space.log_text import MOST, MOST_OF_TRACE
from search_space.spec import FFNSpec
from workers import evaluate as evaluation
from workers.actor import TrialActor
from workers.log_lines import MOST_ALIKE, MOST_LINES, OURS, Catcher, sent_lines
from workers.precision import chosen
from workers.training import keeping
from workers.training.graph import WARM_UP, GraphedStep
from workers.training.loop import Training
from workers.training.losses import Diverged

BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)
SPEC = FFNSpec(d_ff=32)
PRICE = step_flops(SPEC, BACKBONE, 2)
REQUEST = EvalRequest(
    evaluation=7, attempt=2, number=5, rung=1, seed=3, spec=SPEC, backbone=BACKBONE,
    recipe=Recipe(batch_size=2), corpus_dir="", until_flops=10 * PRICE, eval_tokens=256,
)  # fmt: skip
log = logging.getLogger("workers.somewhere")


def caught(work):
    """The lines of what `work()` logs."""
    lines = []
    with sent_lines(REQUEST, lines.append):
        work()
    return lines


def texts(lines):
    return [f"{line.level}: {line.text}" for line in lines]


def test_ours_are_caught_from_info_on_and_nobody_elses():
    def work():
        for name in OURS:
            logging.getLogger(f"{name}.part").info("%s says", name)
        log.debug("too small")
        log.warning("odd")
        log.error("wrong")
        logging.getLogger("urllib3").error("not ours")

    lines = caught(work)
    assert texts(lines) == [
        "info: search_space says", "info: workers says", "info: nas says",
        "warning: odd", "error: wrong",
    ]  # fmt: skip
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert {(line.evaluation, line.attempt) for line in lines} == {(7, 2)}
    assert all(line.at.utcoffset() is not None for line in lines)


def test_afterwards_everything_is_as_before():
    loggers = [logging.getLogger(name) for name in OURS]
    before = [(each.level, list(each.handlers)) for each in loggers], warnings.showwarning

    def fails():
        assert log.isEnabledFor(logging.INFO)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        caught(fails)
    assert ([(each.level, list(each.handlers)) for each in loggers], warnings.showwarning) == before


def test_python_warnings_are_lines_too_without_the_machines_paths(monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda *warning: shown.append(str(warning[0])))
    said = "see https://me:secret@host"
    (text,) = texts(caught(lambda: warnings.warn(said, UserWarning, stacklevel=1)))
    assert re.fullmatch(
        r"warning: test_log_lines\.py:\d+: UserWarning: see https://me:\*\*\*@host", text
    )
    assert shown == [said], "what becomes of a warning elsewhere is not changed"


def test_a_noisy_place_is_left_out_after_a_while_and_the_last_line_says_so():
    def work():
        for step in range(MOST_ALIKE + 30):
            log.warning("not kept at %d", step)
        log.info("the end is not lost")

    lines = texts(caught(work))
    assert len(lines) == MOST_ALIKE + 2
    assert lines[0] == "warning: not kept at 0"
    said = f"(said {MOST_ALIKE} times: further ones like it are left out)"
    assert lines[MOST_ALIKE - 1] == f"warning: not kept at {MOST_ALIKE - 1} {said}"
    assert lines[-2:] == [
        "info: the end is not lost", "info: 30 more lines were left out of this log",
    ]  # fmt: skip


def test_a_whole_log_has_an_end_too():
    def work():
        for place in range(3 * MOST_LINES):
            log.info("here", extra={"place": place})

    lines = caught(work)
    assert len(lines) == MOST_LINES and lines[-1].number == MOST_LINES
    assert lines[-1].text == f"{2 * MOST_LINES + 1} more lines were left out of this log"


def test_a_line_is_short_and_has_no_secret_and_an_exception_its_innermost_frames():
    def deep(left):
        if left:
            deep(left - 1)
        raise ValueError("no file at s3://me:secret@host")

    def work():
        log.info("at %s", "s3://me:secret@host/" + "x" * 5_000)
        try:
            deep(50)
        except ValueError:
            log.exception("trial %d failed", 5)

    first, second = caught(work)
    assert len(first.text) == MOST and first.text.startswith("at s3://me:***@host/xxx")
    said, trace = second.text.split("\n", 1)
    assert (second.level, said) == ("error", "trial 5 failed")
    assert trace.endswith("ValueError: no file at s3://me:***@host")
    assert len(trace) <= MOST_OF_TRACE and trace.count("deep(left - 1)") < 10
    assert "secret" not in first.text + second.text


def test_a_record_that_cannot_be_said_stops_nobody(monkeypatch, capsys):
    monkeypatch.setattr(logging, "raiseExceptions", True)
    lines = []
    catcher = Catcher(REQUEST, lines.append)
    for message in ("%d", "%s"):
        record = {"msg": message, "args": ("no number",), "levelno": logging.INFO}
        catcher.handle(logging.makeLogRecord(record))
    assert texts(lines) == ["info: no number"] and lines[0].number == 1
    assert "Arguments: ('no number',)" in capsys.readouterr().err


# What an evaluation says.


def evaluated(corpus, **changes):
    """The lines and the result of an evaluation as an actor does it, in their order."""
    items = [each for each in TrialActor().run(asked(corpus, **changes)) if each is not None]
    assert isinstance(items[-1], EvalResult), "the result comes last"
    assert isinstance(items[0], LogLine)
    assert {type(each) for each in items[1:-1]} <= {LogLine, Progress}
    return [each for each in items if isinstance(each, LogLine)], items[-1]


def asked(corpus, **changes):
    return replace(REQUEST, corpus_dir=str(corpus.dir), **changes)


def test_an_evaluation_says_how_it_is_done_and_what_it_came_to(small_corpus):
    lines, result = evaluated(small_corpus)
    assert result.status is Status.FINISHED and result.steps == 10
    assert {line.level for line in lines} == {"info"}
    said = [line.text for line in lines]
    assert (
        said[0] == f"trial 5 with seed 3: to rung 1 at {10 * PRICE:.4g} training FLOPs; attempt 2"
    )
    precision = chosen(REQUEST.recipe.precision, "cpu", 1)
    assert said[1] == f"trains in {precision}: {result.backend}"
    assert said[2] == "begun at step 0"
    left = f"{result.trunk_flops:.4g} FLOPs: its rates decay up to {10 * PRICE:.4g}"
    assert said[3] == f"the branch leaves the trunk at step 7, {left}"
    assert said[4].startswith("trained to step 10, 640 tokens, in ")
    assert said[5] == (
        f"measured on {len(result.windows)} windows: {result.bits_per_byte:.4f} bits per byte, "
        f"standard error {result.bits_per_byte_se:.4f}"
    )
    assert len(said) == 6


def test_a_promotion_and_a_lost_worker_say_where_they_go_on(small_corpus, tmp_path, monkeypatch):
    place = str(tmp_path / "states")
    _, low = evaluated(small_corpus, state_dir=place, keep_trunk=True)
    more = {"until_flops": 20 * PRICE, "start_flops": low.trunk_flops, "state_dir": place}
    said = " ".join(texts(evaluated(small_corpus, **more)[0]))
    assert f"info: begun at step 7, where the rung below left the trunk at {7 * PRICE:.4g}" in said

    monkeypatch.setattr(keeping, "STATE_SECONDS", 0.0)
    step = Training.step

    def dies(self):
        if self.steps == 10:
            raise SystemExit("killed")
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", dies)
        patch.setattr(evaluation, "discard_branch", lambda place: None)
        with pytest.raises(SystemExit):
            evaluated(small_corpus, **more)
    lines, _ = evaluated(small_corpus, **more)
    (again,) = [line for line in lines if "goes on" in line.text]
    assert again.level == "warning"
    assert again.text == (
        f"trial 5 goes on from step 10 at {10 * PRICE:.4g} FLOPs, by a state in {place}"
    )


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (Diverged("the loss is nan at step 3"), Status.DIVERGED, "warning: trial 5 diverged: the"),
        (MemoryError("all of it"), Status.OUT_OF_MEMORY, "warning: trial 5 ran out of memory: all"),
        (KeyError("x"), Status.FAILED, "error: trial 5 failed\nTraceback (most recent"),
    ],
)
def test_an_evaluation_that_does_not_finish_says_why(
    small_corpus, monkeypatch, error, status, line
):
    def fails(self):
        raise error

    monkeypatch.setattr(Training, "step", fails)
    lines, result = evaluated(small_corpus)
    assert result.status is status
    assert texts(lines)[-1].startswith(line)


def test_weights_that_cannot_be_written_are_in_the_log(small_corpus, tmp_path):
    (tmp_path / "runs").write_text("")
    lines, result = evaluated(small_corpus, checkpoint_dir=str(tmp_path / "runs" / "trial-5"))
    assert result.status is Status.FINISHED and result.checkpoint == ""
    assert texts(lines)[-1].startswith("error: trial 5: its checkpoint could not be written\n")


@pytest.mark.parametrize("captures", [True, False])
def test_a_step_that_is_or_is_not_a_graph_says_so_once(captures):
    import numpy as np

    def capture(work):
        if not captures:
            raise RuntimeError("the stream is waited for")
        return work

    turns = [0, 1]
    step = GraphedStep(
        body=lambda *places: None, turn=lambda: turns[step.steps % 2], passed=lambda: None,
        undo=lambda turn: None, capture=capture,
    )  # fmt: skip
    batch = np.zeros((2, 3), dtype=np.int64)

    def work():
        for _ in range(WARM_UP + 6):
            step(batch, batch, 1.0, "cpu")

    (line,) = texts(caught(work))
    assert line == (
        f"info: steps are launched as one CUDA graph, after {WARM_UP} as they are"
        if captures
        else "warning: steps run without a CUDA graph, slower: the stream is waited for"
    )
