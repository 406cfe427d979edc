"""When the Hub does not answer: what was prepared before serves, and says so."""

import random

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from search_space.corpus import CorpusSpec
from workers.corpus import build, prepare
from workers.corpus.given import GivenTokenizer
from workers.corpus.hub import HubUnreachable

VOCAB = 300
WORDS = ["alpha", "Beta", "gamma's", "  x = 1", "\t"]


def make_text(seed: int, lines: int) -> str:
    rng = random.Random(seed)
    return "".join(" ".join(rng.choices(WORDS, k=rng.randint(0, 9))) + "\n" for _ in range(lines))


def tokenizer() -> str:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=["[UNK]", "[SEP]"], show_progress=False
    )
    made.train_from_iterator(WORDS, trainer)
    return made.to_str()


def test_a_corpus_prepared_before_serves_when_the_hub_is_silent(tmp_path, monkeypatch):
    spec = CorpusSpec(source="hub:owner/set")
    texts = [make_text(s, lines=60) for s in range(20)]
    monkeypatch.setattr(build, "resolve_commit", lambda *a: "c0ffee")
    monkeypatch.setattr(build, "read_documents", lambda *a: iter(texts))
    first = prepare(spec, VOCAB, 32, tmp_path)
    assert first.meta["commit"] == "c0ffee"

    def silent(*args):
        raise HubUnreachable("no answer")

    monkeypatch.setattr(build, "resolve_commit", silent)
    again = prepare(spec, VOCAB, 32, tmp_path)
    assert again.dir == first.dir
    said = "no answer; using the corpus prepared before"
    assert again.meta["notes"] == [said, *first.meta["notes"]]
    with pytest.raises(HubUnreachable, match="no answer"):
        prepare(spec, VOCAB + 1, 32, tmp_path)


def test_changed_files_are_not_served_from_before_when_the_hub_is_silent(tmp_path, monkeypatch):
    text, cache = tmp_path / "text.txt", tmp_path / "cache"
    text.write_text(make_text(1, lines=400))
    spec = CorpusSpec(source=str(text), tokenizer="owner/model")
    given = GivenTokenizer(tokenizer(), eos="[SEP]", bos="", pad="")
    monkeypatch.setattr(build, "read_tokenizer", lambda *a: given)
    first = prepare(spec, VOCAB, 8, cache)

    def silent(*args):
        raise HubUnreachable("no answer")

    monkeypatch.setattr(build, "read_tokenizer", silent)
    again = prepare(spec, VOCAB, 8, cache)
    assert again.dir == first.dir
    assert again.meta["notes"][0] == "no answer; using the corpus prepared before"
    text.write_text(make_text(2, lines=400))
    with pytest.raises(HubUnreachable, match="no answer"):
        prepare(spec, VOCAB, 8, cache)
