"""Byte n-grams against a slow dictionary form of the same equation."""

import math
import os
import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus import prepare
from workers.corpus.seal import write_sealed
from workers.ngram import corpus_ngrams, ngram_bits_per_byte


def slow_bits_per_byte(train: bytes, heldout: bytes, order: int) -> float:
    followers: dict[bytes, Counter] = defaultdict(Counter)
    for n in range(1, order + 1):
        for end in range(n - 1, len(train)):
            followers[train[end - n + 1 : end]][train[end]] += 1

    def probability(history: bytes, byte: int) -> float:
        lower = probability(history[1:], byte) if history else 1 / 256
        seen = followers.get(history)
        if seen is None:
            return lower
        return (seen[byte] + len(seen) * lower) / (sum(seen.values()) + len(seen))

    costs = []
    for i, byte in enumerate(heldout):
        history = heldout[max(0, i - order + 1) : i]
        costs.append(-math.log2(probability(history, byte)))
    return math.fsum(costs) / len(costs)


def texts(seed: int) -> tuple[bytes, bytes]:
    rng = random.Random(seed)
    alphabet = bytes([0, 255, *b"abc "])
    return bytes(rng.choices(alphabet, k=900)), bytes(rng.choices(alphabet + b"z", k=300))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 7])
def test_matches_the_dictionary_form(seed, order):
    train, heldout = texts(seed)
    fast = ngram_bits_per_byte(train, heldout, orders=(order,))
    assert fast == {order: pytest.approx(slow_bits_per_byte(train, heldout, order), abs=1e-12)}


def test_orders_share_one_pass_without_changing_each_other():
    train, heldout = texts(2)
    together = ngram_bits_per_byte(train, heldout, orders=(5, 3))
    alone = {n: ngram_bits_per_byte(train, heldout, orders=(n,))[n] for n in (5, 3)}
    assert together == alone


@pytest.mark.parametrize(("train", "heldout"), [(b"", b"abc"), (b"ab", b"c"), (b"abcabc", b"a")])
def test_short_texts(train, heldout):
    for n, bits in ngram_bits_per_byte(train, heldout).items():
        assert bits == pytest.approx(slow_bits_per_byte(train, heldout, n), abs=1e-12)
    if not train:
        assert set(ngram_bits_per_byte(train, heldout).values()) == {8.0}


def test_refuses_empty_text_and_orders_that_do_not_pack():
    with pytest.raises(InputError, match="held-out text is empty"):
        ngram_bits_per_byte(b"abc", b"")
    for order in (0, 8):
        with pytest.raises(InputError, match=f"1 to 7: got {order}"):
            ngram_bits_per_byte(b"abc", b"abc", orders=(order,))


def test_corpus_ngrams_are_of_its_splits_and_kept(tmp_path):
    words = random.Random(0).choices(["alpha", "beta", "gamma", "delta\n"], k=20_000)
    (tmp_path / "a.txt").write_text(" ".join(words))
    corpus = prepare(CorpusSpec(source=str(tmp_path / "a.txt")), 300, 32, tmp_path / "cache")
    bits = corpus_ngrams(corpus)
    assert bits == ngram_bits_per_byte(corpus.text("train"), corpus.text("validation"))
    kept = corpus.dir / "ngrams.json"
    write_sealed(kept, {"3": 1.5})
    assert corpus_ngrams(corpus) == {3: 1.5}
    for damaged in ('{"3": 1.5}', "{", ""):
        kept.write_text(damaged)
        assert corpus_ngrams(corpus) == bits
    assert [p.name for p in corpus.dir.glob(".*")] == []


def test_prose_is_easier_with_longer_contexts(tmp_path):
    folder = os.environ.get("FFN_NAS_PROSE", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("FFN_NAS_PROSE does not name a folder of prose")
    corpus = prepare(CorpusSpec(source=folder, max_bytes=2_000_000), 512, 128, tmp_path)
    bits = corpus_ngrams(corpus)
    assert 3.2 > bits[3] > bits[4] > bits[5] > 1.7
