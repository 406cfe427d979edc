"""A batch in parts: the whole batch's loss and gradients, to rounding."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from search_space.backbone import Backbone
from search_space.contract import EvalRequest, Recipe
from search_space.cost import step_flops
from search_space.methods.product_key import ProductKey
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec
from workers.kernels.settings import Backend, override
from workers.training.loop import Training, build_proxy, train_step
from workers.training.parts import InParts

pytestmark = pytest.mark.slow

BACKBONE = Backbone(d_model=16, n_layers=2, n_heads=2, vocab_size=300, seq_len=32)
SPECS = {
    "dense": FFNSpec(d_ff=64),
    "topk": FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=2)),
    "tables": FFNSpec(
        d_ff=256, expert_width=1, selection=ProductKey(heads=2, k=4, key_dim=8, query_norm="layer")
    ),
}


@pytest.fixture(autouse=True)
def torch_forms():
    """What is tested is the sum of parts, whatever computes them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with override(backend=Backend.TORCH):
        yield
    torch.set_num_threads(threads)


def losses(corpus, spec, batch_step, steps=6):
    """Of each step's batch, and the weights after the last."""
    recipe = Recipe(batch_size=6, lr=0.01, matrix_lr=0.01, warmup=0, precision="float32")
    request = EvalRequest(
        evaluation=0,
        spec=spec,
        backbone=BACKBONE,
        recipe=recipe,
        corpus_dir=str(corpus.dir),
        until_flops=steps * step_flops(spec, BACKBONE, 6),
    )
    model = build_proxy(request, corpus)
    seen = []
    training = Training(model, request, corpus, seen.append, batch_step=batch_step)
    training.curve.every = 1.0
    training.run()
    return [point.loss for point in seen], model


@pytest.mark.parametrize("sequences", [1, 4])
@pytest.mark.parametrize("name", SPECS)
def test_parts_add_up_to_the_batch(small_corpus, name, sequences):
    whole, model = losses(small_corpus, SPECS[name], None)
    parts, other = losses(small_corpus, SPECS[name], InParts(sequences))
    assert len(parts) == len(whole) == 6
    assert parts == pytest.approx(whole, rel=1e-6)
    assert whole[-1] < whole[0] - 0.1
    theirs = dict(other.named_parameters())
    for parameter, p in model.named_parameters():
        torch.testing.assert_close(theirs[parameter], p, rtol=1e-3, atol=1e-4)


def test_one_part_is_the_step_itself(small_corpus):
    whole, _ = losses(small_corpus, SPECS["topk"], train_step)
    assert losses(small_corpus, SPECS["topk"], InParts(6))[0] == whole
    assert losses(small_corpus, SPECS["topk"], InParts(99))[0] == whole


def test_balancing_counts_all_parts_once(small_corpus):
    """After one step the bias has moved one rate by the loads of the whole batch."""
    spec = FFNSpec(d_ff=64, expert_width=16, selection=TopK(k=1, bias_rate=0.125))
    spec = dataclasses.replace(spec, placement="middle")
    biases = []
    for step in (None, InParts(2)):
        _, model = losses(small_corpus, spec, step, steps=1)
        biases.append([b for name, b in model.named_buffers() if name.endswith("bias_B")])
    assert torch.equal(biases[0][0], biases[1][0])
    assert float(biases[0][0].abs().max()) == 0.125
