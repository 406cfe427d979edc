"""What `nas train` writes in the end: the trained model, its card, and the check of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.models.bundle import plug_in_packages
from nas.models.directory import ModelDirectory
from nas.models.forms import added_parameters, as_transformers, save
from nas.models.probe import probe
from nas.models.verify import verify_export
from search_space.errors import WorkFailed
from search_space.secrets import redacted

if TYPE_CHECKING:
    from workers.model import LanguageModel


def write_model(
    folder: Path,
    model: LanguageModel,
    source: ModelDirectory,
    result: Mapping[str, Any],
    facts: Mapping[str, Any],
    verify: bool,
) -> None:
    """Write the model into an empty folder, in the form and with the tokenizer that it came with.

    model: whole, on the CPU.
    result: of the training. facts: corpus, seed and recipe.
    Raises WorkFailed where it cannot be written, or differs once it is read again.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    spec, backbone, native = source.spec, source.backbone, source.native
    written = as_transformers(model, spec, backbone, native, source.ends)
    probed = probe(model, spec, backbone, native, written.config.max_position_embeddings)
    try:
        save(folder, written, spec, backbone, native)
        source.copy_tokenizer(folder)
        (folder / "README.md").write_text(_card(source, result, facts), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise WorkFailed(
            f"the model could not be written to {folder.parent}: {error}; the training is kept: "
            "make room, and the same command writes it"
        ) from error
    if verify:
        verify_export(
            folder,
            probed,
            plug_in_packages(type(spec.selection)),
            parameters=result["parameters"] + added_parameters(spec, backbone, native),
        )


def _card(source: ModelDirectory, result: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """README.md of the trained model."""
    before, after = (
        f"{result[name]:.4f} ± {result[f'{name}_se']:.4f}"
        for name in ("bits_per_byte_before", "bits_per_byte")
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [ffn-nas]
---
# {source.spec.label}

Trained with `nas train` on `{redacted(facts["corpus"])}` (corpus {facts["corpus_hash"]}).

| | |
| --- | --- |
| bits per byte on its validation split, before | {before} |
| bits per byte on its validation split, after | {after} |
| training tokens | {result["tokens"]:,} |
| training FLOPs | {result["flops"]:.4g} |
| active FLOPs a token | {result["active_flops"]:.4g} |
| parameters | {result["parameters"]:,.0f} |
| seed | {facts["seed"]} |
| recipe | `{json.dumps(facts["recipe"])}` |
| design | `{json.dumps(source.spec.to_dict())}` |
| backbone | `{json.dumps(source.backbone.to_dict())}` |

The errors are standard errors over validation windows. `training/log.jsonl` has the curve.

{_CUSTOM if source.native is None else _NATIVE.format(source.native.words)}"""


_CUSTOM = """The Python files beside the weights are the code that trained them; they need torch and
transformers only.
"""
_NATIVE = """The model is transformers' own {}, with no code beside it.
"""
