"""A base model's weights, and the cut model made of them.

D model width, T tokens of the calibration text.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from search_space.backbone import Backbone
from search_space.base import FILES, Base, check_cut, digest_of
from search_space.errors import InputError, require
from search_space.routing import EVERY_EXPERT
from search_space.spec import FFNSpec
from workers.corpus import Corpus
from workers.layers.experts import Experts
from workers.model import LanguageModel
from workers.pretrained.cutting import Units, fill, scale_to, unit_order
from workers.pretrained.model import CutFFN, PretrainedLM, cut_ffns, put_in
from workers.pretrained.own import cut_own
from workers.training.initial import draw_by_name

# Tokens of the train split, of which cuts and scales are made: the first batch of seed 0.
CALIBRATION_TOKENS = 4096


def load_base(base: Base) -> Any:
    """The dense model in float32. Raises InputError where it cannot be loaded whole, and where it
    is not the one that the study began with."""
    from huggingface_hub import snapshot_download
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        here = os.path.isdir(base.model)
        folder = base.model if here else snapshot_download(base.model, allow_patterns=FILES)
        require(
            digest_of(Path(folder)) == base.digest,
            f"base_model {base.model!r} has changed since the study began; put it back as it was, "
            "or launch a new study",
        )
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
    except InputError:
        raise
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"base_model {base.model!r} does not load: {' '.join(str(error).split())[:300]}"
        ) from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"base_model {base.model!r} is not whole: it lacks {missing[0]}")
    return model.eval()


def build_cut(spec: FFNSpec, backbone: Backbone, corpus: Corpus, seed: int) -> LanguageModel:
    """The base model with its FFNs cut into `spec`: gates are drawn, all else is its own.

    Where a selection weighs experts, their outputs are scaled by one number a layer, of least
    squares on the calibration text, so that the sum is as large as the dense FFN's.

    seed: of the gates.
    Raises SpecError for a design that is no cut of it, InputError where it does not load.
    """
    base = backbone.base
    assert base is not None
    if base.own:
        return cut_own(spec, backbone, _calibration(corpus, backbone), seed)
    check_cut(spec, base, backbone.reference_d_ff)
    lm, ffns = load_base(base), cut_ffns(spec, backbone)
    draw_by_name(nn.ModuleList(ffns), seed)
    _cut(lm, ffns, spec, _calibration(corpus, backbone))
    put_in(lm, ffns)
    return PretrainedLM(lm, backbone)


def _calibration(corpus: Corpus, backbone: Backbone) -> Tensor:
    sequences = max(1, CALIBRATION_TOKENS // backbone.seq_len)
    inputs, _ = corpus.batch(0, 0, sequences, backbone.seq_len)
    return torch.from_numpy(inputs)


@torch.no_grad()
def _cut(lm: Any, ffns: list[CutFFN], spec: FFNSpec, ids_NL: Tensor) -> None:
    """Fill the FFNs, a layer at a time while the dense model reads the calibration text."""

    def hook(ffn: CutFFN) -> Any:
        def cut(mlp: Any, inputs: tuple[Tensor], output: Tensor) -> None:
            x_TD, y_TD = inputs[0].flatten(0, -2), output.flatten(0, -2)
            units = Units(mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight.t())
            hidden_TH = mlp.act_fn(mlp.gate_proj(x_TD)) * mlp.up_proj(x_TD)
            assert isinstance(ffn.experts, Experts)  # of every method that can be cut
            width = ffn.experts.keys_BGD.shape[1]
            fill(ffn.experts, units, unit_order(spec.cut, units, hidden_TH, width))
            if ffn.searched and spec.selection.native(spec) != EVERY_EXPERT:
                ffn.eval()
                ffn.experts.values_BGD.mul_(scale_to(ffn(inputs[0]).flatten(0, -2), y_TD))

        return cut

    handles = [
        layer.mlp.register_forward_hook(hook(ffn))
        for layer, ffn in zip(lm.model.layers, ffns, strict=True)
    ]
    try:
        lm.model(input_ids=ids_NL, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
