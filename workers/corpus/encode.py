"""Token streams: documents -> a flat file of token ids, and the account of its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

# Bounds the memory of one call, which encodes its documents on all of the tokenizer's threads.
_CHARACTERS_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class SplitAccount:
    """What one split holds. `nominal_bytes` is the sum of its tokens' bytes.

    inexact: documents in which that sum is not the text's bytes.
    unknown: tokens that stand for text which the tokenizer does not know.
    unknown_bytes: of that text.
    """

    documents: int
    bytes: int
    nominal_bytes: int
    tokens: int
    inexact: int
    unknown: int
    unknown_bytes: int

    @property
    def unknown_share(self) -> float:
        """Of the bytes."""
        return self.unknown_bytes / self.bytes if self.bytes else 0.0


def token_dtype(vocab_size: int) -> type[np.unsignedinteger]:
    """The narrowest type that holds every id."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def write_split(
    folder: Path,
    split: str,
    documents: Sequence[str],
    tokenizer: Tokenizer,
    eos_id: int,
    token_bytes_V: NDArray[np.int64],
    unknown_id: int | None = None,
) -> SplitAccount:
    """Write SPLIT.bin (token ids, `eos_id` after each document) and SPLIT.txt (the same text)."""
    dtype = token_dtype(len(token_bytes_V))
    # Text that spells a special token is text: else it would be read as the end of a document.
    tokenizer.encode_special_tokens = True
    n_bytes = nominal = n_tokens = inexact = unknown = unknown_bytes = 0
    with (
        open(folder / f"{split}.bin", "wb") as ids_file,
        open(folder / f"{split}.txt", "wb") as text_file,
    ):
        for batch in _batches(documents):
            encodings = tokenizer.encode_batch_fast(batch, add_special_tokens=False)
            for text, encoding in zip(batch, encodings, strict=True):
                ids_T = np.array([*encoding.ids, eos_id], dtype=dtype)
                size = int(token_bytes_V[ids_T].sum())
                n_bytes += text_file.write(data := text.encode())
                inexact += size != len(data)
                if unknown_id is not None and unknown_id in encoding.ids:
                    unknown += int((ids_T == unknown_id).sum())
                    unknown_bytes += _bytes_of(unknown_id, text, tokenizer)
                nominal += size
                n_tokens += len(ids_T)
                ids_file.write(ids_T.tobytes())
    return SplitAccount(len(documents), n_bytes, nominal, n_tokens, inexact, unknown, unknown_bytes)


def _bytes_of(token: int, text: str, tokenizer: Tokenizer) -> int:
    """Bytes of what a token stands for in a text; the fast encoding does not say where it is."""
    whole = tokenizer.encode(text, add_special_tokens=False)
    places = zip(whole.ids, whole.offsets, strict=True)
    return sum(len(text[start:end].encode()) for at, (start, end) in places if at == token)


def _batches(documents: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document)
        if size >= _CHARACTERS_AT_ONCE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
