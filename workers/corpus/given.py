"""A tokenizer that the user gives: read, checked, and made to encode as training needs it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from search_space.errors import InputError, require
from workers.corpus.hub import fetch_tokenizer
from workers.corpus.reasons import reason

END_OF_TEXT = "<|endoftext|>"

# Tried in this order where tokenizer_config.json names none.
_KNOWN = {
    "eos": (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>", "[SEP]"),
    "bos": ("<s>", "<bos>", "<|begin_of_text|>"),
    "pad": ("<pad>", "[PAD]", "<|pad|>"),
}
_CONFIG = "tokenizer_config.json"
# Part of the hash where a tokenizer may not know a text: change it when that counts otherwise.
UNKNOWN_FORMAT = "bytes of unknown text do not count"


@dataclass(frozen=True)
class GivenTokenizer:
    """A tokenizer.json and the special tokens that it has, each "" where it has none."""

    json: str
    eos: str
    bos: str
    pad: str

    @property
    def digest(self) -> str:
        """Names the tokenizer by its content, and by how text counts that it may not know."""
        parts = [self.eos, self.bos, self.pad, self.json]
        if _unknown_token(json.loads(self.json).get("model") or {}) is not None:
            parts.append(UNKNOWN_FORMAT)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Specials:
    """Ids of the special tokens; None where the tokenizer has none."""

    eos_id: int
    bos_id: int | None = None
    pad_id: int | None = None


def read_tokenizer(name: str, cache_dir: Path) -> GivenTokenizer:
    """Read a tokenizer.json, a folder that holds one, or a Hub model's; InputError if none is."""
    # Not Path.expanduser and Path.exists: they raise for an unknown user and an unreadable folder.
    path = Path(os.path.expanduser(name))
    _require_visible(name, path)
    if not os.path.exists(path):
        looks_local = path.is_absolute() or name.startswith((".", "~")) or name.endswith(".json")
        require(
            not looks_local and name.count("/") <= 1,
            f"corpus: tokenizer {name!r} does not exist; give a tokenizer.json, a folder that "
            "holds one, a Hub model id, or leave it empty to train one",
        )
        path = fetch_tokenizer(name, cache_dir)
    file = path / "tokenizer.json" if path.is_dir() else path
    _require_visible(name, file)
    if not os.path.isfile(file):
        only = " (a SentencePiece model alone)" if any(path.glob("*.model")) else ""
        raise InputError(
            f"corpus: {name!r} holds no tokenizer.json{only}; load it with transformers and save "
            "it with save_pretrained as a fast tokenizer"
        )
    text = _text(file)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises bare Exception for a file it cannot read.
        raise InputError(
            f"corpus: {str(file)!r} is not a tokenizer of the tokenizers library: "
            f"{reason(error)}; save it with save_pretrained as a fast tokenizer"
        ) from error
    named = _named_tokens(file.with_name(_CONFIG))
    found = {kind: _find(tokenizer, named.get(kind), known) for kind, known in _KNOWN.items()}
    return GivenTokenizer(json=text, **found)


def _require_visible(name: str, path: Path) -> None:
    """Raise InputError when nobody can say whether `path` is there."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass  # it is not there, which the caller says in its own words
    except (OSError, ValueError) as error:
        raise InputError(
            f"corpus: cannot read tokenizer {name!r}: {reason(error)}; check the path and its "
            "permissions"
        ) from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(
            f"corpus: cannot read {str(file)!r}: {reason(error)}; save the tokenizer anew"
        ) from error


def _named_tokens(config: Path) -> dict[str, str]:
    """The special tokens that a tokenizer_config.json names, by `eos`, `bos` and `pad`."""
    if not os.path.isfile(config):
        return {}
    try:
        data = json.loads(_text(config))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"corpus: {str(config)!r} is no JSON: {reason(error)}; save the tokenizer anew, or "
            "delete this file"
        ) from error
    require(
        isinstance(data, dict),
        f"corpus: {str(config)!r} holds no object; save the tokenizer anew, or delete this file",
    )
    named: dict[str, Any] = {kind: data.get(f"{kind}_token") for kind in _KNOWN}
    tokens = {k: v.get("content") if isinstance(v, dict) else v for k, v in named.items()}
    return {kind: token for kind, token in tokens.items() if isinstance(token, str)}


def _find(tokenizer: Tokenizer, named: str | None, known: tuple[str, ...]) -> str:
    candidates = ([named] if named else []) + list(known)
    return next((c for c in candidates if tokenizer.token_to_id(c) is not None), "")


def load_given(given: GivenTokenizer, vocab_size: int) -> tuple[Tokenizer, Specials]:
    """The tokenizer, ready to encode, and its special tokens; one without eos gets `END_OF_TEXT`.

    It adds no special tokens of its own: documents are encoded without, and a prompt must get the
    ids that training gave the same text.
    """
    tokenizer: Tokenizer = Tokenizer.from_str(_without_template(given.json))
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
    # token_to_id("") is None, as it should be for a token that there is not.
    return tokenizer, Specials(
        eos_id, tokenizer.token_to_id(given.bos), tokenizer.token_to_id(given.pad)
    )


def _without_template(text: str) -> str:
    data = json.loads(text)
    processor = data.get("post_processor")
    # The byte-level one only moves offsets.
    if processor and processor.get("type") != "ByteLevel":
        data["post_processor"] = None
    return json.dumps(data, ensure_ascii=False)


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The id of what the tokenizer puts for text that it does not know; None where it spells it."""
    unknown = _unknown_token(json.loads(tokenizer.to_str())["model"])
    return tokenizer.token_to_id(unknown) if isinstance(unknown, str) else unknown


def _unknown_token(model: dict[str, Any]) -> int | str | None:
    """The id, or the text, of that token, as a tokenizer's file has it."""
    if model.get("byte_fallback"):
        return None
    unknown = model.get("unk_id") if model.get("unk_id") is not None else model.get("unk_token")
    return unknown if isinstance(unknown, int | str) else None
