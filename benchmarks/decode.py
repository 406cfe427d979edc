"""Exported models in inference on one CPU thread: custom code beside transformers' own classes.

Greedy decoding of the same weights in both forms; and a straight-through model beside its dense
form, which computes every expert. Calls take turns in one process, and a ratio is the median over
the turns. `python -m benchmarks.decode --json FILE`.
"""

from __future__ import annotations

import importlib
import math
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.report import Row, at_least, main
from benchmarks.turns import Call, ratio, take_turns
from nas.models.bundle import ROOT_MODULE, bundle_sources, methods_of, module_name
from nas.models.native import native_model
from search_space.backbone import Backbone
from search_space.methods.dense import Dense
from search_space.methods.straight_through import StraightThrough
from search_space.methods.topk import TopK
from search_space.native import NativeForm, native_form
from search_space.spec import FFNSpec
from workers.hf import FFNNASConfig, FFNNASForCausalLM
from workers.layers.recording import record_stats

BACKBONE = Backbone(d_model=256, n_layers=4, n_heads=8, vocab_size=4096, seq_len=256)
PROMPT, NEW = 32, 32  # tokens
BATCHES = (1, 8)
MANY = 64  # experts, of which a step must take no longer than transformers' class
SHARE_OPEN = 0.3  # of the straight-through model's gates
ENDS = {"eos_token_id": 0, "pad_token_id": 0}
SWIGLU: dict[str, Any] = {"activation": "silu", "gated": True}
DECODED = {
    "dense 1,024": FFNSpec(d_ff=1024, **SWIGLU),
    "top-1 of 8 x 512": FFNSpec(d_ff=4096, expert_width=512, selection=TopK(k=1), **SWIGLU),
    "top-8 of 64 x 64": FFNSpec(d_ff=4096, expert_width=64, selection=TopK(k=8), **SWIGLU),
    "top-8 of 64 x 128, sigmoid and bias, shared": FFNSpec(
        d_ff=8192,
        expert_width=128,
        selection=TopK(k=8, gate="sigmoid", normalize=True, bias_rate=1e-3),
        shared_width=128,
        **SWIGLU,
    ),
}


def rows() -> list[Row]:
    """A row a ratio, with its bar."""
    torch.set_num_threads(1)
    return [row for name in DECODED for row in decode_rows(name)] + straight_through_rows()


@dataclass(frozen=True)
class Exported:
    """A model in evaluation mode, with values that are not zero.

    here: by the code of this process, whose weights a native form is made of.
    model: by the code of its custom export, which knows torch alone.
    """

    here: FFNNASForCausalLM
    model: Any


def exported(spec: FFNSpec) -> Exported:
    """The design, exported with its code and loaded again."""
    torch.manual_seed(0)
    config = FFNNASConfig(spec.to_dict(), BACKBONE.to_dict(), **ENDS)
    here = FFNNASForCausalLM(config).eval()
    for name, tensor in here.named_parameters():
        if "values_BGD" in name or "out_DD" in name:
            nn.init.normal_(tensor, std=0.02)
    with tempfile.TemporaryDirectory(prefix="exported_") as folder:
        here.save_pretrained(folder)
        for name, text in bundle_sources(*methods_of(spec, BACKBONE)).items():
            (Path(folder) / name).write_text(text)
        # As a package, and not as remote code, of which transformers would keep a copy.
        with patch.object(sys, "path", [str(Path(folder).parent), *sys.path]):
            code = importlib.import_module(f"{Path(folder).name}.{module_name(ROOT_MODULE)}")
        model = code.FFNNASForCausalLM.from_pretrained(folder).eval()
    return Exported(here, model)


def reloaded(model: Any) -> Any:
    """From a directory, as the custom form: where weights lie in memory tells in decoding."""
    with tempfile.TemporaryDirectory(prefix="native_") as folder:
        model.save_pretrained(folder)
        return type(model).from_pretrained(folder).eval()


def decode_rows(name: str) -> list[Row]:
    """Greedy decoding with a cache: how many times the speed of the native form ours has."""
    spec = DECODED[name]
    both, form = exported(spec), native_form(spec, BACKBONE)
    assert isinstance(form, NativeForm)
    native = reloaded(native_model(both.here.model.proxy, spec, BACKBONE, form, ENDS))
    out = []
    for batch in BATCHES:
        ids = torch.randint(1, BACKBONE.vocab_size, (batch, PROMPT))
        ours, theirs = take_turns([decoding(both.model, ids), decoding(native, ids)])
        label = f"{name}, batch {batch}: decoding against {form.architecture}"
        speed = 1e3 * median(ours) / NEW
        out.append(Row(f"{name}, batch {batch}: a step", speed, "ms"))
        times = ratio(theirs, ours)
        many = spec.n_experts >= MANY
        out.append(at_least(label, times, 1, "x") if many else Row(label, times, "x"))
    return out


def decoding(model: Any, ids: Tensor) -> Call:
    """NEW further tokens of ids (N, L), whatever they are."""
    options = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW}
    mask = torch.ones_like(ids)
    return lambda: model.generate(ids, attention_mask=mask, **options)


def straight_through_rows(blocks: int = 8, width: int = 256) -> list[Row]:
    """A whole model's evaluation of text, with the open blocks alone and with all of them."""
    # Router logits of a normalised token are near normal: this threshold opens the wanted share.
    z = math.sqrt(2) * torch.erfinv(torch.tensor(1 - 2 * SHARE_OPEN)).item()
    selection = StraightThrough(tau=1 / (1 + math.exp(-z)), sparsity_weight=0.0)
    shape = {"d_ff": blocks * width, "expert_width": width, **SWIGLU}
    both = exported(FFNSpec(selection=selection, **shape))
    sparse, dense = both.model, exported(FFNSpec(selection=Dense(), **shape)).model
    ids = torch.randint(1, BACKBONE.vocab_size, (4, BACKBONE.seq_len))

    def evaluation(model: Any) -> Call:
        def call() -> None:
            with torch.no_grad():
                model(ids, labels=ids)

        return call

    with record_stats(both.here) as recorded:
        evaluation(both.here)()
    active = [stats.summary()["active"] for stats in recorded.values()]
    ours, theirs = take_turns([evaluation(sparse), evaluation(dense)])
    share = sum(active) / len(active)
    name = f"straight-through at {share:.0%} activity: evaluation against its dense form"
    return [at_least(name, ratio(theirs, ours), 1.5, "x")]


if __name__ == "__main__":
    main(rows, __doc__)
