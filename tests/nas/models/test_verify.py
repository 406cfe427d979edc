"""What the check of an export counts is what closed forms have, for every way that a layer runs."""

from __future__ import annotations

import drawn
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from nas.models.probe import probe, probe_ids
from nas.models.verify import FLOPS_TOLERANCE
from search_space.backbone import Backbone
from search_space.presets import PRESETS
from workers.kernels.api.torch_flops import torch_flops
from workers.kernels.settings import Backend, override
from workers.model import ProxyLM

pytestmark = pytest.mark.slow

# FFNs are most of it, so that a product which is not counted shows.
BACKBONE = Backbone(d_model=64, n_layers=3, n_heads=4, vocab_size=300, seq_len=64)
PUBLISHED = {name: preset(BACKBONE) for name, preset in PRESETS.items()}


@pytest.mark.parametrize("name", drawn.SPECS)
def test_torch_counts_what_the_closed_form_has(name):
    spec = PUBLISHED.get(name, drawn.SPECS[name])
    torch.manual_seed(0)
    model = ProxyLM(spec, BACKBONE).eval()
    expected = probe(model, spec, BACKBONE, None, BACKBONE.seq_len).flops
    ids = torch.tensor([probe_ids(BACKBONE.vocab_size, BACKBONE.seq_len)])
    counter = FlopCounterMode(display=False, custom_mapping=torch_flops())
    with override(backend=Backend.TORCH), sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:
        model.logits(model(ids).hidden_NLD)
    counted = counter.get_total_flops() / ids.numel()
    assert counted == pytest.approx(expected, rel=FLOPS_TOLERANCE / 2)
