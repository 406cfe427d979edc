"""Prepared corpora: exact bytes, the order of the data, the cache."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from patience import WAIT_S
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from search_space.corpus import CorpusSpec
from search_space.errors import InputError, WorkFailed
from workers.corpus import Corpus, build, prepare
from workers.corpus.given import END_OF_TEXT
from workers.corpus.split import SPLITS
from workers.corpus.stream import SHUFFLED
from workers.corpus.tokenizer import train_bpe

pytestmark = pytest.mark.slow

VOCAB = 300


def make_text(seed: int = 0, lines: int = 4000) -> str:
    rng = random.Random(seed)
    words = ["alpha", "Beta", "gamma's", "délta", "数学", "  x = 1", END_OF_TEXT, "\t", "🙂"]
    return "".join(" ".join(rng.choices(words, k=rng.randint(0, 9))) + "\n" for _ in range(lines))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_text(make_text(0))
    (folder / "b.txt").write_text(make_text(1))
    return folder


@pytest.fixture(scope="module")
def corpus(folder, tmp_path_factory) -> Corpus:
    return prepare(CorpusSpec(source=str(folder)), VOCAB, 32, tmp_path_factory.mktemp("cache"))


def test_token_bytes_are_exact_in_every_split(corpus, folder):
    assert corpus.meta["lossless"] is True and corpus.token_bytes.shape == (VOCAB,)
    for split in SPLITS:
        ids, text = np.asarray(corpus.tokens(split)), corpus.text(split)
        assert corpus.token_bytes[ids].sum() == len(text) == corpus.meta["bytes"][split]
        assert corpus.byte_weights(split)[ids].sum() == len(text)
        assert len(ids) == corpus.meta["tokens"][split]
        assert (ids == corpus.meta["eos_id"]).sum() == corpus.meta["documents"][split]
    total = sum(p.stat().st_size for p in folder.iterdir())
    assert sum(corpus.meta["bytes"].values()) == total


def test_tokens_decode_to_the_text(corpus):
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    ids = [int(i) for i in corpus.tokens("validation")]
    assert tokenizer.decode(ids, skip_special_tokens=True).encode() == corpus.text("validation")
    assert corpus.tokens("validation").dtype == np.uint16
    assert ids[-1] == tokenizer.token_to_id(END_OF_TEXT) == corpus.meta["eos_id"]


def test_each_token_has_the_bytes_it_decodes_to(corpus):
    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    ascii_tokens = 0
    for index in range(tokenizer.get_vocab_size()):
        text = tokenizer.decode([index])
        if text.isascii():  # a token that is part of a character decodes to U+FFFD
            ascii_tokens += 1
            assert corpus.token_bytes[index] == len(text)
    assert ascii_tokens > 100


def test_token_counts_are_of_the_train_split(corpus):
    expected = np.zeros(VOCAB, dtype=np.int64)
    for index in corpus.tokens("train"):
        expected[index] += 1
    assert (corpus.token_counts == expected).all()


def test_training_a_tokenizer_is_deterministic():
    texts = [make_text(s, lines=300) for s in range(3)]
    assert train_bpe(texts, VOCAB).to_str() == train_bpe(texts, VOCAB).to_str()


def test_batches_are_a_function_of_seed_and_step(corpus):
    one, again = corpus.batch(5, 3, 4, 32), Corpus.open(corpus.dir).batch(5, 3, 4, 32)
    assert all((a == b).all() for a, b in zip(one, again, strict=True))
    assert one[0].shape == one[1].shape == (4, 32) and one[0].dtype == np.int64
    assert (one[0][:, 1:] == one[1][:, :-1]).all()
    assert (one[0] != corpus.batch(5, 4, 4, 32)[0]).any()
    assert (one[0] != corpus.batch(6, 3, 4, 32)[0]).any()


def positions(corpus: Corpus, steps: range, seed: int, batch: int, seq_len: int) -> list[int]:
    """Where in the train split each window starts, found by putting positions for tokens."""
    size = len(corpus.tokens("train"))
    probe = Corpus.open(corpus.dir)
    probe._tokens["train"] = np.arange(size)  # type: ignore[assignment]
    inputs = [probe.batch(step, seed, batch, seq_len)[0][:, 0] for step in steps]
    return [int(start) for start in np.concatenate(inputs)]


def test_an_epoch_visits_every_window_once(corpus):
    seq_len = 32
    n_windows = (len(corpus.tokens("train")) - 1) // seq_len - 1
    starts = positions(corpus, range(2 * n_windows), 7, 1, seq_len)
    first, second = starts[:n_windows], starts[n_windows:]
    for epoch in (first, second):
        assert len(set(epoch)) == n_windows
        assert {s % seq_len for s in epoch} == {min(epoch)}
        assert max(epoch) - min(epoch) == (n_windows - 1) * seq_len
        assert epoch != sorted(epoch)
    assert first != second
    assert {s % seq_len for s in first} != {s % seq_len for s in second}


def test_seeds_read_the_same_text_in_their_own_order(corpus):
    steps = range(2 * SHUFFLED)
    one, other = (positions(corpus, steps, seed, 1, 16) for seed in (0, 1))
    for block in (slice(0, SHUFFLED), slice(SHUFFLED, None)):
        assert one[block] != other[block]
        assert sorted(one[block]) == sorted(other[block])
    assert set(one[:SHUFFLED]) != set(one[SHUFFLED:])


def test_a_batch_is_a_run_of_the_same_order(corpus):
    assert positions(corpus, range(12), 1, 1, 32) == positions(corpus, range(3), 1, 4, 32)


def test_a_split_of_one_sequence_is_enough(corpus):
    size = len(corpus.tokens("train"))
    inputs, targets = corpus.batch(3, 0, 2, size - 1)
    assert (inputs[0] == corpus.tokens("train")[:-1]).all()
    assert (targets[1] == corpus.tokens("train")[1:]).all()
    with pytest.raises(InputError, match=f"one sequence needs {size + 1}"):
        corpus.batch(0, 0, 1, size)


@pytest.mark.parametrize(("n_tokens", "seq_len"), [(1, 16), (200, 16), (10**9, 16), (640, 64)])
def test_validation_windows_are_fixed_and_spread(corpus, n_tokens, seq_len):
    tokens = np.asarray(corpus.tokens("validation"), dtype=np.int64)
    inputs, targets = corpus.validation_windows(n_tokens, seq_len)
    most = (len(tokens) - 1) // seq_len
    assert inputs.shape == targets.shape == (max(1, min(n_tokens // seq_len, most)), seq_len)
    corpus._tokens["validation"], real = np.arange(len(tokens)), corpus._tokens["validation"]
    try:
        starts = corpus.validation_windows(n_tokens, seq_len)[0][:, 0]
    finally:
        corpus._tokens["validation"] = real
    assert all(
        (tokens[s : s + seq_len] == row).all() for s, row in zip(starts, inputs, strict=True)
    )
    assert all(
        (tokens[s + 1 : s + 1 + seq_len] == r).all() for s, r in zip(starts, targets, strict=True)
    )
    gaps = np.diff(starts)
    if len(gaps):
        assert gaps.min() >= seq_len and gaps.max() - gaps.min() <= 1
        assert starts[0] == 0 and starts[-1] + seq_len + 1 == len(tokens)


def test_the_second_prepare_finds_the_first(folder, corpus, monkeypatch):
    monkeypatch.delattr(build, "_build")
    again = prepare(CorpusSpec(source=str(folder)), VOCAB, 32, corpus.dir.parent)
    assert again.dir == corpus.dir
    assert {p.name for p in corpus.dir.parent.iterdir()} <= {corpus.dir.name, "datasets"}


def test_the_hash_follows_everything_that_decides_the_corpus(folder, tmp_path):
    spec = CorpusSpec(source=str(folder))
    (tmp_path / "moved").mkdir()
    for name in "ab":
        (tmp_path / f"moved/{name}.txt").write_bytes((folder / f"{name}.txt").read_bytes())

    def name(vocab_size: int = VOCAB, **change) -> str:
        given = CorpusSpec.from_dict(spec.to_dict() | change)
        return build._plan(given, vocab_size, tuple(build.list_files(given)), tmp_path).hash

    same = {name(), name(source=str(tmp_path / "moved")), name(validation=0.05)}
    assert len(same) == 1
    others = [name(301), name(validation=0.06), name(test=0.06), name(max_bytes=1000)]
    (tmp_path / "moved/a.txt").write_text("changed")
    others.append(name(source=str(tmp_path / "moved")))
    assert len(same | set(others)) == 6


def test_the_standard_library_is_cached(tmp_path):
    spec = CorpusSpec(max_bytes=600_000)
    first = prepare(spec, 512, 128, tmp_path)
    assert sum(first.meta["bytes"].values()) <= 600_000
    start = time.process_time()
    assert prepare(spec, 512, 128, tmp_path).dir == first.dir
    assert time.process_time() - start < 1.0


def test_the_later_of_two_writers_takes_the_first_ones(folder, tmp_path, monkeypatch):
    spec, real, first = CorpusSpec(source=str(folder)), build._write, []

    def slow_write(*arguments):
        real(*arguments)
        if not first:
            first.append(None)
            first[0] = prepare(spec, VOCAB, 32, tmp_path)  # overtakes before the rename

    monkeypatch.setattr(build, "_write", slow_write)
    late = prepare(spec, VOCAB, 32, tmp_path)
    assert late.dir == first[0].dir
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_processes_prepare_one_corpus_at_once(folder, tmp_path):
    code = (
        "import sys\n"
        "from search_space.corpus import CorpusSpec\n"
        "from workers.corpus import prepare\n"
        f"print(prepare(CorpusSpec(source=sys.argv[1]), {VOCAB}, 32, sys.argv[2]).dir)"
    )
    command = [sys.executable, "-c", code, str(folder), str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=WAIT_S)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert len(printed) == 1
    Corpus.open(printed.pop().strip()).require_sequences(32)


def test_a_failed_preparation_leaves_nothing(tmp_path, folder, monkeypatch):
    def fail(*args):
        raise InputError("no more disk")

    monkeypatch.setattr(build, "train_bpe", fail)
    with pytest.raises(InputError, match="no more disk"):
        prepare(CorpusSpec(source=str(folder)), VOCAB, 32, tmp_path / "cache")
    assert {p.name for p in (tmp_path / "cache").iterdir()} <= {"datasets"}


def lossy_tokenizer(texts: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.NFKD()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["[UNK]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def test_a_tokenizer_that_loses_text_is_scaled_to_the_true_bytes(folder, tmp_path):
    texts = [p.read_text() for p in folder.iterdir()]
    lossy_tokenizer(texts).save(str(tmp_path / "tokenizer.json"))
    spec = CorpusSpec(source=str(folder), tokenizer=str(tmp_path))
    corpus = prepare(spec, 256, 32, tmp_path / "cache")
    assert corpus.meta["lossless"] is False
    assert corpus.meta["eos_id"] == 1 and corpus.token_bytes[1] == 0
    for split in SPLITS:
        true = len(corpus.text(split))
        ids = corpus.tokens(split)
        assert corpus.token_bytes[ids].sum() != true
        assert corpus.byte_weights(split)[ids].sum() == pytest.approx(true)


def test_a_given_byte_level_tokenizer_keeps_its_own_end_of_text(folder, tmp_path):
    trained = train_bpe([p.read_text() for p in folder.iterdir()], VOCAB)
    trained.enable_truncation(10)
    trained.add_special_tokens(["<stop>"])
    trained.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<stop>"}))
    spec = CorpusSpec(source=str(folder), tokenizer=str(tmp_path))
    corpus = prepare(spec, 70_000, 32, tmp_path / "cache")
    assert corpus.meta["lossless"] is True
    assert corpus.meta["eos_id"] == trained.token_to_id("<stop>")
    assert corpus.tokens("test").dtype == np.uint32 and corpus.token_bytes.shape == (70_000,)
    with pytest.raises(InputError, match=r"301 tokens, more than the backbone's vocab_size 300"):
        prepare(spec, 300, 32, tmp_path / "cache")


@pytest.mark.parametrize(
    ("change", "vocab_size", "seq_len", "rule"),
    [
        ({}, 256, 32, "needs vocab_size of at least 257 .*: got 256"),
        ({}, VOCAB, 10**6, r"train split has \d+ tokens, one sequence needs 1000001: give more"),
        ({"test": 1e-6}, VOCAB, 32, "fits the test split: give more text or a larger test share"),
        ({"test": 0.01}, VOCAB, 2000, "test split has .* larger test share or a smaller seq_len"),
        ({"tokenizer": "./gone.json"}, VOCAB, 32, "tokenizer './gone.json' does not exist"),
    ],
)
def test_refuses(folder, tmp_path, change, vocab_size, seq_len, rule):
    spec = CorpusSpec(source=str(folder), **change)
    with pytest.raises(InputError, match=rule) as caught:
        prepare(spec, vocab_size, seq_len, tmp_path)
    assert "\n" not in str(caught.value)


def test_refuses_bad_folders(folder, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(InputError, match="holds no text"):
        prepare(CorpusSpec(source=str(tmp_path)), VOCAB, 32, tmp_path / "cache")
    with pytest.raises(InputError, match=r"holds no tokenizer\.json"):
        prepare(CorpusSpec(source=str(folder), tokenizer=str(tmp_path)), VOCAB, 32, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is not a tokenizer of the tokenizers library"):
        prepare(CorpusSpec(source=str(folder), tokenizer=str(tmp_path)), VOCAB, 32, tmp_path)
    with pytest.raises(WorkFailed, match=r"cache .*a.txt' cannot be written: .* FFN_NAS_CACHE"):
        prepare(CorpusSpec(source=str(folder)), VOCAB, 32, folder / "a.txt")
    with pytest.raises(InputError, match="holds no prepared corpus"):
        Corpus.open(tmp_path)


def test_unknown_splits_are_refused(corpus):
    with pytest.raises(InputError, match="unknown split 'dev'; known: train, validation, test"):
        corpus.tokens("dev")
