"""Tokenizers that are trained, and those that users give."""

import hashlib
import json
import random
import re
import string
import time
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus import Corpus, prepare
from workers.corpus.given import GivenTokenizer, read_tokenizer
from workers.corpus.split import SPLITS
from workers.corpus.tokenizer import _RUN, _WORD, _sampled, train_bpe

VOCAB, SEQ_LEN = 300, 16
RARE = "zèbre"
WORDS = ["the", "cat", "sat's", "on", "été", "数学", "x1 ", "\n\n", "  ", "f(x)[0] += 1;", "🙂"]


def prose(seed: int = 0, words: int = 6000) -> str:
    return " ".join(random.Random(seed).choices(WORDS, k=words))


def gpt2_bpe(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<pad>", "</s>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def test_ordinary_text_is_tokenized_as_by_gpt2s_pattern():
    text = prose() + "\t\t" + "-" * _WORD + "\n" + "9" * _WORD + " " * _WORD + "x"
    ours, theirs = train_bpe([text], 500), gpt2_bpe([text], 503)
    assert set(theirs.get_vocab()) - set(ours.get_vocab()) == {"<pad>", "</s>", "<s>"}
    assert ours.encode(text).tokens == theirs.encode(text).tokens


@pytest.mark.parametrize(
    "signs",
    [string.ascii_letters, "ACGT", string.digits, "!?;:", " \n\t", "数"],
    ids=["letters", "dna", "digits", "signs", "spaces", "ideographs"],
)
def test_a_row_without_spaces_costs_what_other_text_costs(signs):
    row = "".join(random.Random(0).choices(signs, k=300_000 if signs == "数" else 500_000))
    start = time.process_time()
    tokenizer = train_bpe([prose(), row], 1024)
    ids = tokenizer.encode_batch_fast([row])[0].ids
    # A quadratic trainer takes minutes for this; this one, a second of the processor.
    assert time.process_time() - start < 15
    assert tokenizer.decode(ids) == row


def test_training_reads_a_sample_of_runs_without_spaces():
    run = "x" * (3 * _RUN)
    assert _sampled(f"a b {run} c {run}") == f"a b {run[:_RUN]} c {run[:_RUN]}"
    assert _sampled(f"a{' ' * 9000}b {run} c") == f"a{' ' * _RUN}b {run[:_RUN]} c"
    assert _sampled(prose()) == prose() and _sampled(" \n" * _RUN) == " \n" * (_RUN // 2)
    code = "    if x:\n        y\n" * 2000
    assert _sampled(code) == code


def given(folder: Path, single: str = "", config: dict | None = None, **change: object) -> str:
    """A saved tokenizer, its post-processor a template where `single` is one."""
    tokenizer = gpt2_bpe([prose()], 290)
    if single:
        tokenizer.post_processor = processors.Sequence(
            [
                processors.ByteLevel(trim_offsets=False),
                processors.TemplateProcessing(
                    single=single, special_tokens=[("</s>", 2), ("<s>", 3)]
                ),
            ]
        )
    folder.mkdir(exist_ok=True)
    data = json.loads(tokenizer.to_str()) | change
    (folder / "tokenizer.json").write_text(json.dumps(data))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return str(folder)


NAMED = {"eos_token": "</s>", "bos_token": {"content": "<s>"}, "pad_token": "<pad>"}


def prepared(
    tmp_path: Path, tokenizer: str, vocab_size: int = VOCAB, text: str | None = None
) -> Corpus:
    (tmp_path / "text").mkdir(exist_ok=True)
    (tmp_path / "text/a.txt").write_text(text or prose())
    spec = CorpusSpec(source=str(tmp_path / "text"), tokenizer=tokenizer)
    return prepare(spec, vocab_size, SEQ_LEN, tmp_path / "cache")


@pytest.mark.parametrize("single", ["", "$A </s>", "<s> $A", "<s> $A </s>"])
def test_a_prompt_gets_the_ids_that_training_gave_the_same_text(tmp_path, single):
    corpus = prepared(tmp_path, given(tmp_path / "tok", single, NAMED))
    kept = Tokenizer.from_file(str(corpus.tokenizer_path))
    for split in SPLITS:
        ids, eos = corpus.tokens(split).tolist(), corpus.meta["eos_id"]
        documents, one = [], []
        for index in ids:
            documents, one = ([*documents, one], []) if index == eos else (documents, [*one, index])
        assert [kept.encode(kept.decode(d)).ids for d in documents] == documents
    assert (corpus.meta["eos_id"], corpus.meta["bos_id"], corpus.meta["pad_id"]) == (2, 3, 1)
    assert corpus.meta["lossless"] is True


def test_special_tokens_are_found_by_name_where_none_is_named(tmp_path):
    meta = prepared(tmp_path, given(tmp_path / "tok")).meta
    assert (meta["eos_id"], meta["bos_id"], meta["pad_id"]) == (0, 3, 1)
    (tmp_path / "tok/tokenizer_config.json").write_text('{"pad_token": "</s>", "eos_token": 7}')
    again = prepared(tmp_path, str(tmp_path / "tok")).meta
    assert again["hash"] != meta["hash"] and again["pad_id"] == 2
    trained = prepared(tmp_path, "").meta
    assert (trained["eos_id"], trained["bos_id"], trained["pad_id"]) == (0, None, None)


def word_level(folder: Path, vocab: dict[str, int]) -> str:
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return str(folder)


def test_text_that_a_tokenizer_does_not_know_is_counted_and_its_bytes_are_not(tmp_path):
    known = sorted(set(re.findall(r"\w+|[^\w\s]+", prose())))
    vocabulary = {word: index for index, word in enumerate(["[UNK]", *known])}
    text = f" {RARE} ".join(prose(seed, 200) for seed in range(30))
    corpus = prepared(tmp_path, word_level(tmp_path / "tok", vocabulary), text=text)
    unknown = {s: int((corpus.tokens(s) == 0).sum()) for s in SPLITS}
    assert 0 < sum(unknown.values()) == corpus.meta["dropped"]["unknown_tokens"]
    assert corpus.meta["lossless"] is False
    said = f"{sum(unknown.values()):,} place"
    assert any(note.startswith(said) and "does not know" in note for note in corpus.meta["notes"])
    for split in SPLITS:
        bytes_V = corpus.byte_weights(split)
        counted = bytes_V[corpus.tokens(split)].sum()
        assert bytes_V[0] == 0
        lost = unknown[split] * len(RARE.encode())
        assert counted == pytest.approx(corpus.meta["bytes"][split] - lost)


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ({"[UNK]": 0, "dog": 1}, "the tokenizer knows no token of this text; give another"),
        (
            {"[UNK]": 0, "cat": 1, "the": 2},
            r"not know \d\d\.\d% of the train split's bytes; give",
        ),
    ],
)
def test_a_tokenizer_that_does_not_know_the_text_is_refused(tmp_path, vocabulary, message):
    """What is unknown costs a model next to nothing, and would look like a good result."""
    with pytest.raises(InputError, match=message):
        prepared(tmp_path, word_level(tmp_path / "tok", vocabulary))
    assert not list((tmp_path / "cache").glob("*"))


