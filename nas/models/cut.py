"""A model that was cut from a pretrained one, as a directory that transformers loads.

Its family's class with a design's FFNs, `workers.hf_cut`, is remote code like any design's. Where
all FFNs are dense it is the family's own class again, and where a class has such experts around the
same attention it is that one, without any.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from nas.models.bundle import ROOTS, bundle_sources, methods_of
from nas.models.checkpoints import Checkpoint
from nas.models.custom import SHARD
from nas.models.tokenizer import ALONE
from search_space.backbone import Backbone
from search_space.contract import BASE_CONFIG
from search_space.errors import InputError
from search_space.native import NativeForm
from search_space.plain import read_json
from search_space.routing import EVERY_EXPERT
from search_space.spec import FFNSpec

ROOT = "workers.hf_cut"


def load_cut(checkpoint: Checkpoint) -> Any:
    """The trained `PretrainedLM`, in evaluation mode. Its base is not needed: its configuration
    lies beside the weights. Raises InputError where the files are not those of such a model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from workers.pretrained.model import PretrainedLM, cut_ffns, put_in

    backbone, spec = Backbone.from_dict(checkpoint.backbone), FFNSpec.from_dict(checkpoint.spec)
    assert backbone.base is not None
    data = read_json(checkpoint.weights.with_name(BASE_CONFIG))
    try:
        lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(**data))
        put_in(lm, cut_ffns(spec, backbone))
        model = PretrainedLM(lm, backbone).eval()
        load_model(model, str(checkpoint.weights))
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{checkpoint.weights} does not hold the weights of this design: {error}"
        ) from None
    return model


def cut_model(model: Any, spec: FFNSpec, native: NativeForm | None) -> Any:
    """The transformers model of a `PretrainedLM`.

    native: the class without code that it is to be of; None for its family's with code.
    """
    from workers.pretrained.plain import as_dense, as_routed

    if native is None:
        return _exported(model, spec)
    return as_dense(model) if native.routing == EVERY_EXPERT else as_routed(model, spec, native)


def write_cut(folder: Path, model: Any, spec: FFNSpec, backbone: Backbone) -> None:
    """Weights, configuration and code of a cut model that needs some."""
    model.save_pretrained(folder, max_shard_size=SHARD)
    for name, text in bundle_sources(*methods_of(spec, backbone), root=ROOT).items():
        (folder / name).write_text(text, encoding="utf-8")


def _exported(model: Any, spec: FFNSpec) -> Any:
    from workers.hf_cut import CLASSES
    from workers.pretrained.plain import OWN_KEYS

    base = model.backbone.base
    # Where the base lay is of no use elsewhere.
    named = dataclasses.replace(base, model=Path(base.model).name)
    backbone = dataclasses.replace(model.backbone, base=named)
    config_class, model_class = CLASSES[base.family]
    data = {k: v for k, v in model.lm.config.to_dict().items() if k not in OWN_KEYS}
    ffn = {"spec": spec.to_dict(), "backbone": backbone.to_dict()}
    config = config_class(**data, ffn=ffn)
    config.auto_map = {
        "AutoConfig": f"{ROOTS[ROOT]}.{config_class.__name__}",
        "AutoModelForCausalLM": f"{ROOTS[ROOT]}.{model_class.__name__}",
    }
    exported = model_class(config).eval()
    exported.load_state_dict(model.lm.state_dict())
    exported.generation_config = model.lm.generation_config
    return exported


def copy_tokenizer(base: str, folder: Path) -> bool:
    """The base's own tokenizer, with its templates and padding; whether it could be had."""
    from transformers import AutoTokenizer

    try:
        own = AutoTokenizer.from_pretrained(base)
    except (OSError, ValueError):
        return False
    own.save_pretrained(folder)
    own.save_pretrained(folder / ALONE)
    return True
