"""What was trained keeps its measurement when its weights cannot be written."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import pytest

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe, Status
from search_space.cost import step_flops
from search_space.spec import FFNSpec
from workers.evaluate import evaluate

BACKBONE = Backbone(d_model=16, n_layers=1, n_heads=2, vocab_size=300, seq_len=32)
SPEC = FFNSpec(d_ff=32)


def trained(corpus, checkpoint_dir):
    asked = EvalRequest(
        evaluation=7,
        spec=SPEC,
        backbone=BACKBONE,
        recipe=Recipe(batch_size=2),
        corpus_dir=str(corpus.dir),
        until_flops=step_flops(SPEC, BACKBONE, 2) * 3,
        eval_tokens=256,
        checkpoint_dir=str(checkpoint_dir),
    )
    return evaluate(asked, lambda progress: None)


@contextmanager
def no_file_above(count):
    """Writing beyond `count` bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def kept(result, *said):
    assert result.status is Status.FINISHED
    assert result.bits_per_byte > 0 and result.steps == 3
    assert (result.checkpoint, result.checkpoint_digest) == ("", "")
    lost = result.stats["checkpoint_error"]
    assert "\n" not in lost
    for text in said:
        assert text in lost


def test_a_full_disk(small_corpus, tmp_path):
    with no_file_above(10_000):  # the weights have 60 kB
        result = trained(small_corpus, tmp_path / "runs" / "trial-0")
    kept(result, str(tmp_path / "runs" / "trial-0"), "File too large")
    assert not [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]


@pytest.mark.parametrize("what", ["a file", "taken"])
def test_a_folder_that_is_none_any_more(small_corpus, tmp_path, what):
    if what == "a file":
        (tmp_path / "runs").write_text("")
        kept(trained(small_corpus, tmp_path / "runs" / "trial-0"), "File exists")
    else:
        (tmp_path / "runs" / "trial-0").mkdir(parents=True)
        kept(trained(small_corpus, tmp_path / "runs" / "trial-0"), "never overwritten")


def test_weights_that_were_written_have_no_such_word(small_corpus, tmp_path):
    result = trained(small_corpus, tmp_path / "runs" / "trial-0")
    assert result.checkpoint == "trial-0"
    assert "checkpoint_error" not in result.stats
