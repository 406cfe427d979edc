"""A model directory of any form as the model that trains: the way back from `nas.models.forms`.

A native form is read into our own layers, which compute the same and have the losses, biases and
rates of the design. That it is the same is checked: what was read is written again, and its tensors
are compared with those of the files. A class that other tools have trained is none of ours any
more, for their table and head, or their router, have gone ways of their own.

B experts, G units of an expert, D model width, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nas.models.cut import cut_model
from nas.models.native import tensors_of
from search_space.errors import InputError, require
from search_space.native import DENSE, NativeForm

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from nas.models.directory import ModelDirectory
    from workers.model import LanguageModel, ProxyLM

# How far a tensor that is written again may be from its file's, as a share of its largest value: by
# rounding in float32, and where the file has 8 bits of each.
_EXACT, _HALF = 1e-5, 2e-2
_WAY_OUT = "it is damaged or of another version: export it again"


def reopened(source: ModelDirectory) -> LanguageModel:
    """The model of a directory with its weights, in float32 on the CPU.

    Raises InputError where the files do not hold it.
    """
    from workers.exported import load_proxy

    backbone, native = source.backbone, source.native
    if native is None and backbone.foreign is None:
        return load_proxy(source.weights, source.spec, backbone)
    with _reading(source.folder):
        if native is None:
            return _cut(source)
        model: LanguageModel
        lm = _load(_class_of(native), source.folder)
        half = _HALF if _stored_in_half(source.folder) else _EXACT
        # What is read may take the place of what is there.
        stored = {name: tensor.clone() for name, tensor in lm.state_dict().items()}
        if backbone.foreign is None:
            model = _proxy(source, stored, native)
            again = tensors_of(model, native)
        else:
            from workers.pretrained.plain import from_plain

            model = from_plain(lm, source.spec, backbone, native)
            again = cut_model(model, source.spec, native).state_dict()
        _check_same(source.folder, stored, again, half)
        return model


def _cut(source: ModelDirectory) -> LanguageModel:
    """A cut model with code beside it; of the code here, none of the directory is run."""
    from workers.hf_cut import CLASSES
    from workers.pretrained.model import PretrainedLM

    base = source.backbone.foreign
    assert base is not None
    return PretrainedLM(_load(CLASSES[base.family][1], source.folder), source.backbone)


def _class_of(native: NativeForm) -> Any:
    import transformers

    return getattr(transformers, native.architecture)


def _load(cls: Any, folder: Path) -> Any:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    lm, report = cls.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    differing = sorted(report["missing_keys"]) + sorted(report["unexpected_keys"])
    lacks = ", ".join(differing[:3])
    require(not differing, f"{folder} does not fit its design in {lacks}; {_WAY_OUT}")
    return lm.eval()


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """What transformers raises of files that do not fit their configuration is one line."""
    from safetensors import SafetensorError

    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder} does not hold its model: {reason}; {_WAY_OUT}") from None


def _stored_in_half(folder: Path) -> bool:
    config = json.loads((folder / "config.json").read_text())
    return config.get("dtype", config.get("torch_dtype")) in ("bfloat16", "float16")


def _check_same(
    folder: Path, stored: dict[str, Tensor], again: dict[str, Tensor], tolerance: float
) -> None:
    for name, tensor in stored.items():
        if not tensor.numel():
            continue
        largest, far = tensor.abs().max(), (again[name].detach() - tensor).abs().max()
        require(
            float(far) <= tolerance * max(float(largest), 1e-3),
            f"{folder} was trained by other tools: its {name} is not what its design computes; go "
            "on with them, or export the trial again with --form custom",
        )


def _proxy(source: ModelDirectory, stored: dict[str, Tensor], native: NativeForm) -> ProxyLM:
    """The proxy of which `nas.models.native` has made these tensors."""
    import torch

    from workers.model import ProxyLM

    with torch.random.fork_rng(devices=[]):
        model = ProxyLM(source.spec, source.backbone)
    with torch.no_grad():
        model.embed.weight.copy_(stored["lm_head.weight"])
        model.norm.weight.copy_(stored["model.norm.weight"])
        for number, layer in enumerate(model.layers):
            prefix = f"model.layers.{number}."
            own = {
                name.removeprefix(prefix): tensor
                for name, tensor in stored.items()
                if name.startswith(prefix)
            }
            _fill_attention(layer.attention, own)
            _fill_ffn(layer.ffn, own, native)
    return model


def _fill_attention(attention: Any, own: dict[str, Tensor]) -> None:
    from nas.models.native import sharper

    attention.norm.weight.copy_(own["input_layernorm.weight"])
    for place, name in enumerate("qkv"):
        attention.qkv_3DD[place].copy_(own[f"self_attn.{name}_proj.weight"])
    attention.out_DD.copy_(own["self_attn.o_proj.weight"])
    attention.q_norm.weight.copy_(own["self_attn.q_norm.weight"] / sharper(attention.head_dim))
    attention.k_norm.weight.copy_(own["self_attn.k_norm.weight"])


def _fill_ffn(ffn: Any, own: dict[str, Tensor], native: NativeForm) -> None:
    import torch

    (layer,) = ffn.layers
    layer.norm.weight.copy_(own["post_attention_layernorm.weight"])
    experts, shared = layer.experts, [] if layer.shared is None else [layer.shared]
    if native.architecture == DENSE:
        _fill_one_ffn([experts, *shared], own, "mlp.")
        return
    gates_BGD, keys_BGD = own["mlp.experts.gate_up_proj"].chunk(2, 1)
    experts.gates_BGD.copy_(gates_BGD)
    experts.keys_BGD.copy_(keys_BGD)
    experts.values_BGD.copy_(own["mlp.experts.down_proj"].transpose(1, 2))
    router_BD, bias_B = layer.selection.linear_router(experts.gates_BGD)
    if isinstance(router_BD, torch.nn.Parameter):  # else it is made of the experts
        router_BD.copy_(own["mlp.gate.weight"])
    if bias_B is not None and "mlp.gate.e_score_correction_bias" in own:
        bias_B.copy_(own["mlp.gate.e_score_correction_bias"])
    if shared:
        _fill_one_ffn(shared, own, "mlp.shared_experts.")


def _fill_one_ffn(parts: list[Any], own: dict[str, Tensor], prefix: str) -> None:
    """Experts that lie side by side in one FFN, whose last units may be zeros of no expert."""
    gates, keys, values = (own[f"{prefix}{name}_proj.weight"] for name in ("gate", "up", "down"))
    values, start = values.t(), 0
    for part in parts:
        shape = part.keys_BGD.shape
        units = slice(start, start + shape[:2].numel())
        for to, given in (
            (part.gates_BGD, gates),
            (part.keys_BGD, keys),
            (part.values_BGD, values),
        ):
            to.copy_(given[units].reshape(shape))
        start = units.stop
