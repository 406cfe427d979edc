"""A cut pretrained model as a transformers model: its family's class with FFNs of a design.

This file and all that it imports from `workers` and `search_space` are copied into the export, as
`workers.hf` is. Attention, cache, embeddings and all conventions are the family's own.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from search_space.backbone import Backbone
from search_space.spec import FFNSpec
from workers.layers.declared import Declared
from workers.layers.steps import watch_steps
from workers.pretrained.model import cut_ffns, mean_loss, put_in


class CutLlamaConfig(LlamaConfig):
    """ffn: `spec` and `backbone`, the plain data of FFNSpec and Backbone."""

    model_type = "ffn_nas_llama"
    ffn: dict[str, Any] | None = None


class CutMistralConfig(MistralConfig):
    """As `CutLlamaConfig`."""

    model_type = "ffn_nas_mistral"
    ffn: dict[str, Any] | None = None


class CutQwen2Config(Qwen2Config):
    """As `CutLlamaConfig`."""

    model_type = "ffn_nas_qwen2"
    ffn: dict[str, Any] | None = None


class CutQwen3Config(Qwen3Config):
    """As `CutLlamaConfig`."""

    model_type = "ffn_nas_qwen3"
    ffn: dict[str, Any] | None = None


class _Cut:
    """Over a family's class: its FFNs are replaced, and their losses are added in training."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        spec = FFNSpec.from_dict(config.ffn["spec"])
        put_in(self, cut_ffns(spec, Backbone.from_dict(config.ffn["backbone"])))  # type: ignore[arg-type]

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Declared):
            module.reset_parameters()
        else:
            super()._init_weights(module)  # type: ignore[misc]

    def forward(self, *arguments: Any, labels: Any = None, **options: Any) -> Any:
        """As the family's; with labels in training, the loss has the design's auxiliary ones."""
        model: Any = self
        if model.training:
            watch_steps(model)
        out = super().forward(*arguments, labels=labels, **options)  # type: ignore[misc]
        aux = mean_loss(model) if model.training and labels is not None else None
        if aux is None:
            return out
        if isinstance(out, tuple):
            return (out[0] + aux, *out[1:])
        out.loss = out.loss + aux
        return out


class CutLlamaForCausalLM(_Cut, LlamaForCausalLM):
    """A Llama."""

    config_class = CutLlamaConfig


class CutMistralForCausalLM(_Cut, MistralForCausalLM):
    """A Mistral."""

    config_class = CutMistralConfig


class CutQwen2ForCausalLM(_Cut, Qwen2ForCausalLM):
    """A Qwen2."""

    config_class = CutQwen2Config


class CutQwen3ForCausalLM(_Cut, Qwen3ForCausalLM):
    """A Qwen3."""

    config_class = CutQwen3Config


CLASSES: dict[str, tuple[Any, Any]] = {
    "llama": (CutLlamaConfig, CutLlamaForCausalLM),
    "mistral": (CutMistralConfig, CutMistralForCausalLM),
    "qwen2": (CutQwen2Config, CutQwen2ForCausalLM),
    "qwen3": (CutQwen3Config, CutQwen3ForCausalLM),
}
