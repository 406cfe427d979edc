"""The proxy as transformers models: what an exported directory loads as remote code.

This file and all that it imports from `workers` and `search_space` are copied into the export,
so that loading needs torch and transformers only.

N sequences, L new tokens, S tokens with the cached ones, D model width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils import logging

from search_space.backbone import Backbone
from search_space.spec import FFNSpec
from workers.layers.declared import Declared
from workers.model import EMBEDDING_STD, ProxyLM
from workers.sight import CACHES, view

logger = logging.get_logger(__name__)


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
        self.spec = FFNSpec.from_dict(spec).to_dict() if spec else {}
        self.use_backbone(Backbone.from_dict(backbone or {}))
        kwargs.setdefault("tie_word_embeddings", True)
        super().__init__(**kwargs)

    def use_backbone(self, backbone: Backbone) -> None:
        """Take a backbone's shape, under transformers' names, too."""
        self.backbone = backbone.to_dict()
        self.hidden_size = backbone.d_model
        self.num_hidden_layers = backbone.n_layers
        self.num_attention_heads = backbone.n_heads
        self.vocab_size = backbone.vocab_size
        self.max_position_embeddings = backbone.seq_len


@dataclass
class FFNNASOutput(BaseModelOutputWithPast):
    """aux_loss: the mean of the layers' auxiliary losses in training, or None."""

    aux_loss: Tensor | None = None


@dataclass
class FFNNASCausalOutput(CausalLMOutputWithPast):
    """aux_loss: as in FFNNASOutput; loss has it in it."""

    aux_loss: Tensor | None = None


Answer = TypeVar("Answer", FFNNASOutput, FFNNASCausalOutput)


class FFNNASPreTrainedModel(PreTrainedModel):
    """What both models share."""

    config_class = FFNNASConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["Layer"]  # noqa: RUF012 (transformers')
    _supports_sdpa = True

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_STD)
        elif isinstance(module, Declared):
            module.reset_parameters()

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """The embedding, of so many tokens where a number is given. What else depends on the
        vocabulary (hash tables, the configuration) follows."""
        embed: nn.Embedding = super().resize_token_embeddings(
            new_num_tokens, pad_to_multiple_of, mean_resizing
        )
        proxy: ProxyLM = self.base_model.proxy
        if embed.num_embeddings != proxy.backbone.vocab_size:
            proxy.resize_vocabulary(embed.num_embeddings)
            self.config.use_backbone(proxy.backbone)
        return embed


class FFNNASModel(FFNNASPreTrainedModel):
    """The proxy without its head."""

    def __init__(self, config: FFNNASConfig) -> None:
        super().__init__(config)
        backbone = Backbone.from_dict(config.backbone)
        if config.vocab_size != backbone.vocab_size:
            raise ValueError(
                f"config.vocab_size follows config.backbone: got {config.vocab_size} and "
                f"{backbone.vocab_size}; call resize_token_embeddings of a model"
            )
        self.proxy = ProxyLM(FFNSpec.from_dict(config.spec), backbone)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of embeddings; what it gives is RMS-normed after it."""
        return self.proxy.embed

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table."""
        self.proxy.embed = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        counts_aux_loss: bool = False,
        **kwargs: Any,
    ) -> FFNNASOutput | tuple[Any, ...]:
        """input_ids (N, L), or inputs_embeds (N, L, D) from the table -> states (N, L, D).

        attention_mask: (N, S) with 1 on real tokens; or (N or 1, 1, L, keys), True where a query
            may look.
        position_ids: (N or 1, L); where they start again, another packed sequence begins.
        output_hidden_states: whether to give the n_layers + 1 states, from the first layer's input
            to the last norm's output.
        counts_aux_loss: whether the caller adds the output's auxiliary loss to its own.
        Raises ValueError for arguments that contradict each other or that are not supported.
        """
        if kwargs.get("output_attentions"):
            raise ValueError("attention weights are never made whole: leave output_attentions out")
        first = inputs_embeds if input_ids is None else input_ids
        if first is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("give either input_ids or inputs_embeds")
        cache = self._cache(past_key_values, use_cache)
        seen = None if cache is None else cache.get_seq_length()
        if isinstance(seen, Tensor):
            seen = seen.clone()  # the cache's own, which goes on counting
        shape = first.shape[0], first.shape[1]
        states: list[Tensor] | None = [] if wanted(output_hidden_states, self.config) else None
        out = self.proxy(
            input_ids,
            embedded_NLD=inputs_embeds,
            view=view(shape, first.device, attention_mask, position_ids, seen, self.training),
            cache=cache,
            watch=None if states is None else states.append,
        )
        if out.aux_loss is not None and not counts_aux_loss:
            logger.warning_once(
                "this design has auxiliary losses, which a loss made of hidden states lacks: take "
                "the model's own (with TRL: class Tuner(SFTTrainer): compute_loss = "
                "Trainer.compute_loss)"
            )
        hidden_states = None if states is None else (*states, out.hidden_NLD)
        answer = FFNNASOutput(out.hidden_NLD, cache, hidden_states, aux_loss=out.aux_loss)
        return finished(answer, return_dict, self.config)

    def _cache(self, past_key_values: Any, use_cache: bool | None) -> Any:
        if self.proxy.gradient_checkpointing and self.training:
            if past_key_values is not None:
                raise ValueError(
                    "gradient checkpointing runs a layer twice and would cache its tokens twice: "
                    "leave past_key_values out, or call gradient_checkpointing_disable()"
                )
            return None
        if past_key_values is None:
            return DynamicCache(config=self.config) if use_cache else None
        if not hasattr(past_key_values, "get_seq_length"):
            raise ValueError(
                f"past_key_values must be {CACHES}: got {type(past_key_values).__name__}"
            )
        return past_key_values


