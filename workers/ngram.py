"""Byte n-gram models: the floor that a proxy of any quality must be better than.

Interpolated Witten-Bell, on the same split as the proxies:

    P_n(c | h) = (count(h, c) + T(h) * P_{n-1}(c | h')) / (count(h) + T(h)),    P_0 = 1 / 256,

h the last n - 1 bytes, h' the last n - 2, T(h) the number of different bytes seen after h
(Witten and Bell 1991; Chen and Goodman 1998, section 2.4). A context never seen gives P_{n-1}.

Dims: S bytes of the train text, M bytes of the held-out text, G different n-grams.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search_space.errors import require
from workers.corpus import Corpus
from workers.corpus.seal import read_sealed, write_sealed

log = logging.getLogger(__name__)
Codes = NDArray[np.integer]  # packed n-grams, or bytes
ORDERS = (3, 4, 5)
HIGHEST_ORDER = 7  # an n-gram is packed into the 63 bits of a non-negative int64

# Counting takes about 40 bytes of memory for each byte of text.
TRAIN_BYTES_CAP = 64 * 1024 * 1024

_CACHE = "ngrams.json"


def ngram_bits_per_byte(
    train: bytes, heldout: bytes, orders: Sequence[int] = ORDERS
) -> dict[int, float]:
    """Bits per byte of `heldout` under n-gram models counted on `train`, by order n.

    The first bytes of `heldout` have shorter contexts. Raises InputError for an order outside
    1..7 and for an empty held-out text.
    """
    require(bool(heldout), "n-grams: the held-out text is empty; give at least one byte")
    for n in orders:
        require(1 <= n <= HIGHEST_ORDER, f"n-grams: an order is 1 to {HIGHEST_ORDER}: got {n}")
    train_S = np.frombuffer(train, dtype=np.uint8)
    heldout_M = np.frombuffer(heldout, dtype=np.uint8)
    train_codes: Codes = train_S
    heldout_codes: Codes = heldout_M
    probability_M = np.full(len(heldout_M), 1 / 256)
    bits = {}
    for n in range(1, max(orders, default=0) + 1):
        if n > 1:
            train_codes = _extend(train_codes, train_S, n)
            heldout_codes = _extend(heldout_codes, heldout_M, n)
        if len(train_codes) and len(heldout_codes):
            last = probability_M[n - 1 :]
            probability_M[n - 1 :] = _interpolate(train_codes, heldout_codes, last)
        if n in orders:
            bits[n] = float(-np.log2(probability_M).mean())
    return bits


def _extend(codes: Codes, text: NDArray[np.uint8], n: int) -> Codes:
    """Packed (n-1)-grams -> packed n-grams; the oldest byte is the highest."""
    packed: Codes = codes[:-1].astype(_code_type(n))
    packed <<= 8
    packed |= text[n - 1 :]
    return packed


def _code_type(n: int) -> type[np.integer]:
    """The narrowest type of a packed n-gram: sorting takes most of the time, and half in half."""
    return np.uint16 if n <= 2 else np.uint32 if n <= 4 else np.int64


def _interpolate(train: Codes, heldout: Codes, lower_M: NDArray[np.float64]) -> NDArray[np.float64]:
    """P_n of each held-out n-gram, from the packed n-grams of both texts and its P_{n-1}."""
    ordered = np.sort(train)
    # How many different n-grams come before each place of `ordered`, and in all of it.
    different = np.zeros(len(ordered) + 1, dtype=np.int64)
    np.cumsum(np.concatenate(([True], ordered[1:] != ordered[:-1])), out=different[1:])
    # Searching in order stays in the processor's caches.
    wanted_G, of_M = np.unique(heldout, return_inverse=True)
    context_G = wanted_G & ~wanted_G.dtype.type(255)
    first, last = np.searchsorted(ordered, wanted_G), np.searchsorted(ordered, wanted_G, "right")
    begin, end = (
        np.searchsorted(ordered, context_G),
        np.searchsorted(ordered, context_G | 255, "right"),
    )

    count_M = (last - first)[of_M]
    total_M = (end - begin)[of_M]
    types_M = (different[end] - different[begin])[of_M]
    seen_M = total_M > 0
    mixed_M = (count_M + types_M * lower_M) / np.where(seen_M, total_M + types_M, 1)
    return np.where(seen_M, mixed_M, lower_M)


def corpus_ngrams(corpus: Corpus) -> dict[int, float]:
    """Bits per byte of the corpus's validation split for n = 3, 4, 5; kept beside the corpus.

    Counted on the first `TRAIN_BYTES_CAP` bytes of the train split.
    """
    cache = corpus.dir / _CACHE
    kept = read_sealed(cache)
    if kept is not None:
        return {int(n): bits for n, bits in kept.items()}
    bits = ngram_bits_per_byte(corpus.text("train")[:TRAIN_BYTES_CAP], corpus.text("validation"))
    try:
        write_sealed(cache, {str(n): value for n, value in bits.items()})
    except OSError as error:
        log.warning("the n-gram figures are not kept beside %s: %s", corpus.dir, error)
    return bits
