"""Tiny pretrained models of every family, with random weights."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from search_space.base import Family

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 64,
}
CLASSES = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": None}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
}


def small(family):
    """A model whose every weight is drawn, gains and biases too: nothing hides at its start."""
    config, cls, own = CLASSES[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cls(config(**SHAPE, **own))
        for name, p in model.named_parameters():
            torch.nn.init.normal_(p, mean=float("norm" in name), std=0.2)
    return model.eval()


@pytest.fixture(scope="session")
def bases(small_corpus, tmp_path_factory):
    """Folders by family, each a checkpoint as transformers writes it, with a tokenizer."""
    folders = {}
    for family in get_args(Family):
        folder = tmp_path_factory.mktemp("bases") / family
        small(family).save_pretrained(folder)
        tokenizer = Tokenizer.from_file(str(small_corpus.tokenizer_path))
        end = tokenizer.id_to_token(small_corpus.meta["eos_id"])
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)
        folders[family] = folder
    return folders
