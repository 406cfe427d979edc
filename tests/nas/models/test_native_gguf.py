"""A native export as GGUF: llama.cpp's names and metadata take it whole, and its graph gives the
proxy's logits.

The converter itself is no package. What it does with these classes stands here in short: which
metadata it writes, that experts are stacked, and that rows of queries and keys stay where they are
(its NEOX rotation pairs halves). The graphs are written anew from what is read back, and from
nothing else.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict

import gguf
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from test_native_export import BACKBONE, DESIGNS, written

from search_space.native import native_form

pytestmark = pytest.mark.slow

ARCHITECTURES = {
    "Qwen3ForCausalLM": gguf.MODEL_ARCH.QWEN3,
    "Qwen3MoeForCausalLM": gguf.MODEL_ARCH.QWEN3MOE,
    "Dots1ForCausalLM": gguf.MODEL_ARCH.DOTS1,
}
# That a file of these classes need not have.
OPTIONAL = {
    gguf.MODEL_TENSOR.ROPE_FREQS,  # of long contexts
    gguf.MODEL_TENSOR.FFN_GATE,  # these three: of dots.llm1's dense layers
    gguf.MODEL_TENSOR.FFN_DOWN,
    gguf.MODEL_TENSOR.FFN_UP,
}


def to_gguf(folder, path) -> None:
    """Metadata and tensors, by the names of the gguf package."""
    config = json.loads((folder / "config.json").read_text())
    arch = ARCHITECTURES[config["architectures"][0]]
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    if arch != gguf.MODEL_ARCH.QWEN3:
        writer.add_expert_count(config.get("num_experts", config.get("n_routed_experts")))
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if arch == gguf.MODEL_ARCH.DOTS1:
        assert config["scoring_func"] == "sigmoid"
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
        writer.add_leading_dense_block_count(config["first_k_dense_replace"])
        writer.add_expert_shared_count(config["n_shared_experts"])
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
        writer.add_expert_weights_norm(config["norm_topk_prob"])
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    for name, tensor in stacked(load_file(folder / "model.safetensors")).items():
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, f"the map has no {name}"
        writer.add_tensor(found, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def stacked(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A matrix for all experts of a layer, and the bias of the choice named as a bias."""
    out, experts = {}, defaultdict(dict)
    for name, tensor in tensors.items():
        part = re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+\.weight)", name)
        if part:
            experts[f"{part[1]}.{part[3]}"][int(part[2])] = tensor
        else:
            out[name.replace("e_score_correction_bias", "e_score_correction.bias")] = tensor
    for name, own in experts.items():
        out[name] = torch.stack([own[number] for number in range(len(own))])
    return out


class Read:
    """A GGUF file: its metadata by key, and its tensors by name."""

    def __init__(self, path) -> None:
        reader = gguf.GGUFReader(path)
        self.arch = reader.fields["general.architecture"].contents()
        self._fields = reader.fields
        self.tensors = {t.name: torch.tensor(t.data) for t in reader.tensors}

    def __getitem__(self, key: str):
        return self._fields[f"{self.arch}.{key}"].contents()

    def __call__(self, name: str) -> torch.Tensor:
        return self.tensors[f"{name}.weight"]


def norm(x, gain, eps):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain


