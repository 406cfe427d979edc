"""A trial's checkpoint on disk: the weights, and a manifest that says whose they are.

    nas-runs/NAME-UID/            the study's folder
      tokenizer.json              the corpus's tokenizer, which every export needs
      trial-3/
        model.safetensors
        trial.json                the manifest

Nothing is ever overwritten: a checkpoint is written beside its place and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from safetensors.torch import save_model

from search_space.contract import (
    BASE_CONFIG,
    MANIFEST,
    MANIFEST_FORMAT,
    TOKENIZER,
    WEIGHTS,
    EvalRequest,
)
from workers.corpus import Corpus
from workers.corpus.seal import file_digest
from workers.model import LanguageModel
from workers.pretrained.model import PretrainedLM


def save_checkpoint(model: LanguageModel, request: EvalRequest, corpus: Corpus) -> tuple[str, str]:
    """Write `request.checkpoint_dir`; returns its name in the study's folder and its digest.

    The digest is the SHA-256 of the manifest, which has those of the weights and the tokenizer.
    Returns two empty texts when no checkpoint was asked for. Raises FileExistsError where there is
    one already, OSError when it cannot be written; nothing is left behind then.
    """
    if not request.checkpoint_dir:
        return "", ""
    place = Path(request.checkpoint_dir)
    place.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(place):
        raise FileExistsError(f"a checkpoint is never overwritten: {place} exists")
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        save_model(model, str(draft / WEIGHTS))
        if isinstance(model, PretrainedLM):
            text = model.lm.config.to_json_string(use_diff=False)
            (draft / BASE_CONFIG).write_text(text, encoding="utf-8")
        files = {path.name: file_digest(path) for path in sorted(draft.iterdir())}
        files[TOKENIZER] = keep_tokenizer(corpus, place.parent)
        level = {"train_flops": request.until_flops, "rung": request.rung}
        manifest = {"format": MANIFEST_FORMAT} | request.identity() | level | {"files": files}
        text = json.dumps(manifest, indent=2) + "\n"
        (draft / MANIFEST).write_text(text, encoding="utf-8")
        _sync(*sorted(draft.iterdir()), draft)
        draft.chmod(0o755)
        draft.rename(place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place.name, hashlib.sha256(text.encode()).hexdigest()


def keep_tokenizer(corpus: Corpus, folder: Path) -> str:
    """Put the corpus's tokenizer into the study's folder, where it is not yet; its SHA-256.

    Raises FileExistsError where the study has another one.
    """
    place = folder / TOKENIZER
    if not place.exists():
        descriptor, draft = tempfile.mkstemp(prefix=f".{TOKENIZER}-", dir=folder)
        os.close(descriptor)
        try:
            shutil.copyfile(corpus.tokenizer_path, draft)
            os.chmod(draft, 0o644)
            os.replace(draft, place)  # two workers may be first: they write the same
        finally:
            Path(draft).unlink(missing_ok=True)
    digest = file_digest(place)
    if digest != file_digest(corpus.tokenizer_path):
        raise FileExistsError(f"{place} is another corpus's tokenizer")
    return digest


def _sync(*paths: Path) -> None:
    # Renamed before its bytes are on the disk, a checkpoint could survive a power cut empty.
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
