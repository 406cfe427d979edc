"""`Corpus`: a prepared corpus on disk, and the order its data is read in.

Dims: B batch, L sequence length, V vocabulary, T tokens of a split, N windows.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search_space.errors import InputError, require
from workers.corpus.seal import META, fault, read_sealed
from workers.corpus.split import SPLITS

# Consecutive windows that a seed puts in an order of its own. The text a short run reads is a small
# sample of the corpus; drawn anew for every seed it was most of their spread (docs/recipe.md).
SHUFFLED = 64


class Corpus:
    """A folder that `prepare` wrote; it is never changed afterwards.

    dir: the folder.
    meta: hash, source, documents, bytes and tokens by split, vocab_size, eos_id, bos_id and pad_id
        (None where the tokenizer has none), split_unit, lossless, byte_scale by split, dtype,
        replaced_documents; `parts`, the bytes and sha256 of each file; `dropped`, how much of what
        was left out, replaced or skipped, and `notes`, the same in words.
    token_bytes: (V,) int64, UTF-8 bytes of each token's text; 0 for special tokens.
    token_counts: (V,) int64, occurrences in the train split.
    """

    def __init__(self, dir: Path, meta: dict[str, Any]) -> None:
        self.dir = dir
        self.meta = meta
        self.token_bytes: NDArray[np.int64] = np.load(dir / "token_bytes.npy")
        self.token_counts: NDArray[np.int64] = np.load(dir / "token_counts.npy")
        dtype = np.dtype(meta["dtype"])
        self._tokens = {s: np.memmap(dir / f"{s}.bin", dtype, mode="r") for s in SPLITS}

    @classmethod
    def open(cls, dir: str | Path) -> Corpus:
        """Open a prepared corpus; InputError where there is none or where it is damaged.

        A process reads each part once to check it, and again only after its file has changed.
        """
        folder = Path(dir)
        require(
            (folder / META).is_file(),
            f"corpus: {str(dir)!r} holds no prepared corpus; give the folder that prepare returned",
        )
        wrong = fault(folder)
        meta = read_sealed(folder / META)
        if wrong or meta is None:
            raise InputError(
                f"corpus: the prepared corpus {str(dir)!r} is damaged: {wrong}; launch the study "
                "again: it makes the corpus anew"
            )
        return cls(folder, meta)

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer.json of this corpus."""
        return self.dir / "tokenizer.json"

    def tokens(self, split: str) -> np.memmap:
        """(T,) token ids of `split`, read-only: its documents, each with the end-of-text id."""
        return self._tokens[_known(split)]

    def text(self, split: str) -> bytes:
        """The UTF-8 text of `split`: its documents, one after the other."""
        return (self.dir / f"{_known(split)}.txt").read_bytes()

    def byte_weights(self, split: str) -> NDArray[np.floating]:
        """Bytes of `split`'s text that each token stands for, (V,) float64: what bits per byte
        divides by.

        `token_bytes`, times the split's byte_scale: 1 unless the tokenizer loses text
        (`meta["lossless"]` is false), and then true bytes / summed bytes of the whole split. So
        over a whole split their sum is exact for every tokenizer.
        """
        return self.token_bytes * float(self.meta["byte_scale"][_known(split)])

    def require_sequences(self, seq_len: int) -> None:
        """Raise InputError unless every split holds one sequence and its next token."""
        for split in SPLITS:
            self._require_sequence(split, seq_len)

    def batch(
        self, step: int, seed: int, batch_size: int, seq_len: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Inputs and next-token targets of one training step, each (B, L) int64.

        A pure function of its arguments. An epoch visits non-overlapping windows of the train
        split in a low-discrepancy order: every stretch of it is spread evenly over the whole
        split, so that a short run sees the corpus's mix. The grid and the order are the epoch's;
        a seed shuffles within each `SHUFFLED` windows. So two seeds of one design, and two
        designs, differ by what they made of the same text (common random numbers).
        """
        train_T = self._require_sequence("train", seq_len)
        # One window less than fits, where there are two, leaves the grid room to shift.
        n_windows = max(1, (len(train_T) - 1) // seq_len - 1)
        slack = min(seq_len - 1, len(train_T) - 1 - n_windows * seq_len)
        stride = golden_stride(n_windows)
        starts_B = np.empty(batch_size, dtype=np.int64)
        for row in range(batch_size):
            epoch, index = divmod(step * batch_size + row, n_windows)
            offset, first = _epoch_start(epoch, n_windows, slack)
            window = (first + _shuffled(index, n_windows, seed, epoch) * stride) % n_windows
            starts_B[row] = offset + window * seq_len
        return _windows(train_T, starts_B, seq_len)

    def validation_windows(
        self, n_tokens: int, seq_len: int, split: str = "validation"
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Fixed inputs and targets of a held-out split, each (N, L) int64; the same for every seed.

        N is n_tokens // seq_len windows, one at least, as many at most as fit without overlap;
        they are spread evenly over the split.
        """
        tokens_T = self._require_sequence(split, seq_len)
        span = len(tokens_T) - 1 - seq_len
        n_windows = max(1, min(n_tokens // seq_len, (len(tokens_T) - 1) // seq_len))
        starts_N = np.arange(n_windows, dtype=np.int64) * span // max(1, n_windows - 1)
        return _windows(tokens_T, starts_N, seq_len)

    def _require_sequence(self, split: str, seq_len: int) -> np.memmap:
        tokens_T = self.tokens(split)
        require(
            len(tokens_T) >= seq_len + 1,
            f"corpus: {split} split has {len(tokens_T)} tokens, one sequence needs {seq_len + 1}: "
            "give more text"
            + (f", a larger {split} share" if split != "train" else "")
            + " or a smaller seq_len",
        )
        return tokens_T


def _epoch_start(epoch: int, n_windows: int, slack: int) -> tuple[int, int]:
    """The grid's offset in [0, slack] and the first window of an epoch."""
    rng = np.random.default_rng(epoch)
    return int(rng.integers(slack + 1)), int(rng.integers(n_windows))


@functools.lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int, block: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch, block]).permutation(size)


def _shuffled(index: int, n_windows: int, seed: int, epoch: int) -> int:
    """Where a seed finds the window that stands at `index` of an epoch."""
    block, place = divmod(index, SHUFFLED)
    first = block * SHUFFLED
    return first + int(_permutation(min(SHUFFLED, n_windows - first), seed, epoch, block)[place])


def golden_stride(n: int) -> int:
    """The stride next to n / golden ratio that visits all n windows before one twice.

    Multiples of the golden ratio have the lowest discrepancy modulo 1 (Weyl, Kronecker).
    """
    near = round(n * (math.sqrt(5) - 1) / 2)
    tries = (near + step for pair in range(n + 1) for step in (pair, -pair))
    return next(stride for stride in tries if stride > 0 and math.gcd(stride, n) == 1)


def _windows(
    tokens_T: NDArray[np.integer], starts_N: NDArray[np.int64], seq_len: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    window_NL = np.asarray(tokens_T[starts_N[:, None] + np.arange(seq_len + 1)], dtype=np.int64)
    return window_NL[:, :-1].copy(), window_NL[:, 1:].copy()


def _known(split: str) -> str:
    require(split in SPLITS, f"corpus: unknown split {split!r}; known: {', '.join(SPLITS)}")
    return split
