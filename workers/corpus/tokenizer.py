"""The corpus's tokenizer: trained on the train split, or given; and the bytes of its tokens."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from search_space.errors import InputError, require
from workers.corpus.hub import fetch_tokenizer

END_OF_TEXT = "<|endoftext|>"
LEAST_VOCAB = 257  # 256 bytes and the end-of-text token

_KNOWN_EOS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]")


@dataclass(frozen=True)
class GivenTokenizer:
    """A tokenizer that the user named: its tokenizer.json, and its end-of-text token or ""."""

    json: str
    eos: str

    @property
    def digest(self) -> str:
        """Names the tokenizer by its content."""
        return hashlib.sha256(f"{self.eos}\n{self.json}".encode()).hexdigest()


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
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(name: str, cache_dir: Path) -> GivenTokenizer:
    """Read a tokenizer.json, a folder that holds one, or a Hub model's; InputError if none is."""
    path = Path(name).expanduser()
    if not path.exists():
        looks_local = path.is_absolute() or name.startswith((".", "~")) or name.endswith(".json")
        require(
            not looks_local and name.count("/") <= 1,
            f"corpus: tokenizer {name!r} does not exist; give a tokenizer.json, a folder that "
            "holds one, a Hub model id, or leave it empty to train one",
        )
        path = fetch_tokenizer(name, cache_dir)
    file = path / "tokenizer.json" if path.is_dir() else path
    require(
        file.is_file(),
        f"corpus: {name!r} holds no tokenizer.json; save the tokenizer with save_pretrained as a "
        "fast tokenizer",
    )
    try:
        text = file.read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception for a file it cannot read.
        raise InputError(
            f"corpus: {str(file)!r} is not a tokenizer of the tokenizers library: "
            f"{str(error)[:200]}; save it with save_pretrained as a fast tokenizer"
        ) from error
    return GivenTokenizer(json=text, eos=_find_eos(tokenizer, file.parent))


def _find_eos(tokenizer: Tokenizer, folder: Path) -> str:
    config = folder / "tokenizer_config.json"
    candidates = list(_KNOWN_EOS)
    if config.is_file():
        named = json.loads(config.read_text(encoding="utf-8")).get("eos_token")
        named = named.get("content") if isinstance(named, dict) else named
        candidates[:0] = [named] if isinstance(named, str) else []
    return next((c for c in candidates if tokenizer.token_to_id(c) is not None), "")


def load_given(given: GivenTokenizer, vocab_size: int) -> tuple[Tokenizer, int]:
    """The tokenizer, ready to encode, and its end-of-text id; one without gets `END_OF_TEXT`."""
    tokenizer: Tokenizer = Tokenizer.from_str(given.json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if not given.eos:
        tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True)])
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    require(
        largest <= vocab_size,
        f"corpus: the tokenizer has {largest} tokens, more than the backbone's vocab_size "
        f"{vocab_size}; set vocab_size to {largest} or more, or leave tokenizer empty",
    )
    eos_id = tokenizer.token_to_id(given.eos or END_OF_TEXT)
    assert eos_id is not None
    return tokenizer, eos_id


def token_bytes(tokenizer: Tokenizer, vocab_size: int, eos_id: int) -> np.ndarray:
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
