"""A finished trial as a directory that transformers loads without this project.

The weights are safetensors, the tokenizer is the corpus's, and the code is the very code that
trained: `workers.hf` and all it imports from this project, flattened into modules beside the
config and loaded with `trust_remote_code=True`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.models.bundle import plug_in_packages
from nas.models.card import model_card
from nas.models.checkpoints import Checkpoint
from nas.models.custom import new_model, write_model
from nas.models.new_folder import new_folder
from nas.models.tokenizer import with_padding, write_tokenizer
from nas.models.verify import probe_ids, verify_export
from nas.store import StudyRecord, TrialRecord
from search_space.errors import InputError, WorkFailed


def export_trial(
    checkpoint: Checkpoint,
    study: StudyRecord,
    trial: TrialRecord,
    folder: str | Path,
    *,
    verify: bool = True,
) -> Path:
    """Write the trial's model to a new or empty `folder`; nothing is left there on failure.

    checkpoint: of the trial, from `find_checkpoint`.
    verify: load it in a fresh process without this project and compare logits and generation.
    Raises InputError for a folder that cannot be used or a checkpoint that is no model, WorkFailed
    when the model cannot be written or differs from the proxy.
    """
    target = Path(folder)
    with new_folder(target) as draft:
        logits = _write(draft, checkpoint, study, trial)
        if verify:
            verify_export(draft, logits, plug_in_packages(type(trial.spec.selection)))
    return target


def _write(folder: Path, checkpoint: Checkpoint, study: StudyRecord, trial: TrialRecord) -> Any:
    """Write every file; return the proxy's own logits on `probe_ids`."""
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    eos_id = end_of_text(study)
    text = checkpoint.tokenizer.read_text(encoding="utf-8")
    text, pad_id = with_padding(text, eos_id, study.facts.corpus.pad_id)
    model = _load(checkpoint, {"eos_token_id": eos_id, "pad_token_id": pad_id})
    config = model.config
    try:
        write_model(folder, model)
        write_tokenizer(folder, text, eos_id, pad_id, config.max_position_embeddings)
        (folder / "README.md").write_text(model_card(checkpoint, study, trial), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WorkFailed(f"the export could not be written to {folder.parent}: {error}") from error
    ids = torch.tensor([probe_ids(config.vocab_size, config.max_position_embeddings)])
    proxy = model.model.proxy
    with torch.no_grad():
        return proxy.logits(proxy(ids).hidden_NLD)[0]


def _load(checkpoint: Checkpoint, ends: dict[str, int]) -> Any:
    """The trained proxy as a transformers model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    model = new_model(checkpoint.spec, checkpoint.backbone, ends)
    try:
        load_model(model.model.proxy, str(checkpoint.weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint.weights} does not hold the weights of this design: {error}"
        ) from None
    return model


def end_of_text(study: StudyRecord) -> int:
    """The id of end-of-text."""
    eos_id = study.facts.corpus.eos_id
    if eos_id is None:
        raise InputError(
            f"an export needs the id of its tokenizer's end of text: study {study.name!r} has none "
            "stored; launch the study again under a new name"
        )
    return eos_id
