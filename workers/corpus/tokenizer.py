"""A byte-level BPE trained on the corpus, and the bytes of any tokenizer's tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from search_space.errors import require
from workers.corpus.given import END_OF_TEXT

LEAST_VOCAB = 257  # 256 bytes and the end-of-text token

# The time of training a BPE grows with the square of a word's length, so words are cut: GPT-2's
# pattern with a bound on each run. Text whose words are shorter is split as GPT-2 splits it.
_WORD = 128
_PATTERN = (
    r"'s|'t|'re|'ve|'m|'ll|'d"
    rf"| ?\p{{L}}{{1,{_WORD}}}| ?\p{{N}}{{1,{_WORD}}}| ?[^\s\p{{L}}\p{{N}}]{{1,{_WORD}}}"
    rf"|\s{{1,{_WORD}}}(?!\S)|\s{{1,{_WORD}}}"
)

# Of a run without spaces (of base64, or DNA), training reads so many characters: such text is made
# of different words all along, each of which costs time, and a sample has the same pairs.
_RUN = 4096
_LONG_RUN = re.compile(rf"(\S{{{_RUN}}})\S+|(\s{{{_RUN}}})\s+")


def check_vocab_size(vocab_size: int) -> None:
    """Raise InputError unless a byte-level BPE of `vocab_size` tokens exists."""
    require(
        vocab_size >= LEAST_VOCAB,
        f"corpus: a byte-level BPE needs vocab_size of at least {LEAST_VOCAB} (256 bytes and "
        f"{END_OF_TEXT}): got {vocab_size}",
    )


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE with GPT-2's pre-tokenizer; every text is encoded without loss.

    Small texts may fill fewer than `vocab_size` tokens. Token 0 is `END_OF_TEXT`.
    """
    check_vocab_size(vocab_size)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_sampled(text) for text in texts), trainer)
    return tokenizer


def _sampled(text: str) -> str:
    """The text with each run of spaces, or without any, cut to its first `_RUN` characters."""
    if len(text) <= _RUN:
        return text
    lengths = [len(word) for word in text.split()]
    spare = len(text) - sum(lengths) - len(lengths)
    if max(lengths, default=0) > _RUN or spare > _RUN:
        return _LONG_RUN.sub(r"\1\2", text)
    return text


def token_bytes(tokenizer: Tokenizer, vocab_size: int, eos_id: int) -> NDArray[np.int64]:
    """(V,) int64: UTF-8 bytes of text that each token stands for; 0 for special tokens.

    Exact for byte-level tokenizers, where a token's characters are its bytes one for one. For
    the others it is nominal: `##` of WordPiece is no text, U+2581 is one space, `<0xNN>` is one
    byte. Ids that no token has count 0.
    """
    byte_level = _is_byte_level(json.loads(tokenizer.to_str()))
    added: dict[int, Any] = tokenizer.get_added_tokens_decoder()
    sizes_V = np.zeros(vocab_size, dtype=np.int64)
    for token, index in tokenizer.get_vocab(with_added_tokens=True).items():
        if index in added:
            sizes_V[index] = 0 if added[index].special else len(added[index].content.encode())
        else:
            sizes_V[index] = len(token) if byte_level else _nominal_bytes(token)
    sizes_V[eos_id] = 0
    return sizes_V


def _is_byte_level(data: dict[str, Any]) -> bool:
    before, after = data.get("pre_tokenizer") or {}, data.get("decoder") or {}
    parts = [before, *before.get("pretokenizers", []), after, *after.get("decoders", [])]
    return any(part.get("type") == "ByteLevel" for part in parts)


def _nominal_bytes(token: str) -> int:
    if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", token):
        return 1
    return len(token.removeprefix("##").replace("\u2581", " ").encode())
