"""A design that a study found, at another size: a model directory with weights yet to train."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.models.bundle import bundle_sources, methods_of, plug_in_packages
from nas.models.checkpoints import study_folder
from nas.models.export import _end_and_pad, _write_tokenizer
from nas.models.new_folder import check_target, new_folder
from nas.models.room import FLOAT, check_disk, check_memory
from nas.models.scale_card import scale_card
from nas.models.verify import probe_ids, verify_export
from nas.store import Store, StudyRecord, TrialRecord
from search_space.backbone import Backbone
from search_space.contract import TOKENIZER, Recipe
from search_space.cost import model_cost
from search_space.errors import InputError, WorkFailed, require
from search_space.scaling import enlarged, scaled
from search_space.spec import FFNSpec

SHARD = "2GB"  # of a weights file: a shard is copied once while it is written


@dataclass(frozen=True)
class Scaled:
    """A trial's design at another size.

    found: in words, where the design comes from.
    recipe: the study's.
    tokens: of the tokenizer; rows of the embedding beyond them are never read.
    """

    spec: FFNSpec
    backbone: Backbone
    found: str
    recipe: Recipe
    seed: int
    tokens: int

    @property
    def notes(self) -> list[str]:
        """What its user must know, a line each."""
        cost = model_cost(self.spec, self.backbone)
        lines = [
            f"initialised, not trained: {self.spec.label}, {cost.total_params:,.0f} parameters, "
            f"{cost.active_flops:.3g} active and {cost.training_flops:.3g} training FLOPs a token"
        ]
        unused = self.backbone.vocab_size - self.tokens
        if unused:
            lines.append(
                f"the tokenizer has {self.tokens:,} tokens: {unused:,} of the "
                f"{self.backbone.vocab_size:,} rows of the embedding are never read"
            )
        return lines


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
    with tempfile.TemporaryDirectory(prefix="ffn-nas-") as scratch:
        tokens, path, ends = _tokenizer(store, study, tokenizer, backbone.vocab_size, Path(scratch))
        recipe = Recipe.from_dict(study.config.get("recipe", {}))
        found = f"{study.name}, trial {trial.number}"
        made = Scaled(spec, backbone, found, recipe, seed, tokens)
        with new_folder(target) as draft:
            logits = _write(draft, made, path, ends)
            if verify:
                verify_export(draft, logits, plug_in_packages(type(spec.selection)))
    return made


def _write(folder: Path, made: Scaled, tokenizer: Path, ends: dict[str, int]) -> Any:
    """Write every file; return the model's logits on `probe_ids`. Its memory is free again then."""
    from safetensors import SafetensorError
    from transformers.utils import logging

    from workers.exported import drawn, probe_logits, wrapped

    logging.disable_progress_bar()
    spec, backbone = made.spec, made.backbone
    try:
        model = wrapped(drawn(spec, backbone, made.seed), spec, backbone, ends)
        model.save_pretrained(folder, max_shard_size=SHARD)
        for name, text in bundle_sources(*methods_of(spec, backbone)).items():
            (folder / name).write_text(text, encoding="utf-8")
        _write_tokenizer(folder, tokenizer, ends["eos_token_id"], ends["pad_token_id"])
        (folder / "README.md").write_text(scale_card(made), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WorkFailed(f"the export could not be written to {folder.parent}: {error}") from error
    except MemoryError:
        raise WorkFailed(f"{spec.label} does not fit this machine's memory") from None
    return probe_logits(model, probe_ids(backbone.vocab_size, backbone.seq_len))


def _tokenizer(
    store: Store, study: StudyRecord, name: str, vocab_size: int, scratch: Path
) -> tuple[int, Path, dict[str, int]]:
    """How many tokens the tokenizer has, its file, and the ids of end of text and padding."""
    from workers.exported import fitting_tokenizer

    if name:
        text, tokens, eos_id, pad_id = fitting_tokenizer(name, vocab_size)
        path = scratch / TOKENIZER
        path.write_text(text, encoding="utf-8")
        return tokens, path, {"eos_token_id": eos_id, "pad_token_id": pad_id}
    places = (study_folder(study, store), Path(study.facts.corpus_dir or "."))
    path = next((p / TOKENIZER for p in places if (p / TOKENIZER).is_file()), places[0] / TOKENIZER)
    if not path.is_file():
        raise InputError(
            f"the tokenizer of {study.name!r} is gone: {path}; give one with --tokenizer"
        )
    eos_id, pad_id = _end_and_pad(study)
    _, tokens, _, _ = fitting_tokenizer(str(path), vocab_size)
    require(eos_id < vocab_size, f"vocab_size {vocab_size} has no end of text: its id is {eos_id}")
    return tokens, path, {"eos_token_id": eos_id, "pad_token_id": pad_id}
