"""`prepare`: a CorpusSpec -> a Corpus in the cache, named by the hash of all that decides it."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from search_space.corpus import CorpusSpec
from search_space.errors import WorkFailed, require
from workers.corpus.account import Account
from workers.corpus.documents import read_documents
from workers.corpus.draft import draft
from workers.corpus.encode import SplitAccount, token_dtype, write_split
from workers.corpus.files import SourceFile, list_files
from workers.corpus.given import GivenTokenizer, Specials, load_given, read_tokenizer, unknown_id
from workers.corpus.hub import HubUnreachable, resolve_commit
from workers.corpus.reasons import reason
from workers.corpus.seal import META, fault, measure, read_sealed, write_sealed
from workers.corpus.split import SPLITS, deal
from workers.corpus.stream import Corpus
from workers.corpus.tokenizer import check_vocab_size, token_bytes, train_bpe

log = logging.getLogger(__name__)

# Part of the hash: raise it when the same source would now give another corpus.
FORMAT = 2
# Of a split's bytes, unknown to its tokenizer: what they are is told to nobody and costs nothing.
MOST_UNKNOWN = 0.01


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


def prepare(spec: CorpusSpec, vocab_size: int, seq_len: int, cache_dir: str | Path) -> Corpus:
    """Make the corpus of `spec`, or find it in `cache_dir` when it was made before.

    One that is found is checked against its checksums, and made anew when it is damaged. The text
    is held in memory while it is prepared. Several processes may prepare one corpus at once: each
    writes a folder of its own, and the first to finish gives it its name.

    vocab_size: the backbone's; a trained BPE has at most as many tokens, a given one must fit.
    seq_len: every split must hold one sequence of it.
    Raises InputError for whatever is wrong with the source, the tokenizer or the amount of text,
    WorkFailed when the cache cannot be written.
    """
    cache = Path(cache_dir).expanduser()
    account = Account()
    if not spec.tokenizer:
        check_vocab_size(vocab_size)
    files = () if spec.is_hub else tuple(list_files(spec, account))
    notes = account.notes
    try:
        plan = _plan(spec, vocab_size, files, cache)
        folder = cache / plan.hash
    except HubUnreachable as error:
        made_before = _made_before(spec, vocab_size, files, cache)
        if made_before is None:
            raise
        notes = [f"{error}; using the corpus prepared before", *notes]
        folder = made_before
    else:
        wrong = _fault(folder)
        if wrong and os.path.lexists(folder):
            log.warning("the prepared corpus %r is damaged: %s; making it anew", str(folder), wrong)
        if wrong:
            _build(plan, folder)
    corpus = Corpus.open(folder)
    # What the cache holds may have been made from another folder with the same files.
    corpus.meta["source"] = spec.source
    corpus.meta["dropped"] = account.dropped | corpus.meta["dropped"]
    corpus.meta["notes"] = notes + corpus.meta["notes"]
    corpus.require_sequences(seq_len)
    return corpus


def _fault(folder: Path) -> str:
    """As `seal.fault`; a whole corpus under another one's name is none either."""
    wrong = fault(folder)
    meta = read_sealed(folder / META)
    return wrong or ("" if meta and meta["hash"] == folder.name else "it is another corpus")


def _plan(spec: CorpusSpec, vocab_size: int, files: tuple[SourceFile, ...], cache: Path) -> _Plan:
    return _Plan(
        spec=spec,
        vocab_size=vocab_size,
        files=files,
        commit=resolve_commit(spec.hub_id, spec.revision, "dataset") if spec.is_hub else "",
        tokenizer=read_tokenizer(spec.tokenizer, cache) if spec.tokenizer else None,
    )


def _files_digest(files: tuple[SourceFile, ...]) -> str:
    """Names what the files hold, in their order; not where they lie."""
    held = [[file.format, file.digest] for file in files]
    return hashlib.sha256(json.dumps(held).encode()).hexdigest()


def _made_before(
    spec: CorpusSpec, vocab_size: int, files: tuple[SourceFile, ...], cache: Path
) -> Path | None:
    """The newest corpus of the same request and files, when the Hub cannot say what is newest."""
    request = {"corpus": spec.to_dict(), "vocab_size": vocab_size}
    wanted = (request, _files_digest(files))
    found = [
        path
        for path in cache.glob(f"[0-9a-f]*/{META}")
        if (meta := read_sealed(path))
        # A Hub dataset that was prepared before the files were noted has none.
        and (meta.get("request"), meta.get("files", _files_digest(()))) == wanted
        and not _fault(path.parent)
    ]
    return max(found, key=lambda path: path.stat().st_mtime).parent if found else None


