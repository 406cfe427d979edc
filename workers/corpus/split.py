"""Train, validation and test: by document, by content, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

SPLITS = ("train", "validation", "test")

# A split of few documents is a draw of luck: with seven books a whole split would be one book,
# and 5% could not be met. Below this number documents are cut into sections first.
FEW_DOCUMENTS = 200
SECTION_BYTES = 16 * 1024
_LEAST_SECTION_BYTES = 1024


def deal(
    documents: Sequence[str], validation: float, test: float
) -> tuple[dict[str, list[str]], str]:
    """The splits, and what was dealt out to them: `document` or `section`.

    Fewer than `FEW_DOCUMENTS` documents are cut at line ends into sections of about 16 KiB, or
    of a 200th of the text where that is less (1 KiB at least). So are more, where a few make up
    so much of the text that whole ones leave a split empty. Neighbouring sections may land in
    different splits, so held-out text then shares its subject with text that was trained on.
    """
    if len(documents) >= FEW_DOCUMENTS:
        splits = split_documents(documents, validation, test)
        if all(splits.values()):
            return splits, "document"
    total = sum(len(d.encode()) for d in documents)
    size = min(SECTION_BYTES, max(_LEAST_SECTION_BYTES, total // FEW_DOCUMENTS))
    sections = [s for document in documents for s in _sections(document, size)]
    return split_documents(sections, validation, test), "section"


def _sections(text: str, size: int) -> list[str]:
    """Cut after the first line end past `size` characters; after 4 * `size` where none comes."""
    sections = []
    start = 0
    while start < len(text):
        line_end = text.find("\n", start + size - 1, start + 4 * size)
        stop = line_end + 1 if line_end >= 0 else start + 4 * size
        if len(text) - stop < size // 2:
            stop = len(text)
        sections.append(text[start:stop])
        start = stop
    return sections


def split_documents(
    documents: Sequence[str], validation: float, test: float
) -> dict[str, list[str]]:
    """Documents by split, each in the corpus's order.

    Documents are ranked by the SHA-256 of their text. In that order the test split is filled,
    then the validation split, to their shares of the bytes; the rest is the train split. A
    document joins while that brings the split nearer to its share. One that would make up more
    than a quarter of a held-out split is for training (unless it is no longer than the mean),
    because the measure would be of that one document; where nothing else is left, the shortest
    document is held out if it is at most twice the share. Equal documents have one rank, so they
    are never in two splits.
    """
    sizes: dict[bytes, int] = {}
    digests = []
    for document in documents:
        data = document.encode()
        digest = hashlib.sha256(data).digest()
        digests.append(digest)
        sizes[digest] = sizes.get(digest, 0) + len(data)
    total = sum(sizes.values())
    mean = total / max(1, len(sizes))
    chosen: dict[bytes, str] = {}
    for split, share in (("test", test), ("validation", validation)):
        filled, target = 0, share * total
        longest = max(target / 4, mean)
        for digest in sorted(sizes.keys() - chosen.keys()):
            size = sizes[digest]
            if size <= longest and filled + size / 2 <= target:
                chosen[digest] = split
                filled += size
        left = sizes.keys() - chosen.keys()
        if not filled and len(left) > 1:
            # A small corpus may have nothing that short: its shortest document is held out.
            shortest = min(left, key=lambda digest: (sizes[digest], digest))
            if sizes[shortest] <= 2 * target:
                chosen[shortest] = split
    out: dict[str, list[str]] = {split: [] for split in SPLITS}
    for document, digest in zip(documents, digests, strict=True):
        out[chosen.get(digest, "train")].append(document)
    return out
