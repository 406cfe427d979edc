"""A dense pretrained model to cut: a small Llama, trained here.

`python -m benchmarks.base_model --to FOLDER --text SOURCE --json FILE` trains d 192, 6 layers,
gated SiLU FFNs of 512 units, BPE of 2,048 words, for 3e13 training FLOPs, with the recipe of
studies, and writes it as any Llama checkpoint, with its tokenizer. It is the `base_model` of
`benchmarks.sparsify`, and of the documents' sparsify study.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.report import Row, parser, publish
from search_space.backbone import Backbone
from search_space.base import Base
from search_space.contract import EvalRequest, Progress, Recipe
from search_space.corpus import STDLIB, CorpusSpec
from search_space.errors import require
from search_space.placement import reference
from search_space.places import corpora_dir
from search_space.rates import rates
from workers.corpus import Corpus, prepare
from workers.kernels.dispatch import chosen_products
from workers.pretrained.model import PretrainedLM, cut_ffns, put_in
from workers.pretrained.plain import as_dense
from workers.training.initial import draw_by_name
from workers.training.loop import Training
from workers.training.measure import evaluate_quality

LAYERS, HEADS, WIDTH, UNITS, WORDS, LENGTH = 6, 6, 192, 512, 2048, 256
EVAL_TOKENS = 2**17


def backbone() -> Backbone:
    """The model's shape."""
    head_dim = WIDTH // HEADS
    base = Base(
        model="none", digest="none", family="llama", head_dim=head_dim, n_kv_heads=HEADS, tied=True
    )
    return Backbone(
        d_model=WIDTH,
        n_layers=LAYERS,
        n_heads=HEADS,
        vocab_size=WORDS,
        seq_len=LENGTH,
        reference_d_ff=UNITS,
        base=base,
    )


def new_model(shape: Backbone, seed: int) -> PretrainedLM:
    """A Llama of initial weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    assert shape.base is not None
    config = LlamaConfig(
        hidden_size=shape.d_model,
        intermediate_size=shape.reference_d_ff,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.base.n_kv_heads,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.seq_len,
        tie_word_embeddings=shape.base.tied,
    )
    torch.manual_seed(seed)
    lm, ffns = LlamaForCausalLM(config), cut_ffns(reference(shape), shape)
    draw_by_name(nn.ModuleList(ffns), seed)
    put_in(lm, ffns)
    return PretrainedLM(lm, shape)


def train(shape: Backbone, corpus: Corpus, flops: float, seed: int) -> tuple[Any, list[Row]]:
    """The trained Llama, and what was measured of it."""
    recipe, spec = Recipe(batch_size=8, precision="float32"), reference(shape)
    ruled = rates(recipe.shape(spec, shape, flops))  # whole, for nothing is pretrained yet
    request = EvalRequest(
        evaluation=0,
        spec=spec,
        backbone=shape,
        recipe=dataclasses.replace(recipe, **ruled._asdict()),
        corpus_dir=str(corpus.dir),
        until_flops=flops,
        seed=seed,
    )
    began = time.monotonic()
    model = new_model(shape, seed)
    training = Training(model, request, corpus, _tell)
    with chosen_products("cpu"):
        trained = training.run()
        quality = evaluate_quality(model, corpus, EVAL_TOKENS, shape.seq_len, "cpu")
    rows = [
        Row("parameters", float(sum(p.numel() for p in model.parameters()))),
        Row("training", trained.flops, "FLOPs"),
        Row("tokens", float(trained.tokens)),
        Row("validation", quality.bits_per_byte, "bits per byte"),
        Row("its standard error", quality.standard_error, "bits per byte"),
        Row("time", time.monotonic() - began, "s"),
    ]
    return as_dense(model), rows


def _tell(progress: Progress) -> None:
    text = f"step {progress.step} of {progress.steps}: {progress.loss:.4f} nats a token"
    print(text, file=sys.stderr, flush=True)


def write(model: Any, corpus: Corpus, folder: Path) -> None:
    """A checkpoint as any other's, with the corpus's tokenizer."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer.from_file(str(corpus.tokenizer_path))
    end = tokenizer.id_to_token(corpus.meta["eos_id"])
    model.config.eos_token_id = model.generation_config.eos_token_id = corpus.meta["eos_id"]
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end).save_pretrained(folder)


def main() -> int:
    """The command."""
    options = parser(__doc__)
    options.add_argument("--to", type=Path, required=True, help="a new folder")
    options.add_argument("--text", default=STDLIB, help="default: Python's library")
    options.add_argument("--flops", type=float, default=3e13)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()

    def rows() -> list[Row]:
        require(not asked.to.exists(), f"to: {str(asked.to)!r} exists; give a new folder")
        shape = backbone()
        text = CorpusSpec(source=asked.text)
        corpus = prepare(text, shape.vocab_size, shape.seq_len, corpora_dir())
        shape = dataclasses.replace(shape, vocab_size=corpus.meta["vocab_size"])
        model, found = train(shape, corpus, asked.flops, asked.seed)
        write(model, corpus, asked.to)
        return found

    return publish(rows(), asked.json)


if __name__ == "__main__":
    sys.exit(main())