def _build(plan: _Plan, folder: Path) -> None:
    """Write the corpus beside `folder` and rename it, so that `folder` is whole or absent."""
    cache = folder.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with draft(folder, lambda path: not _fault(path)) as partial:
            _write(plan, partial, cache)
    except OSError as error:
        # What fails while the source is read is an InputError by now: this is the cache.
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise WorkFailed(
            f"the corpus cache {str(cache)!r} cannot be written: {reason(error)}; "
            + ("free some space, or " if full else "")
            + "set FFN_NAS_CACHE to a folder "
            + ("with more" if full else "that can be")
        ) from error


def _write(plan: _Plan, partial: Path, cache: Path) -> None:
    spec, account = plan.spec, Account()
    documents = list(read_documents(spec, plan.files, plan.commit, cache, account))
    told = f" ({'; '.join(account.notes)})" if account.dropped else ""
    require(
        bool(documents), f"corpus: source {spec.source!r} holds no text{told}; give another source"
    )
    splits, unit = deal(documents, spec.validation, spec.test)
    for name in SPLITS:
        require(
            bool(splits[name]),
            f"corpus: no {unit} of {spec.source!r} fits the {name} split: give more text"
            + (f" or a larger {name} share" if name != "train" else ""),
        )

    if plan.tokenizer is None:
        tokenizer, specials = train_bpe(splits["train"], plan.vocab_size), Specials(eos_id=0)
    else:
        tokenizer, specials = load_given(plan.tokenizer, plan.vocab_size)
    # Not by the tokenizer's own save: its errors do not say which file, nor why.
    (partial / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), encoding="utf-8")

    splits_written = _encode(plan, partial, splits, tokenizer, specials, account)
    meta = _meta(plan, splits_written) | {
        **asdict(specials),
        "split_unit": unit,
        "source_documents": len(documents),
        "replaced_documents": sum("\ufffd" in document for document in documents),
        "dropped": account.dropped,
        "notes": account.notes,
        "parts": measure(partial),
    }
    write_sealed(partial / META, meta)


def _encode(
    plan: _Plan,
    partial: Path,
    splits: dict[str, list[str]],
    tokenizer: Tokenizer,
    specials: Specials,
    account: Account,
) -> dict[str, SplitAccount]:
    """Write every split and the tables of its tokens."""
    unknown = unknown_id(tokenizer)
    token_bytes_V = token_bytes(tokenizer, plan.vocab_size, specials.eos_id)
    if unknown is not None:
        token_bytes_V[unknown] = 0
    written = {
        s: write_split(partial, s, splits[s], tokenizer, specials.eos_id, token_bytes_V, unknown)
        for s in SPLITS
    }
    if plan.tokenizer is None and any(a.inexact for a in written.values()):
        raise RuntimeError("a byte-level BPE lost text: its tokens' bytes do not sum to the text's")
    train = written["train"]
    require(
        train.tokens - train.documents > train.unknown,
        "corpus: the tokenizer knows no token of this text; give another, or leave it empty",
    )
    for split, own in written.items():
        require(
            own.unknown_share <= MOST_UNKNOWN,
            f"corpus: a tokenizer must know {1 - MOST_UNKNOWN:.0%} of the text, or bits per byte "
            f"leave out the rest: this one does not know {own.unknown_share:.1%} of the {split} "
            "split's bytes; give another, or leave it empty",
        )
    account.add("unknown_tokens", sum(a.unknown for a in written.values()))
    account.add("inexact_documents", sum(a.inexact for a in written.values()))
    train_T = np.fromfile(partial / "train.bin", dtype=token_dtype(plan.vocab_size))
    np.save(partial / "token_bytes.npy", token_bytes_V)
    np.save(partial / "token_counts.npy", np.bincount(train_T, minlength=plan.vocab_size))
    return written


def _meta(plan: _Plan, accounts: dict[str, SplitAccount]) -> dict[str, Any]:
    # A tokenizer that drops text would look better than it is: its bytes are scaled to the true.
    lossless = not any(a.inexact for a in accounts.values())
    scale = {s: 1.0 if lossless else _byte_scale(a) for s, a in accounts.items()}
    return {
        "hash": plan.hash,
        "request": plan.request,
        "files": _files_digest(plan.files),
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
    # What is unknown is predicted without a word of what it is: its bytes do not count.
    known = account.bytes - account.unknown_bytes
    return known / account.nominal_bytes if account.nominal_bytes else 1.0
