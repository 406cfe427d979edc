"""`prepare`: a CorpusSpec -> a Corpus in the cache, named by the hash of all that decides it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search_space.corpus import CorpusSpec
from search_space.errors import InputError, require
from workers.corpus.documents import read_documents
from workers.corpus.encode import SplitAccount, token_dtype, write_split
from workers.corpus.files import SourceFile, list_files
from workers.corpus.hub import HubUnreachable, resolve_commit
from workers.corpus.split import SPLITS, split_documents, split_units
from workers.corpus.stream import META, Corpus
from workers.corpus.tokenizer import (
    GivenTokenizer,
    check_vocab_size,
    load_given,
    read_tokenizer,
    token_bytes,
    train_bpe,
)

# Part of the hash: raise it when the same source would now give another corpus.
FORMAT = 1

Report = Callable[[str], None]


@dataclass(frozen=True)
class _Plan:
    """A spec with everything outside it looked up, so that its hash names the result."""

    spec: CorpusSpec
    vocab_size: int
    files: tuple[SourceFile, ...]
    commit: str
    tokenizer: GivenTokenizer | None

    @property
    def request(self) -> dict[str, Any]:
        return {"corpus": self.spec.to_dict(), "vocab_size": self.vocab_size}

    @property
    def hash(self) -> str:
        spec = self.spec
        hub = [spec.hub_id, spec.name, spec.split, self.commit] if spec.is_hub else []
        decisive = {
            "format": FORMAT,
            "hub": hub,
            "files": [[f.format, f.digest] for f in self.files],
            "text_field": spec.text_field,
            "max_bytes": spec.byte_cap,
            "validation": float(spec.validation),
            "test": float(spec.test),
            "tokenizer": self.tokenizer.digest if self.tokenizer else "",
            "vocab_size": self.vocab_size,
        }
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:32]


def _silent(message: str) -> None:
    """The default report: says nothing."""


def prepare(
    spec: CorpusSpec,
    vocab_size: int,
    seq_len: int,
    cache_dir: str | Path,
    report: Report = _silent,
) -> Corpus:
    """Make the corpus of `spec`, or find it in `cache_dir` when it was made before.

    The text is held in memory while it is prepared. Several processes may prepare one corpus at
    once: each writes a folder of its own, and the first to finish gives it its name.

    vocab_size: the backbone's; a trained BPE has at most as many tokens, a given one must fit.
    seq_len: every split must hold one sequence of it.  report: gets a line at each stage.
    Raises InputError for whatever is wrong with the source, the tokenizer or the amount of text.
    """
    cache = Path(cache_dir).expanduser()
    try:
        plan = _plan(spec, vocab_size, cache)
        folder = cache / plan.hash
    except HubUnreachable as error:
        made_before = _made_before(spec, vocab_size, cache)
        if made_before is None:
            raise
        report(f"{error}; using the corpus prepared before")
        folder = made_before
    if not (folder / META).is_file():
        _build(plan, folder, report)
    corpus = Corpus.open(folder)
    corpus.require_sequences(seq_len)
    return corpus


def _plan(spec: CorpusSpec, vocab_size: int, cache: Path) -> _Plan:
    if not spec.tokenizer:
        check_vocab_size(vocab_size)
    return _Plan(
        spec=spec,
        vocab_size=vocab_size,
        files=() if spec.is_hub else tuple(list_files(spec)),
        commit=resolve_commit(spec.hub_id, spec.revision, "dataset") if spec.is_hub else "",
        tokenizer=read_tokenizer(spec.tokenizer, cache) if spec.tokenizer else None,
    )


def _made_before(spec: CorpusSpec, vocab_size: int, cache: Path) -> Path | None:
    """The newest corpus of the same request, for when the Hub cannot say what is newest."""
    request = {"corpus": spec.to_dict(), "vocab_size": vocab_size}
    found = [
        meta
        for meta in cache.glob(f"[0-9a-f]*/{META}")
        if json.loads(meta.read_text(encoding="utf-8"))["request"] == request
    ]
    return max(found, key=lambda meta: meta.stat().st_mtime).parent if found else None


def _build(plan: _Plan, folder: Path, report: Report) -> None:
    """Write the corpus beside `folder` and rename it, so that `folder` is whole or absent."""
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise InputError(
            f"corpus: cannot write to the cache {str(folder.parent)!r}: {error.strerror}; "
            "give another cache folder"
        ) from error
    try:
        _write(plan, partial, folder.parent, report)
        try:
            os.rename(partial, folder)
        except OSError:
            # Another process was first; its corpus has the same content as ours.
            if not (folder / META).is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(plan: _Plan, partial: Path, cache: Path, report: Report) -> None:
    spec = plan.spec
    report(f"reading {spec.source}" + (f": {len(plan.files)} files" if plan.files else ""))
    documents = list(read_documents(spec, plan.files, plan.commit, cache))
    require(bool(documents), f"corpus: source {spec.source!r} holds no text; give another source")
    replaced = sum("\ufffd" in document for document in documents)
    if replaced:
        report(f"{replaced} documents hold U+FFFD: bytes that are not UTF-8 are read as that")
    units, unit = split_units(documents)
    splits = split_documents(units, spec.validation, spec.test)
    for name in SPLITS:
        require(
            bool(splits[name]),
            f"corpus: no {unit} of {spec.source!r} fits the {name} split: give more text"
            + (f" or a larger {name} share" if name != "train" else ""),
        )

    if plan.tokenizer is None:
        report(f"training a byte-level BPE of {plan.vocab_size} tokens")
        tokenizer = train_bpe(splits["train"], plan.vocab_size)
        eos_id = 0
    else:
        tokenizer, eos_id = load_given(plan.tokenizer, plan.vocab_size)
    tokenizer.save(str(partial / "tokenizer.json"))
    token_bytes_V = token_bytes(tokenizer, plan.vocab_size, eos_id)

    report("encoding " + ", ".join(f"{len(splits[s])} {s}" for s in SPLITS) + f" {unit}s")
    accounts = {
        s: write_split(partial, s, splits[s], tokenizer, eos_id, token_bytes_V) for s in SPLITS
    }
    if plan.tokenizer is None and not all(a.exact for a in accounts.values()):
        raise RuntimeError("a byte-level BPE lost text: its tokens' bytes do not sum to the text's")
    train_T = np.fromfile(partial / "train.bin", dtype=token_dtype(plan.vocab_size))
    np.save(partial / "token_bytes.npy", token_bytes_V)
    np.save(partial / "token_counts.npy", np.bincount(train_T, minlength=plan.vocab_size))
    meta = _meta(plan, accounts) | {
        "eos_id": eos_id,
        "split_unit": unit,
        "source_documents": len(documents),
        "replaced_documents": replaced,
    }
    (partial / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _meta(plan: _Plan, accounts: dict[str, SplitAccount]) -> dict[str, Any]:
    # A tokenizer that drops text would look better than it is: its bytes are scaled to the true.
    lossless = all(a.exact for a in accounts.values())
    scale = {s: 1.0 if lossless else _byte_scale(a) for s, a in accounts.items()}
    return {
        "hash": plan.hash,
        "request": plan.request,
        "source": plan.spec.source,
        "commit": plan.commit,
        "vocab_size": plan.vocab_size,
        "dtype": np.dtype(token_dtype(plan.vocab_size)).name,
        "documents": {s: a.documents for s, a in accounts.items()},
        "bytes": {s: a.bytes for s, a in accounts.items()},
        "tokens": {s: a.tokens for s, a in accounts.items()},
        "lossless": lossless,
        "byte_scale": scale,
    }


def _byte_scale(account: SplitAccount) -> float:
    require(
        account.nominal_bytes > 0 or account.bytes == 0,
        "corpus: the tokenizer knows no token of this text; give another, or leave it empty",
    )
    return account.bytes / account.nominal_bytes if account.nominal_bytes else 1.0
