"""Exports with drawn weights, so that routers are busy."""

from __future__ import annotations

from pathlib import Path

import torch

from nas.models.custom import new_model, write_model
from nas.models.tokenizer import with_padding, write_tokenizer
from search_space.backbone import Backbone
from search_space.methods.product_key import ProductKey
from search_space.methods.topk import TopK
from search_space.presets import PRESETS
from search_space.spec import FFNSpec

BACKBONE = Backbone(d_model=32, n_layers=2, n_heads=2, vocab_size=300, seq_len=32)
TEXT = "the cat sat on a mat and then ran off to find some more fish in the old house\n"

# All methods, by all presets, and what no preset has: a balancing bias, statistics-free queries,
# reads by rows of several units, and embedded layers of the reference.
SPECS: dict[str, FFNSpec] = {name: preset(BACKBONE) for name, preset in PRESETS.items()} | {
    "bias": FFNSpec(
        d_ff=256,
        expert_width=32,
        selection=TopK(k=2, gate="sigmoid", normalize=True, bias_rate=0.001),
    ),
    "narrow": FFNSpec(
        d_ff=64, expert_width=4, depth=2, gated=True, shared_width=8, selection=TopK(k=3)
    ),
    "layer_norm": FFNSpec(
        d_ff=256,
        expert_width=1,
        placement="alternate",
        selection=ProductKey(heads=2, k=4, key_dim=8, query_norm="layer", values="peer"),
    ),
}
# Each method, and each way that a layer runs, once.
ALIKE = {"switch_alternate", "mixtral", "olmoe", "sigma_moe", "peer", "layer_norm"}
KINDS = [name for name in SPECS if name not in ALIKE]
# Each method once.
METHODS = list({SPECS[name].method: name for name in reversed(KINDS)}.values())


def tokenizer_text() -> str:
    """A byte-level BPE as a study trains it."""
    from workers.corpus.tokenizer import train_bpe

    return train_bpe([TEXT * 20], BACKBONE.vocab_size).to_str()


def drawn_model(spec: FFNSpec):
    """transformers' model of a design, all of its weights drawn, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = new_model(spec.to_dict(), BACKBONE.to_dict(), {"eos_token_id": 0})
        with torch.no_grad():
            for p in model.parameters():
                p.normal_(std=0.2)
    return model


def write_export(folder: Path, spec: FFNSpec, text: str) -> Path:
    """The directory of a drawn model.

    text: of its tokenizer.json.
    """
    text, pad_id = with_padding(text, 0, None)
    model = drawn_model(spec)
    model.config.pad_token_id = model.generation_config.pad_token_id = pad_id
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder, model)
    write_tokenizer(folder, text, 0, pad_id, BACKBONE.seq_len)
    return folder
