"""The exported tokenizer gives a prompt the ids that training gave the same text."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from nas.models.export import _end_and_pad, _write_tokenizer
from nas.store import Facts
from search_space.corpus import CorpusSpec
from workers.corpus import prepare

TEXT = "\n".join(
    " ".join(random.Random(i).choices(["the", "cat", "sat", "on", "été"], k=9)) for i in range(999)
)


@pytest.mark.parametrize("single", ["$A </s>", "<s> $A"])
@pytest.mark.parametrize("pad", ["<pad>", None])
def test_a_given_template_and_padding(tmp_path, single, pad):
    specials = ["</s>", "<s>", *([pad] if pad else [])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[("</s>", 0), ("<s>", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    named = {"eos_token": "</s>", "bos_token": "<s>", "pad_token": pad}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    (tmp_path / "a.txt").write_text(TEXT)
    spec = CorpusSpec(source=str(tmp_path / "a.txt"), tokenizer=str(tmp_path))
    corpus = prepare(spec, 300, 16, tmp_path / "cache")

    (tmp_path / "export").mkdir()
    ends = _end_and_pad(SimpleNamespace(facts=Facts.from_dict({"corpus": corpus.meta})))
    _write_tokenizer(tmp_path / "export", corpus.tokenizer_path, *ends)
    exported = AutoTokenizer.from_pretrained(tmp_path / "export")

    ids = np.asarray(corpus.tokens("validation"))
    first = ids[: list(ids).index(0)].tolist()
    assert exported(exported.decode(first))["input_ids"] == first and len(first) > 100
    assert (exported.eos_token, exported.pad_token) == ("</s>", pad or "</s>")
