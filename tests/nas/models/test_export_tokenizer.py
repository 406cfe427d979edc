"""The exported tokenizer gives a prompt the ids that training gave the same text, and pads."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys

import drawn
import numpy as np
import pytest
from patience import WAIT_S
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from nas.models.tokenizer import PAD, with_padding, write_tokenizer
from search_space.corpus import CorpusSpec
from workers.corpus import prepare
from workers.corpus.tokenizer import train_bpe

TEXT = "\n".join(
    " ".join(random.Random(i).choices(["the", "cat", "sat", "on", "été"], k=9)) for i in range(999)
)
ODD = ["ÿ", "aÿb ÿÿ", "Ã¿", "ÀÁõ", "naïve été", "\U0001f389 \u0000 \x7f", TEXT[:500]]


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
    eos_id, given = corpus.meta["eos_id"], corpus.meta["pad_id"]
    text, pad_id = with_padding(corpus.tokenizer_path.read_text(), eos_id, given)
    write_tokenizer(tmp_path / "export", text, eos_id, pad_id, 16)
    exported = AutoTokenizer.from_pretrained(tmp_path / "export")

    ids = np.asarray(corpus.tokens("validation"))
    first = ids[: list(ids).index(0)].tolist()
    assert exported(exported.decode(first))["input_ids"] == first and len(first) > 100
    assert (exported.eos_token, exported.pad_token) == ("</s>", pad or PAD)
    assert (exported.padding_side, exported.model_max_length) == ("left", 16)


def test_padding_takes_the_entry_of_a_byte_that_no_text_has():
    before = train_bpe([TEXT, *ODD], 400)
    text, pad_id = with_padding(before.to_str(), 0, None)
    after = Tokenizer.from_str(text)
    assert after.id_to_token(pad_id) == PAD and before.id_to_token(pad_id) == "\u00ff"
    assert after.get_vocab_size() == before.get_vocab_size()
    for sample in ODD:
        assert after.encode(sample).ids == before.encode(sample).ids
        assert pad_id not in before.encode(sample).ids
        assert after.decode(after.encode(sample).ids) == sample


def test_a_vocabulary_that_falls_back_to_bytes_pads_by_the_same_byte():
    entries = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "a", "b"]
    vocabulary = {token: index for index, token in enumerate(entries)}
    before = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    text, pad_id = with_padding(before.to_str(), 1, None)
    after = Tokenizer.from_str(text)
    assert after.id_to_token(pad_id) == PAD and pad_id == 2 + 0xFF
    assert after.encode("aÿbé").ids == before.encode("aÿbé").ids


@pytest.mark.parametrize(
    "model",
    [
        models.WordLevel({"[UNK]": 0, "</s>": 1, "ÿ": 2}, unk_token="[UNK]"),
        models.BPE({"</s>": 0, "ÿ": 1}, []),  # whose letters are letters
    ],
)
def test_others_pad_with_end_of_text(model):
    text = Tokenizer(model).to_str()
    assert with_padding(text, 1, None) == (text, 1)


def test_an_entry_that_others_are_made_of_is_left_alone():
    broken = Tokenizer(models.BPE({"</s>": 0, "a": 1, "ÿ": 2, "aÿ": 3}, [("a", "ÿ")]))
    broken.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert with_padding(broken.to_str(), 0, None) == (broken.to_str(), 0)


def test_end_of_text_is_no_padding_of_its_own():
    text = train_bpe([TEXT], 300).to_str()
    assert with_padding(text, 0, 0) == with_padding(text, 0, None) != (text, 0)
    assert with_padding(text, 0, 7) == (text, 7)


@pytest.mark.slow
def test_collators_keep_the_end_of_text_and_hide_padding(tokenizer):
    end = tokenizer.eos_token_id
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    labels = collator([{"input_ids": [5, 6, end]}, {"input_ids": [5]}])["labels"].tolist()
    assert labels == [[5, 6, end], [-100, -100, 5]]


@pytest.mark.slow
@pytest.mark.parametrize("name", drawn.METHODS)
def test_prompts_of_several_lengths_in_one_batch(load, tokenizer, name):
    model, prompts = load(name), ["the cat", "the cat sat on a mat and then ran off to find"]
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    alone = [
        model.generate(**tokenizer(prompt, return_tensors="pt"), **options)[0, -6:].tolist()
        for prompt in prompts
    ]
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    assert (batch["attention_mask"][0] == 0).any()
    assert model.generate(**batch, **options)[:, -6:].tolist() == alone


@pytest.mark.slow
def test_the_tokenizer_alone_runs_no_code_and_asks_nothing(exports, tmp_path):
    script = """
import builtins, sys
def refuse(*given):
    raise SystemExit("it asked: " + " ".join(map(str, given)))
builtins.input = refuse
from transformers import AutoTokenizer
alone = AutoTokenizer.from_pretrained(sys.argv[1] + "/tokenizer")
beside = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=False)
assert alone("the cat")["input_ids"] == beside("the cat")["input_ids"]
assert alone.padding_side == beside.padding_side == "left"
assert not any(name.startswith("transformers_modules") for name in sys.modules)
"""
    environment = os.environ | {"HF_MODULES_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", script, str(exports("switch"))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr[-2000:]