def turned(x_LHC, base):
    """NEOX rotary positions: element i goes with i + C/2."""
    length, _, width = x_LHC.shape
    angle = torch.arange(length)[:, None] * base ** (-torch.arange(0, width, 2) / width)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    first, second = x_LHC.chunk(2, -1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def attention(file, block, x_LD):
    heads, width = file["attention.head_count"], file["attention.key_length"]
    eps, base = file["attention.layer_norm_rms_epsilon"], file["rope.freq_base"]
    q, k, v = (
        (x_LD @ file(f"{block}.attn_{name}").T).view(len(x_LD), heads, width) for name in "qkv"
    )
    q = turned(norm(q, file(f"{block}.attn_q_norm"), eps), base)
    k = turned(norm(k, file(f"{block}.attn_k_norm"), eps), base)
    score = torch.einsum("ihc,jhc->hij", q, k) / width**0.5
    future = torch.ones(len(x_LD), len(x_LD)).triu(1).bool()
    y = torch.einsum("hij,jhc->ihc", score.masked_fill(future, -torch.inf).softmax(-1), v)
    return y.reshape(len(x_LD), -1) @ file(f"{block}.attn_output").T


def swiglu(x, gate, up, down):
    return (F.silu(x @ gate.T) * (x @ up.T)) @ down.T


def ffn(file, block, x_LD):
    def matrices(kind):
        return [file(f"{block}.ffn_{name}{kind}") for name in ("gate", "up", "down")]

    if file.arch == "qwen3":
        return swiglu(x_LD, *matrices(""))
    logits = x_LD @ file(f"{block}.ffn_gate_inp").T
    p = logits.softmax(-1) if file.arch == "qwen3moe" else logits.sigmoid()
    # The graph of qwen3moe normalises always.
    normalised = file.arch == "qwen3moe" or file["expert_weights_norm"]
    choice = p if file.arch == "qwen3moe" else p + file.tensors[f"{block}.exp_probs_b.bias"]
    gate, up, down = matrices("_exps")
    rows = []
    for x, weights, score in zip(x_LD, p, choice, strict=True):
        kept = score.topk(file["expert_used_count"]).indices
        share = weights[kept] / weights[kept].sum() if normalised else weights[kept]
        parts = [w * swiglu(x, gate[e], up[e], down[e]) for e, w in zip(kept, share, strict=True)]
        rows.append(torch.stack(parts).sum(0))
    out = torch.stack(rows)
    if file.arch == "dots1":
        out = out * file["expert_weights_scale"] + swiglu(x_LD, *matrices("_shexp"))
    return out


def graph(file: Read, ids) -> torch.Tensor:
    """The logits (L, V) of ids (L,), by llama.cpp's graph of the file's architecture."""
    eps = file["attention.layer_norm_rms_epsilon"]
    x_LD = file("token_embd")[ids]
    for number in range(file["block_count"]):
        block = f"blk.{number}"
        x_LD = x_LD + attention(file, block, norm(x_LD, file(f"{block}.attn_norm"), eps))
        x_LD = x_LD + ffn(file, block, norm(x_LD, file(f"{block}.ffn_norm"), eps))
    return norm(x_LD, file("output_norm"), eps) @ file("output").T


@pytest.mark.parametrize(
    "name",
    ["SwiGLU", "softmax, normalised", "Avg-K of one", "sigmoid", "sigmoid, shared, filled up"],
)
def test_llama_cpps_graph_over_the_gguf_gives_the_proxys_logits(tmp_path, name):
    proxy = written(DESIGNS[name], tmp_path)
    to_gguf(tmp_path, tmp_path / "model.gguf")
    file = Read(tmp_path / "model.gguf")
    ids = torch.randint(300, (24,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = proxy.logits(proxy(ids[None]).hidden_NLD)[0]
        error = (graph(file, ids) - want).abs().max()
    assert error <= 2e-5


@pytest.mark.parametrize("name", ["SwiGLU", "softmax", "sigmoid"])
def test_the_gguf_has_every_tensor_that_its_architecture_asks_for(tmp_path, name):
    written(DESIGNS[name], tmp_path)
    to_gguf(tmp_path, tmp_path / "model.gguf")
    file = Read(tmp_path / "model.gguf")
    arch = next(a for a in ARCHITECTURES.values() if gguf.MODEL_ARCH_NAMES[a] == file.arch)
    kinds = set(gguf.MODEL_TENSORS[arch])
    kinds -= OPTIONAL if name == "sigmoid" else {gguf.MODEL_TENSOR.ROPE_FREQS}
    wanted = {gguf.TENSOR_NAMES[kind].format(bid=block) for kind in kinds for block in range(2)}
    found = {tensor.removesuffix(".weight").removesuffix(".bias") for tensor in file.tensors}
    assert found == wanted


def test_weights_that_do_not_sum_to_one_are_not_called_llama_cpps(tmp_path):
    spec = DESIGNS["softmax"]
    assert not native_form(spec, BACKBONE).llama_cpp
    proxy = written(spec, tmp_path)
    to_gguf(tmp_path, tmp_path / "model.gguf")
    ids = torch.randint(300, (24,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = proxy.logits(proxy(ids[None]).hidden_NLD)[0]
        assert (graph(Read(tmp_path / "model.gguf"), ids) - want).abs().max() > 0.1
