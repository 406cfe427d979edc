"""A finished trial as a directory that transformers loads without this project.

The weights are safetensors, and the tokenizer is the corpus's. Where a class of transformers
computes the same, the model is of that class. Else the code is the very code that trained:
`workers.hf` and all it imports from this project, flattened into modules beside the config and
loaded with `trust_remote_code=True`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.models.bundle import plug_in_packages
from nas.models.card import model_card
from nas.models.checkpoints import Checkpoint
from nas.models.custom import new_model, write_model
from nas.models.cut import copy_tokenizer, load_cut, write_cut
from nas.models.native import native_model, save_native
from nas.models.new_folder import new_folder
from nas.models.tokenizer import with_padding, write_tokenizer
from nas.models.verify import probe_ids, verify_export
from nas.store import StudyRecord, TrialRecord
from search_space.backbone import Backbone
from search_space.errors import InputError, WorkFailed
from search_space.native import Form, NativeForm, NoForm, native_form
from search_space.spec import FFNSpec


def export_trial(
    checkpoint: Checkpoint,
    study: StudyRecord,
    trial: TrialRecord,
    folder: str | Path,
    *,
    form: Form = "auto",
    verify: bool = True,
) -> Path:
    """Write the trial's model to a new or empty `folder`; nothing is left there on failure.

    checkpoint: of the trial, from `find_checkpoint`.
    form: as `export_form` takes it.
    verify: load it in a fresh process without this project and compare logits and generation.
    Raises InputError for a folder that cannot be used, a checkpoint that is no model or a native
    form that does not exist, WorkFailed when the model cannot be written or differs from the proxy.
    """
    target = Path(folder)
    native = export_form(trial.spec, Backbone.from_dict(checkpoint.backbone), form)
    with new_folder(target) as draft:
        logits = _write(draft, checkpoint, study, trial, native)
        if verify:
            verify_export(draft, logits, plug_in_packages(type(trial.spec.selection)))
    return target


def export_form(spec: FFNSpec, backbone: Backbone, form: Form) -> NativeForm | None:
    """The class that an export of a model of `spec` and `backbone` has; None for custom code.

    form: `custom`, `native`, or `auto`: native where there is one.
    Raises InputError for `native` where no class computes the same, with the nearest design of
    which one does.
    """
    found = None if form == "custom" else native_form(spec, backbone)
    if not isinstance(found, NoForm):
        return found
    if form == "auto":
        return None
    raise InputError(
        f"a native export needs a class of transformers that computes the same, and {spec.label} "
        f"has none: {found.why}; the nearest design that has one is {found.nearest.label}; "
        "use --form custom"
    )


def form_line(spec: FFNSpec, backbone: Backbone, form: Form) -> str:
    """What an export in that form is, in a line, and who takes it."""
    native = export_form(spec, backbone, form)
    if native is not None:
        engines = "vLLM and llama.cpp's converter" if native.llama_cpp else "vLLM"
        return f"native form: {native.words}; it loads without code, in {engines}, too"
    reason = "" if form == "custom" else f"; native form: {native_form(spec, backbone).words}"
    return f"custom code: it loads with trust_remote_code=True{reason}"


def _write(
    folder: Path,
    checkpoint: Checkpoint,
    study: StudyRecord,
    trial: TrialRecord,
    native: NativeForm | None,
) -> Any:
    """Write every file; return the proxy's own logits on `probe_ids`."""
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    eos_id = end_of_text(study)
    text = checkpoint.tokenizer.read_text(encoding="utf-8")
    text, pad_id = with_padding(text, eos_id, study.facts.corpus.pad_id)
    ends = {"eos_token_id": eos_id, "pad_token_id": pad_id}
    backbone = Backbone.from_dict(checkpoint.backbone)
    try:
        if backbone.base is not None:
            proxy = load_cut(checkpoint)
            config = proxy.lm.config
            write_cut(folder, proxy, trial.spec, plain=native is not None)
        else:
            model = _load(checkpoint, ends)
            config, proxy = model.config, model.model.proxy
            if native is None:
                write_model(folder, model)
            else:
                save_native(native_model(proxy, trial.spec, backbone, native, ends), folder)
        if backbone.base is None or not copy_tokenizer(backbone.base.model, folder):
            write_tokenizer(folder, text, eos_id, pad_id, config.max_position_embeddings)
        card = model_card(checkpoint, study, trial, native)
        (folder / "README.md").write_text(card, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WorkFailed(f"the export could not be written to {folder.parent}: {error}") from error
    ids = torch.tensor([probe_ids(config.vocab_size, config.max_position_embeddings)])
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
