"""A finished trial as a directory that transformers loads without this project.

The weights are safetensors, and the tokenizer is the corpus's. Where a class of transformers
computes the same, the model is of that class. Else the code is the very code that trained:
`workers.hf` and all it imports from this project, flattened into modules beside the config and
loaded with `trust_remote_code=True`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nas.models.bundle import plug_in_packages
from nas.models.card import PICTURE, model_card
from nas.models.checkpoints import Checkpoint
from nas.models.cut import copy_tokenizer, load_cut
from nas.models.forms import added_parameters, as_transformers, save
from nas.models.found import Found, alone
from nas.models.new_folder import new_folder
from nas.models.picture import frontier_svg
from nas.models.probe import Probe, probe
from nas.models.tokenizer import with_padding, write_tokenizer
from nas.models.verify import verify_export
from nas.models.windows import windows_of
from nas.store import StudyRecord, TrialRecord
from search_space.backbone import Backbone
from search_space.errors import InputError, WorkFailed
from search_space.native import DType, Form, NativeForm, NoForm, native_form
from search_space.spec import FFNSpec


def export_trial(
    checkpoint: Checkpoint,
    study: StudyRecord,
    trial: TrialRecord,
    folder: str | Path,
    *,
    known: Found | None = None,
    form: Form = "auto",
    dtype: DType = "float32",
    verify: bool = True,
) -> Path:
    """Write the trial's model to a new or empty `folder`; nothing is left there on failure.

    checkpoint: of the trial, from `find_checkpoint`.
    known: what the study found of it, from `nas.models.found`; without it the card and the check
        know the trial alone.
    form: as `export_form` takes it.
    dtype: of the weights; routers' states stay in float32.
    verify: load it in a fresh process without this project, and compare logits, generation,
        parameters, FLOPs and, where the corpus is at hand, the loss on validation windows with the
        run's.
    Raises InputError for a folder that cannot be used, a checkpoint that is no model or a native
    form that does not exist, WorkFailed when the model cannot be written or differs from the proxy.
    """
    target, known = Path(folder), known or alone(study, trial)
    backbone = Backbone.from_dict(checkpoint.backbone)
    native = export_form(trial.spec, backbone, form)
    with new_folder(target) as draft:
        probed = _write(draft, checkpoint, study, trial, native, dtype)
        checked = None
        if verify:
            checked = verify_export(
                draft,
                probed,
                plug_in_packages(type(trial.spec.selection)),
                windows=windows_of(study, known.run),
                parameters=trial.cost["total_params"]
                + added_parameters(trial.spec, backbone, native),
            )
        title = f"{study.name}: quality against cost"
        texts = {
            "README.md": model_card(checkpoint, study, trial, native, known, checked),
            PICTURE: frontier_svg(known.points, trial.number, title),
        }
        for name, text in texts.items():
            with _written(target):
                (draft / name).write_text(text, encoding="utf-8")
    return target


@contextmanager
def _written(target: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        raise WorkFailed(f"the export could not be written to {target.parent}: {error}") from error


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
    dtype: DType,
) -> Probe:
    """Write the model and its tokenizer; return what the proxy itself says."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    eos_id = end_of_text(study)
    text = checkpoint.tokenizer.read_text(encoding="utf-8")
    text, pad_id = with_padding(text, eos_id, study.facts.corpus.pad_id)
    ends = {"eos_token_id": eos_id, "pad_token_id": pad_id}
    backbone = Backbone.from_dict(checkpoint.backbone)
    model = load_cut(checkpoint) if backbone.foreign is not None else _load(checkpoint)
    written = as_transformers(model, trial.spec, backbone, native, ends)
    length = written.config.max_position_embeddings
    probed = probe(model, trial.spec, backbone, native, length)
    with _written(folder.parent):
        save(folder, written.to(getattr(torch, dtype)), trial.spec, backbone, native)
        if backbone.foreign is None or not copy_tokenizer(backbone.foreign.model, folder):
            write_tokenizer(folder, text, eos_id, pad_id, length)
    return probed


def _load(checkpoint: Checkpoint) -> Any:
    """The trained proxy, in evaluation mode."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    from workers.model import ProxyLM

    proxy = ProxyLM(
        FFNSpec.from_dict(checkpoint.spec), Backbone.from_dict(checkpoint.backbone)
    ).eval()
    try:
        load_model(proxy, str(checkpoint.weights))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint.weights} does not hold the weights of this design: {error}"
        ) from None
    return proxy


def end_of_text(study: StudyRecord) -> int:
    """The id of end-of-text."""
    eos_id = study.facts.corpus.eos_id
    if eos_id is None:
        raise InputError(
            f"an export needs the id of its tokenizer's end of text: study {study.name!r} has none "
            "stored; launch the study again under a new name"
        )
    return eos_id
