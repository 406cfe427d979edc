"""A prepared corpus proves itself: whatever is wrong with one, it is made anew."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from patience import WAIT_S

from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed
from workers.corpus import Corpus, build, prepare, seal, sweep
from workers.corpus.seal import META, PARTS, measure, read_sealed, write_sealed

VOCAB, SEQ_LEN = 300, 16
LEFT = f".{'0' * 32}.01234567"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("seal") / "a.txt"
    words = random.Random(0).choices(["alpha", "beta", "gamma", "delta\n"], k=6000)
    path.write_text(" ".join(words))
    return path


@pytest.fixture
def corpus(source, tmp_path) -> Corpus:
    return prepare(CorpusSpec(source=str(source)), VOCAB, SEQ_LEN, tmp_path / "cache")


def again(source: Path, corpus: Corpus) -> tuple[Corpus, list[str]]:
    """The corpus, asked for once more, what was logged, and "made" where it was made anew."""
    spec = CorpusSpec(source=str(source))
    with (
        mock.patch.object(build.log, "warning") as warned,
        mock.patch.object(build, "_build", wraps=build._build) as made,
    ):
        found = prepare(spec, VOCAB, SEQ_LEN, corpus.dir.parent)
    said = [call.args[0] % call.args[1:] for call in warned.call_args_list]
    return found, said + ["made"] * made.call_count


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def retype(path: Path) -> None:
    """Another type of the same values: whatever reads it would read something else."""
    if path.suffix == ".bin":
        path.write_bytes(np.fromfile(path, dtype=np.uint16).astype(np.uint32).tobytes())
    else:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


DAMAGE = {
    "missing": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "extended": lambda path: path.write_bytes(path.read_bytes() + b"\0\0"),
    "flipped": flip,
    "retyped": retype,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_parts_are_made_anew(damage, source, corpus):
    right = {name: (corpus.dir / name).read_bytes() for name in PARTS}
    for name in (*PARTS, META):
        if not (damage == "retyped" and name == META):  # JSON with other line ends is the same
            DAMAGE[damage](corpus.dir / name)
            # Equal times must not hide it, as a restored backup has them.
            with pytest.raises(InputError, match=r"is damaged: |holds no prepared corpus") as error:
                Corpus.open(corpus.dir)
            assert repr(str(corpus.dir)) in str(error.value) and "\n" not in str(error.value)
            made, said = again(source, corpus)
            assert made.dir == corpus.dir
            assert "making it anew" in said[0] and name in said[0]
            assert {n: (made.dir / n).read_bytes() for n in PARTS} == right
    assert again(source, corpus)[1] == []
    assert [path.name for path in corpus.dir.parent.iterdir()] == [corpus.dir.name]


def test_a_file_or_another_corpus_in_its_place_is_replaced(source, corpus):
    folder = corpus.dir
    other = prepare(CorpusSpec(source=str(source), test=0.1), VOCAB, SEQ_LEN, folder.parent)
    os.rename(folder, folder.with_name("kept"))
    os.rename(other.dir, folder)
    assert "another corpus" in again(source, corpus)[1][0]
    assert again(source, corpus)[0].meta["hash"] == folder.name
    os.rename(folder, folder.with_name("kept2"))
    folder.write_text("no folder")
    assert "making it anew" in again(source, corpus)[1][0]
    assert again(source, corpus)[1] == []


def test_what_is_open_goes_on_while_it_is_replaced(source, corpus):
    tokens = np.array(corpus.tokens("train"))
    (corpus.dir / "train.txt").unlink()
    again(source, corpus)
    assert (corpus.tokens("train") == tokens).all()


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", '{"a": 1}', "[" * 10**5, '{"seal": "0"}', "\xff"]
)
def test_only_what_was_sealed_is_read(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")
    assert read_sealed(path) is None and read_sealed(tmp_path / "none.json") is None
    write_sealed(path, {"b": 0.1, "a": ["é", None]})
    assert read_sealed(path) == {"b": 0.1, "a": ["é", None]}
    path.write_text(path.read_text().replace("0.1", "0.2"))
    assert read_sealed(path) is None
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_part_is_read_once_until_its_file_changes(corpus, monkeypatch):
    Corpus.open(corpus.dir)
    monkeypatch.setattr(seal.hashlib, "file_digest", lambda *a: pytest.fail("was read again"))
    Corpus.open(corpus.dir)
    monkeypatch.undo()
    assert set(measure(corpus.dir)) == set(PARTS)


def test_dead_drafts_are_swept_and_living_ones_stay(source, tmp_path):
    cache = tmp_path / "cache"
    dead, living, young, old, foreign = (cache / f"{LEFT[:-1]}{i}" for i in range(5))
    for folder in (dead, living, young, old, foreign):
        (folder / "x").mkdir(parents=True)
    host = os.uname().nodename
    (dead / "writer.lock").write_text(host)
    (foreign / "writer.lock").write_text("another machine")
    os.utime(old, (0, 0))
    replaced = cache / f"{LEFT}.old"
    replaced.mkdir()
    (cache / ".keep").mkdir()
    (living / "writer.lock").write_text(host)
    with open(living / "writer.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert set(sweep(cache)) == {dead, old, replaced}
        assert set(cache.iterdir()) == {living, young, foreign, cache / ".keep"}
        os.utime(foreign, (0, 0))
        prepare(CorpusSpec(source=str(source)), VOCAB, SEQ_LEN, cache)
        assert not foreign.exists() and living.exists()
    assert sweep(cache) == [living]
    assert sweep(tmp_path / "none") == []


_SLOW = """
import sys, time
from search_space.corpus import CorpusSpec
from workers.corpus import build, prepare
def slow(*args):
    print("writing", flush=True)
    time.sleep(60)
