"""The facts of a study: what is stored is read, checked and kept, whoever wrote it."""

from __future__ import annotations

import json
import sqlite3

import pytest

from nas.store import BrokenRecord, CorpusFacts, Facts, Store

# As a launch of version 0001 stored them, shortened.
STORED = {
    "corpus": {
        "hash": "ef6a",
        "request": {"vocab_size": 300},
        "source": "corpus.txt",
        "vocab_size": 300,
        "tokens": {"train": 59576, "validation": 3154},
        "lossless": True,
        "eos_id": 0,
        "notes": ["1 file left out"],
    },
    "corpus_dir": "/cache/corpora/ef6a",
    "ngram_bits_per_byte": {"3": 1.34, "4": 1.22},
    "machine": "x86_64, 2 cores",
    "codes": ["abc"],
}


def test_what_is_stored_is_read_and_written_as_it_was():
    facts = Facts.from_dict(STORED)
    assert facts.corpus.hash == "ef6a" and facts.corpus.eos_id == 0 and facts.corpus.pad_id is None
    assert facts.corpus.tokens["train"] == 59576 and facts.corpus.notes == ("1 file left out",)
    assert facts.corpus.more == {"request": {"vocab_size": 300}, "lossless": True}
    assert facts.more == {"codes": ["abc"]} and facts.training is None and facts.runs == ""
    assert facts.best_ngram == ("4", 1.22)
    assert facts.to_dict() == STORED
    assert json.loads(json.dumps(facts.to_dict())) == STORED


def test_no_facts_are_no_facts():
    assert Facts().to_dict() == {} and Facts.from_dict({}) == Facts()
    assert Facts().best_ngram is None
    assert Facts(corpus=CorpusFacts()).to_dict() == {}
    assert Facts.from_dict({"corpus": {"pad_id": None}}) == Facts()  # as tokenizers without one had


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"corpus": [1]}, "its facts.corpus must be a mapping: got [1]"),
        ({"corpus": {"hash": 3}}, "its facts.corpus.hash must be text: got 3"),
        ({"corpus": {"eos_id": -1}}, "its facts.corpus.eos_id must be a whole number: got -1"),
        ({"corpus": {"eos_id": True}}, "its facts.corpus.eos_id must be a whole number: got True"),
        ({"corpus": {"tokens": {"train": 1.5}}}, "its facts.corpus.tokens.train must be a whole"),
        ({"corpus": {"notes": "a"}}, "its facts.corpus.notes must be a list: got 'a'"),
        ({"ngram_bits_per_byte": {"3": "x"}}, "its facts.ngram_bits_per_byte.3 must be a finite"),
        ({"ngram_bits_per_byte": 2.5}, "its facts.ngram_bits_per_byte must be a mapping: got 2.5"),
        ({"runs": 1}, "its facts.runs must be text: got 1"),
        ({"training": "2"}, "its facts.training must be a whole number: got '2'"),
    ],
)
def test_nonsense_is_one_line_that_names_the_study(tmp_path, change, said):
    with pytest.raises(ValueError, match="its "):
        Facts.from_dict(change)
    url = f"sqlite:///{tmp_path / 'nas.db'}"
    with Store.open(url) as store:
        store.create_study("one", {}, 0, 1e12, ["bits_per_byte"])
    with sqlite3.connect(tmp_path / "nas.db") as connection:
        connection.execute("UPDATE study SET facts = ?", (json.dumps(change),))
    connection.close()
    with Store.open(url, create=False) as store, pytest.raises(BrokenRecord) as caught:
        store.study("one")
    assert str(caught.value).startswith("study 'one' cannot be read: ") and said in str(
        caught.value
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_no_baseline_is_without_an_end(value):
    with pytest.raises(ValueError, match="must be a finite number"):
        Facts.from_dict({"ngram_bits_per_byte": {"3": value}})
