"""The proxy as a transformers model: what an exported directory loads as remote code.

This file and all that it imports from `workers` and `search_space` are copied into the export,
so that loading needs torch and transformers only.

N sequences, L new tokens, S tokens with the cached ones, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from search_space.backbone import Backbone
from search_space.spec import FFNSpec
from workers.layers.declared import Declared
from workers.model import EMBEDDING_STD, ProxyLM


class FFNNASConfig(PreTrainedConfig):
    """`spec` and `backbone` are the plain data of FFNSpec and Backbone."""

    model_type = "ffn_nas"

    def __init__(
        self,
        spec: dict[str, Any] | None = None,
        backbone: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # transformers builds configs without arguments to find the defaults; no design is one.
        shape = Backbone.from_dict(backbone or {})
        self.spec = FFNSpec.from_dict(spec).to_dict() if spec else {}
        self.backbone = shape.to_dict()
        self.hidden_size = shape.d_model
        self.num_hidden_layers = shape.n_layers
        self.num_attention_heads = shape.n_heads
        self.vocab_size = shape.vocab_size
        self.max_position_embeddings = shape.seq_len
        kwargs.setdefault("tie_word_embeddings", True)
        super().__init__(**kwargs)


class FFNNASForCausalLM(PreTrainedModel, GenerationMixin):
    """The proxy language model; in training mode its loss includes the FFN's auxiliary losses."""

    config_class = FFNNASConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embed.weight"}  # noqa: RUF012 (transformers')
    _no_split_modules = ["Layer"]  # noqa: RUF012 (transformers')
    _supports_sdpa = True

    def __init__(self, config: FFNNASConfig) -> None:
        super().__init__(config)
        backbone = Backbone.from_dict(config.backbone)
        self.model = ProxyLM(FFNSpec.from_dict(config.spec), backbone)
        self.lm_head = nn.Linear(backbone.d_model, backbone.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_STD)
        elif isinstance(module, Declared):
            module.reset_parameters()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """input_ids (N, L), attention_mask (N, S) with 1 on real tokens -> logits (N, L, V).

        labels (N, L): cross-entropy of the next tokens, -100 ignored.
        """
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        length = input_ids.shape[1]
        if position_ids is None:
            position_ids = positions(attention_mask, seen, length, input_ids.device)
        out = self.model(
            input_ids,
            position_NL=position_ids,
            mask=attention_pattern(attention_mask, seen, length, input_ids.device),
            cache=past_key_values,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.hidden_NLD[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
            if self.training and out.aux_loss is not None:
                loss = loss + out.aux_loss
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)


def positions(
    attention_mask: Tensor | None, seen: int, length: int, device: torch.device
) -> Tensor:
    """(N or 1, L): how many real tokens stand before each new one."""
    if attention_mask is None:
        return torch.arange(seen, seen + length, device=device)[None]
    return (attention_mask.long().cumsum(1) - 1).clamp_min(0)[:, -length:]


def attention_pattern(
    attention_mask: Tensor | None, seen: int, length: int, device: torch.device
) -> Tensor | None:
    """(N or 1, 1, L, S), True where a query may look; None where plain causal attention does."""
    if attention_mask is not None and bool(attention_mask.all()):
        attention_mask = None  # nothing is padded
    if attention_mask is None and (seen == 0 or length == 1):
        return None
    query = torch.arange(seen, seen + length, device=device)[:, None]
    key = torch.arange(seen + length, device=device)[None]
    causal = (key <= query)[None, None]
    if attention_mask is None:
        return causal
    # A padding token looks at itself, for a row that looks nowhere would be NaN.
    return (causal & attention_mask[:, None, None, :].bool()) | (key == query)[None, None]
