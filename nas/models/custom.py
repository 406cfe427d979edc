"""A model directory with this project's own code, which transformers loads as remote code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.models.bundle import bundle_sources, methods_of
from search_space.backbone import Backbone
from search_space.spec import FFNSpec

_MODULE = "modeling_ffn_nas"
SHARD = "2GB"  # of a weights file: a shard is copied once while it is written


def new_model(
    spec: dict[str, Any], backbone: dict[str, Any], ends: dict[str, int], proxy: Any = None
) -> Any:
    """A design as transformers' model, initialised, in evaluation mode.

    spec, backbone: plain data of FFNSpec and Backbone.
    ends: the ids `eos_token_id` and `pad_token_id`.
    proxy: whose tensors the model has, so that none is held twice; without one it has its own.
    """
    import torch
    from transformers import GenerationConfig

    from workers.hf import FFNNASConfig, FFNNASForCausalLM

    config = FFNNASConfig(spec, backbone, **ends)
    config.auto_map = {
        "AutoConfig": f"{_MODULE}.FFNNASConfig",
        "AutoModel": f"{_MODULE}.FFNNASModel",
        "AutoModelForCausalLM": f"{_MODULE}.FFNNASForCausalLM",
    }
    if proxy is None:
        model = FFNNASForCausalLM(config).eval()
    else:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # a shell, without memory
            model = FFNNASForCausalLM(config).eval()
        model.model.proxy, model.lm_head.weight = proxy.eval(), proxy.embed.weight
    model.generation_config = GenerationConfig(**ends)
    return model


def write_model(folder: Path, model: Any) -> None:
    """Weights, configuration and code of what `new_model` made."""
    model.save_pretrained(folder, max_shard_size=SHARD)
    config = model.config
    methods = methods_of(FFNSpec.from_dict(config.spec), Backbone.from_dict(config.backbone))
    for name, text in bundle_sources(*methods).items():
        (folder / name).write_text(text, encoding="utf-8")
