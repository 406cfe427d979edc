"""A cut pretrained model as a transformers model: its family's class with FFNs of a design.

This file and all that it imports from `workers` and `search_space` are copied into the export, as
`workers.hf` is. Attention, cache, embeddings and all conventions are the family's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
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
from workers.pretrained.model import CutFFN, cut_ffns, mean_loss, put_in


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

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        return_dict: bool | None = None,
        **options: Any,
    ) -> Any:
        """As the family's; with labels in training, the loss has the design's auxiliary ones.

        attention_mask: (N, S) with 1 on real tokens, of which alone the experts hear.
        num_items_in_batch: a trainer's, of a batch that comes in parts: the auxiliary loss is
            weighed by the part's share of it.
        """
        model: Any = self
        if model.training:
            watch_steps(model)
        options |= {"labels": labels, "num_items_in_batch": num_items_in_batch}
        with only_real(model, attention_mask, input_ids, options.get("inputs_embeds")):
            out = super().forward(  # type: ignore[misc]
                input_ids=input_ids,
                attention_mask=attention_mask,
                return_dict=True,
                **options,
            )
            aux = mean_loss(model) if model.training and labels is not None else None
        if aux is not None:
            assert labels is not None
            items = num_items_in_batch
            share = 1.0 if items is None else (labels[..., 1:] != -100).sum() / items
            out.loss = out.loss + aux * share
        as_dict = model.config.return_dict if return_dict is None else return_dict
        return out if as_dict else out.to_tuple()


@contextmanager
def only_real(
    model: nn.Module, mask: Tensor | None, ids: Tensor | None, embeds: Tensor | None
) -> Iterator[None]:
    """Within it, the FFNs see no padding.

    mask: (N, S), 1 on real tokens; others hide nothing from them.
    ids, embeds: of the tokens, (N, L) or (N, L, D).
    """
    first = ids if ids is not None else embeds
    real_R = None
    if mask is not None and mask.dim() == 2 and first is not None and not bool(mask.all()):
        real_R = mask[:, -first.shape[1] :].flatten().nonzero().squeeze(1)
    ffns = [module for module in model.modules() if isinstance(module, CutFFN)]
    for ffn in ffns:
        ffn.real_R = real_R
    try:
        yield
    finally:
        for ffn in ffns:
            ffn.real_R = None


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
