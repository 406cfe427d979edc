"""The forms of a model directory: what is written of a trained model in each.

A proxy or a cut model, as a class of transformers without code, or with the code that trained it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.models import custom
from nas.models.cut import cut_model, write_cut
from nas.models.native import native_model, save_native
from search_space.backbone import Backbone
from search_space.native import NativeForm
from search_space.spec import FFNSpec

if TYPE_CHECKING:
    from workers.model import LanguageModel

# In a config.json without code: the design and the backbone, which `nas train` wants to know.
DESIGN = "ffn_nas"


def as_transformers(
    model: LanguageModel,
    spec: FFNSpec,
    backbone: Backbone,
    native: NativeForm | None,
    ends: dict[str, int],
) -> Any:
    """The transformers model with the function of a trained one, in evaluation mode.

    model: of `spec` and `backbone`, whole, on the CPU; it may lend its tensors.
    native: its class; None for custom code.
    ends: `eos_token_id` and `pad_token_id`; a cut model has its base's.
    Raises InputError for a base with attention that the class has not.
    """
    if backbone.foreign is not None:
        written = cut_model(model, spec, native)
    elif native is None:
        return custom.new_model(spec.to_dict(), portable(backbone), ends, model)
    else:
        written = native_model(model, spec, backbone, native, ends)
    if native is not None:
        setattr(written.config, DESIGN, {"spec": spec.to_dict(), "backbone": portable(backbone)})
    return written


def save(
    folder: Path, written: Any, spec: FFNSpec, backbone: Backbone, native: NativeForm | None
) -> None:
    """Weights and configuration of what `as_transformers` made, and the code of what needs some."""
    if native is not None:
        save_native(written, folder)
    elif backbone.foreign is not None:
        write_cut(folder, written, spec, backbone)
    else:
        custom.write_model(folder, written)


def portable(backbone: Backbone) -> dict[str, Any]:
    """A backbone as plain data, without where its base lay, which is of no use elsewhere."""
    base = backbone.base
    if base is not None:
        base = dataclasses.replace(base, model=Path(base.model).name)
    return dataclasses.replace(backbone, base=base).to_dict()


def added_parameters(spec: FFNSpec, backbone: Backbone, native: NativeForm | None) -> int:
    """That a class of transformers has beside the design's: a head of its own beside the table, and
    a shared expert that the design has not, with its gate."""
    if native is None:
        return 0
    zeros = 3 * native.zero_units * backbone.d_model * backbone.n_layers
    if backbone.foreign is None:
        return zeros + backbone.vocab_size * backbone.d_model
    gates = backbone.d_model * backbone.n_layers if native.zero_units else 0
    return zeros + gates
