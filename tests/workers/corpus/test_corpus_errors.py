"""Whatever goes wrong while a worker prepares a corpus arrives as one line of a known kind."""

import errno
import json
import logging
import random
import zlib

import pytest

from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed
from workers import actor
from workers.actor import prepare_corpus
from workers.corpus.account import KINDS, Account
from workers.corpus.reasons import reason

SPEC = CorpusSpec()


@pytest.mark.parametrize(
    ("error", "kind", "line"),
    [
        (InputError("corpus: give more text"), "input", "corpus: give more text"),
        (WorkFailed("the disk is full"), "failed", "the disk is full"),
        (MemoryError(), "failed", "too little memory to hold its text; lower corpus.max_bytes"),
        (OSError(errno.EIO, "Input/output error", "/x"), "failed", "failed: Input/output error;"),
        (KeyError("parts"), "failed", "preparing the corpus failed: 'parts'; try a part"),
        (zlib.error("Error -3\nwhile"), "failed", "failed: Error -3 while; try a part"),
        (RuntimeError(), "failed", "failed: it gives no reason; try a part"),
        (ValueError("http://me:hunter2@h/x"), "failed", "http://me:***@h/x"),
        (RuntimeError("OSError: [Errno 5] bad"), "failed", "failed: bad; try a part"),
    ],
)
def test_an_error_of_any_class_is_one_line(error, kind, line, monkeypatch, tmp_path, caplog):
    def fail(*args):
        raise error

    monkeypatch.setattr(actor, "prepare", fail)
    with caplog.at_level(logging.ERROR):
        answer = prepare_corpus(SPEC, 300, 32, str(tmp_path))
    assert answer["kind"] == kind and set(answer) == {"error", "kind"}
    assert line in answer["error"] and "\n" not in answer["error"]
    assert type(error).__name__ not in answer["error"]
    assert bool(caplog.records) == (kind == "failed")
    assert json.dumps(answer)


def test_a_cache_that_is_a_file_is_told(tmp_path):
    (tmp_path / "a.txt").write_text(" ".join(random.Random(0).choices("abcdef\n", k=9000)))
    spec = CorpusSpec(source=str(tmp_path / "a.txt"))
    answer = prepare_corpus(spec, 300, 16, str(tmp_path / "a.txt"))
    assert answer["kind"] == "failed" and "set FFN_NAS_CACHE" in answer["error"]
    whole = prepare_corpus(spec, 300, 16, str(tmp_path / "cache"))
    assert set(whole) == {"dir", "meta", "ngram_bits_per_byte"}


def test_every_kind_of_loss_has_its_sentence():
    account = Account()
    for number, kind in enumerate(KINDS, start=1):
        account.add(kind, number, name=f"{kind}.txt")
        account.add(kind, 0, name="never counted")
    assert account.dropped == {kind: number for number, kind in enumerate(KINDS, start=1)}
    for number, (kind, note) in enumerate(zip(KINDS, account.notes, strict=True), start=1):
        assert note.startswith(f"{number} ") and note.endswith(f"({kind}.txt)")


def test_many_and_odd_names_are_shortened():
    account = Account()
    for name in ("a", "b", "b", "new\nline", "d", "e"):
        account.add("hidden", name=name)
    (note,) = account.notes
    assert note == "6 files and folders left out: a dot begins the name (a, b, 'new\\nline', ...)"
    account = Account()
    account.add("hidden", name="x" * 1000)
    assert len(account.notes[0]) < 160


def test_reasons_are_words():
    assert reason(OSError(2, "No such file or directory", "/x")) == "No such file or directory"
    assert reason(ValueError("x " * 1000)).count("x") == 150