class FFNNASForCausalLM(FFNNASPreTrainedModel, GenerationMixin):
    """The proxy language model; in training mode its loss includes the FFN's auxiliary losses."""

    _tied_weights_keys = {"lm_head.weight": "model.proxy.embed.weight"}  # noqa: RUF012

    def __init__(self, config: FFNNASConfig) -> None:
        super().__init__(config)
        self.model = FFNNASModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of embeddings; what it gives is RMS-normed after it."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the table; `tie_weights` brings the head after it."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the head."""
        self.lm_head = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> FFNNASCausalOutput | tuple[Any, ...]:
        """As FFNNASModel -> logits (N, L, V), or those of the last `logits_to_keep` tokens.

        labels (N, L): cross-entropy of the next tokens, -100 ignored. num_items_in_batch (a
            trainer's, of a batch that comes in parts): what the sum is divided by, in place of the
            number of labels here; the auxiliary loss is weighed by the part's share of it.
        """
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            counts_aux_loss=True,
            **kwargs,
        )
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, keep])
        answer = FFNNASCausalOutput(
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            aux_loss=out.aux_loss,
        )
        if labels is not None:
            loss = self._loss(answer, labels, attention_mask=attention_mask, **kwargs)
            answer = FFNNASCausalOutput(loss=loss, **answer)  # a tuple begins with it
        return finished(answer, return_dict, self.config)

    def _loss(
        self,
        outputs: FFNNASCausalOutput,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        shift_labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Cross-entropy of the next tokens and the auxiliary loss, as `forward` says.

        attention_mask: (N, L); padding predicts nothing, so that a row's first token is no target
            on its right.
        """
        targets = labels
        if attention_mask is not None and attention_mask.shape == labels.shape:
            padding = F.pad(attention_mask[:, :-1] == 0, (1, 0))
            targets = labels.masked_fill(padding, -100)
        loss: Tensor = self.loss_function(
            outputs.logits,
            targets,
            outputs.logits.shape[-1],
            num_items_in_batch=num_items_in_batch,
            shift_labels=shift_labels,
            **kwargs,
        )
        if outputs.aux_loss is None:
            return loss
        if num_items_in_batch is None:
            return loss + outputs.aux_loss
        own = labels[..., 1:] if shift_labels is None else shift_labels
        return loss + outputs.aux_loss * ((own != -100).sum() / num_items_in_batch)


def wanted(output_hidden_states: bool | None, config: FFNNASConfig) -> bool:
    """Whether hidden states are asked for, by the call or else by the configuration."""
    if output_hidden_states is None:
        return bool(config.output_hidden_states)
    return output_hidden_states


def finished(
    answer: Answer, return_dict: bool | None, config: FFNNASConfig
) -> Answer | tuple[Any, ...]:
    """The answer, as a tuple where the call or else the configuration asks for one."""
    as_dict = config.return_dict if return_dict is None else return_dict
    if as_dict:
        return answer
    values: tuple[Any, ...] = answer.to_tuple()
    return values
