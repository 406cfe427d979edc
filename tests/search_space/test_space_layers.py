"""Whatever a space yields can be built and trained: finite outputs, losses and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from drawing import DRAWN, legal_design, tiny
from hypothesis import given
from hypothesis import strategies as st

from search_space.backbone import Backbone
from workers.model import ProxyLM

pytestmark = pytest.mark.slow

VOCAB = 24
BACKBONES = [
    Backbone(d_model=d, n_layers=1, n_heads=2, vocab_size=VOCAB, seq_len=8, reference_d_ff=96)
    for d in (8, 16)
]
SPACES = [tiny(match) for match in ("free", "active_flops")]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def built(spec, backbone) -> ProxyLM:
    """A model whose outputs are not zero, so that gradients flow everywhere."""
    torch.manual_seed(0)
    model = ProxyLM(spec, backbone)
    for name, parameter in model.named_parameters():
        if name.endswith(("values_BGD", "output_gate_BD", "out_DD")):
            torch.nn.init.normal_(parameter, std=0.2)
    model.set_token_counts(torch.arange(VOCAB))
    return model


@DRAWN
@given(data=st.data())
def test_every_design_trains_and_evaluates(data):
    space, backbone = data.draw(st.sampled_from(SPACES)), data.draw(st.sampled_from(BACKBONES))
    _, spec = legal_design(data.draw, space, backbone)
    tokens = data.draw(st.integers(4, 8))
    model = built(spec, backbone)
    ids_NL = torch.randint(VOCAB, (1, tokens), generator=torch.Generator().manual_seed(tokens))

    output = model.train()(ids_NL)
    logits_LV = model.logits(output.hidden_NLD)[0]
    loss = F.cross_entropy(logits_LV[:-1], ids_NL[0, 1:])
    if output.aux_loss is not None:
        assert output.aux_loss.isfinite()
        loss = loss + output.aux_loss
    assert logits_LV.isfinite().all() and loss.isfinite()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    values = [p for name, p in model.named_parameters() if name.endswith("values_BGD")]
    # ReLU gates alone may leave a handful of tokens with no expert.
    assert spec.method == "relu_routing" or any(p.grad.any() for p in values)

    with torch.no_grad():
        output = model.eval()(ids_NL)
    assert output.hidden_NLD.shape == (1, tokens, backbone.d_model)
    assert output.hidden_NLD.isfinite().all()