build._write = slow
prepare(CorpusSpec(source=sys.argv[1]), 300, 16, sys.argv[2])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_preparation_leaves_nothing_for_long(source, tmp_path, number):
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", _SLOW, str(source), str(cache)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # A shell that runs the tests in the background has them ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout.readline() == "writing\n"
        assert sweep(cache) == [] and len(list(cache.glob(".*"))) == 1
        process.send_signal(number)
        process.wait(WAIT_S)
    left = list(cache.glob(".*"))
    assert len(left) == (1 if number == signal.SIGKILL else 0)
    assert sweep(cache) == left and list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_says_so(source, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(build, "train_bpe", full)
    with pytest.raises(WorkFailed, match="No space left on device; free some space, or set FFN_"):
        prepare(CorpusSpec(source=str(source)), VOCAB, SEQ_LEN, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(WorkFailed, match="set FFN_NAS_CACHE to a folder that can be"):
        prepare(CorpusSpec(source=str(source)), VOCAB, SEQ_LEN, source / "below a file")


def test_damage_elsewhere_in_the_cache_does_no_harm(source, corpus, monkeypatch):
    def silent(*args):
        raise build.HubUnreachable("no answer")

    bad = corpus.dir.parent / ("a" * 32)
    bad.mkdir()
    (bad / META).write_text("{")
    monkeypatch.setattr(build, "resolve_commit", silent)
    with pytest.raises(InputError, match="no answer"):
        prepare(CorpusSpec(source="hub:owner/set"), VOCAB, SEQ_LEN, corpus.dir.parent)


def test_a_large_corpus_opens_fast(tmp_path):
    # The bytes of a corpus of 200 MB: its text, and two bytes for each of its 60 million tokens.
    sizes = {"train.txt": 180, "validation.txt": 10, "test.txt": 10, "train.bin": 108}
    for name in PARTS:
        with open(tmp_path / name, "wb") as file:
            file.truncate(sizes.get(name, 1) << 20)
    write_sealed(tmp_path / META, {"parts": measure(tmp_path)})
    seal._known.clear()
    start = time.process_time()
    assert seal.fault(tmp_path) == ""
    first = time.process_time() - start
    assert seal.fault(tmp_path) == ""
    assert time.process_time() - start - first < 0.1
    assert first < 20  # 0.3 s where the processor has instructions for SHA-256


def test_meta_is_plain_json(corpus):
    assert json.loads(json.dumps(corpus.meta)) == corpus.meta
    assert corpus.meta["notes"] == [] and corpus.meta["dropped"] == {}
