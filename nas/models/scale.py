"""A design that a study found, at another size: a model directory with weights yet to train."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.models.bundle import plug_in_packages
from nas.models.checkpoints import study_folder
from nas.models.custom import new_model, write_model
from nas.models.export import end_of_text
from nas.models.new_folder import check_target, new_folder
from nas.models.probe import Probe, probe
from nas.models.room import FLOAT, check_disk, check_memory
from nas.models.scale_card import scale_card
from nas.models.scaled import Scaled
from nas.models.tokenizer import with_padding, write_tokenizer
from nas.models.verify import verify_export
from nas.store import Store, StudyRecord, TrialRecord
from search_space.backbone import Backbone
from search_space.contract import TOKENIZER, Recipe
from search_space.cost import model_cost
from search_space.errors import InputError, WorkFailed
from search_space.scaling import enlarged, scaled


def export_scaled(
    store: Store,
    study: StudyRecord,
    trial: TrialRecord,
    changes: Mapping[str, Any],
    folder: str | Path,
    *,
    tokenizer: str = "",
    seed: int = 0,
    verify: bool = True,
) -> Scaled:
    """Write the trial's design at another size to a new or empty `folder`, freshly initialised.

    changes: fields of the study's backbone, with their new values.
    tokenizer: a tokenizer.json, a folder that holds one, or a model id on the Hub; the study's
        without one.
    seed: of the initial weights, which are drawn as a study draws them.
    verify: load it in a fresh process without this project and compare logits and generation.
    Raises InputError for a size or a tokenizer that does not fit, and where disk or memory have no
    room; WorkFailed when it cannot be written. Nothing is left in `folder` then.
    """
    target = Path(folder)
    check_target(target)
    old = Backbone.from_dict(study.config.get("backbone", {}))
    backbone = enlarged(old, changes)
    spec = scaled(trial.spec, old, backbone)
    bytes_needed = FLOAT * model_cost(spec, backbone).total_params
    what = f"{spec.label} at d_model {backbone.d_model}"
    check_disk(target, bytes_needed, what)
    check_memory(bytes_needed, what)
    tokens, text, ends = _tokenizer(store, study, tokenizer, backbone.vocab_size)
    recipe = Recipe.from_dict(study.config.get("recipe", {}))
    made = Scaled(spec, backbone, f"{study.name}, trial {trial.number}", recipe, seed, tokens)
    with new_folder(target) as draft:
        probed = _write(draft, made, text, ends)
        if verify:
            verify_export(draft, probed, plug_in_packages(type(spec.selection)))
    return made


def _write(folder: Path, made: Scaled, tokenizer: str, ends: dict[str, int]) -> Probe:
    """Write every file; return what the model says. Its memory is free again then."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    from workers.exported import drawn

    logging.disable_progress_bar()
    spec, backbone = made.spec, made.backbone
    try:
        proxy = drawn(spec, backbone, made.seed)
        model = new_model(spec.to_dict(), backbone.to_dict(), ends, proxy)
        write_model(folder, model)
        eos_id, pad_id = ends["eos_token_id"], ends["pad_token_id"]
        write_tokenizer(folder, tokenizer, eos_id, pad_id, backbone.seq_len)
        (folder / "README.md").write_text(scale_card(made), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WorkFailed(f"the export could not be written to {folder.parent}: {error}") from error
    except MemoryError:
        raise WorkFailed(f"{spec.label} does not fit this machine's memory") from None
    return probe(proxy, spec, backbone, None, backbone.seq_len)


def _tokenizer(
    store: Store, study: StudyRecord, name: str, vocab_size: int
) -> tuple[int, str, dict[str, int]]:
    """How many tokens the tokenizer has, its JSON with padding, and the ids of end of text and
    padding."""
    from workers.exported import fitting_tokenizer

    if name:
        text, tokens, eos_id, own_pad = fitting_tokenizer(name, vocab_size)
    else:
        path = _own_tokenizer(store, study)
        text, tokens, _, _ = fitting_tokenizer(str(path), vocab_size)
        eos_id, own_pad = end_of_text(study), study.facts.corpus.pad_id
    text, pad_id = with_padding(text, eos_id, own_pad)
    return tokens, text, {"eos_token_id": eos_id, "pad_token_id": pad_id}


def _own_tokenizer(store: Store, study: StudyRecord) -> Path:
    places = (study_folder(study, store), Path(study.facts.corpus_dir or "."))
    found = next((p / TOKENIZER for p in places if (p / TOKENIZER).is_file()), None)
    if found is None:
        raise InputError(
            f"the tokenizer of {study.name!r} is gone: {places[0] / TOKENIZER}; give one with "
            "--tokenizer"
        )
    return found