def test_only_where_a_text_may_be_unknown_has_the_hash_a_word_of_it():
    unknown = {"unk_token": "<unk>"}
    models = ({"unk_token": None}, unknown | {"byte_fallback": True}, unknown, {"unk_id": 0})
    texts = [json.dumps({"model": model}) for model in models]
    plain = [hashlib.sha256(json.dumps(["", "", "", text]).encode()).hexdigest() for text in texts]
    digests = [GivenTokenizer(text, "", "", "").digest for text in texts]
    same = [a == b for a, b in zip(digests, plain, strict=True)]
    assert same == [True, True, False, False]


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("tokenizer.json", b"", "is not a tokenizer of the tokenizers library"),
        ("tokenizer.json", b'{"model": ', "is not a tokenizer of the tokenizers library"),
        ("tokenizer.json", b"\xff\xfe{}", "cannot read .*tokenizer.json'"),
        ("tokenizer_config.json", b'{"eos_to', "tokenizer_config.json' is no JSON: "),
        ("tokenizer_config.json", b"\xff\xfe{}", "cannot read .*tokenizer_config.json'"),
        ("tokenizer_config.json", b"[]", "tokenizer_config.json' holds no object"),
    ],
)
def test_broken_files_of_a_tokenizer_are_named(tmp_path, name, data, rule):
    folder = given(tmp_path / "tok")
    (tmp_path / "tok" / name).write_bytes(data)
    with pytest.raises(InputError, match=rule) as caught:
        prepared(tmp_path, folder)
    assert "\n" not in str(caught.value) and "Error" not in str(caught.value)


def test_a_sentencepiece_model_alone_is_named(tmp_path):
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok/tokenizer.model").write_bytes(b"\x0a")
    with pytest.raises(InputError, match=r"no tokenizer\.json \(a SentencePiece model alone\)"):
        prepared(tmp_path, str(tmp_path / "tok"))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(tmp_path):
    with pytest.raises(InputError, match="has 290 tokens, more than the backbone's vocab_size 280"):
        prepared(tmp_path, given(tmp_path / "tok"), 280)


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("~nobody-of-this-name/tokenizer.json", "does not exist; give a tokenizer.json"),
        ("./" + "x" * 300, "File name too long; check the path and its permissions"),
        ("x" * 300, "File name too long; check the path and its permissions"),
    ],
)
def test_a_tokenizer_that_cannot_be_looked_at_is_refused_in_a_line(tmp_path, name, rule):
    with pytest.raises(InputError) as caught:
        read_tokenizer(name, tmp_path)
    assert repr(name) in str(caught.value) and rule in str(caught.value)
