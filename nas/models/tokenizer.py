"""The tokenizer of an export: the corpus's, told how to pad.

Prompts of several lengths are padded on the left, so that all of them end where the model goes on.
Padding is a token of its own: a collator that hides padding from the loss would hide end-of-text
with it, and the model would never learn to stop.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PAD = "<|pad|>"
ALONE = "tokenizer"  # the folder of the tokenizer by itself
# What stands for byte 0xFF in byte-level vocabularies and in those that fall back to bytes. No
# UTF-8 text has that byte; the letter U+00FF is two others.
_BYTE_LEVEL, _FALL_BACK = "\u00ff", "<0xFF>"


def with_padding(text: str, eos_id: int, pad_id: int | None) -> tuple[str, int]:
    """A tokenizer.json that has a token to pad with, and the id of that.

    Its own padding where it has some; else the entry of a byte that no text has, under the same id,
    so that the model needs no new row; else end-of-text.

    eos_id: of end-of-text.
    pad_id: of its own padding, or None.
    """
    if pad_id is not None and pad_id != eos_id:
        return text, pad_id
    data = json.loads(text)
    spare = _spare_entry(data)
    if spare is None:
        return text, eos_id
    vocabulary = data["model"]["vocab"]
    pad_id = vocabulary[spare]
    data["model"]["vocab"] = {PAD if t == spare else t: i for t, i in vocabulary.items()}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    token = {"id": pad_id, "content": PAD} | plain | {"special": True}
    data["added_tokens"] = sorted([*_added(data), token], key=_id)
    return json.dumps(data, ensure_ascii=False), pad_id


def write_tokenizer(folder: Path, text: str, eos_id: int, pad_id: int, max_length: int) -> None:
    """tokenizer.json and its configuration, in the folder and in one below it.

    text: of the tokenizer.json.
    max_length: tokens of the model's sequences.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_str(text)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=tokenizer.id_to_token(eos_id),
        pad_token=tokenizer.id_to_token(pad_id),
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(folder)
    # By itself, too: beside a configuration with remote code AutoTokenizer asks whether to run it.
    fast.save_pretrained(folder / ALONE)


def _id(token: dict[str, Any]) -> int:
    return int(token["id"])


def _added(data: dict[str, Any]) -> list[dict[str, Any]]:
    return data.get("added_tokens") or []


def _spare_entry(data: dict[str, Any]) -> str | None:
    """The entry of byte 0xFF, where there is one that nothing else is made of."""
    vocabulary = data["model"].get("vocab")
    before = data.get("pre_tokenizer") or {}
    parts = [before, *before.get("pretokenizers", [])]
    if any(part.get("type") == "ByteLevel" for part in parts):
        spare = _BYTE_LEVEL
    elif data["model"].get("byte_fallback"):
        spare = _FALL_BACK
    else:
        return None
    if not isinstance(vocabulary, dict) or spare not in vocabulary:
        return None
    taken = PAD in vocabulary or any(token["content"] == PAD for token in _added(data))
    # A tokenizer that was trained on broken text may have longer tokens with the byte.
    used = any(spare in token and token != spare for token in vocabulary)
    return None if taken or used else spare
