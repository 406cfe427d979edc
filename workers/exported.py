"""A proxy from an exported directory's files, or with the initial weights of a seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from search_space.backbone import Backbone
from search_space.errors import InputError, require
from search_space.places import corpora_dir
from search_space.spec import FFNSpec
from workers.corpus.given import load_given, read_tokenizer
from workers.model import Attention, LanguageModel, ProxyLM
from workers.training.initial import draw_by_name

PREFIX = "model.proxy."  # of the proxy's tensors in an export
HEAD = "lm_head.weight"  # the embedding once more
_WAY_OUT = "it is damaged or of another version: export it again"


def load_proxy(files: Sequence[Path], spec: FFNSpec, backbone: Backbone) -> ProxyLM:
    """The proxy with the weights of an export, in float32 on the CPU; a tensor at a time is read
    beside it.

    files: safetensors, one or several shards.
    Raises InputError where they do not hold the tensors of this design.
    """
    with torch.random.fork_rng(devices=[]):
        model = ProxyLM(spec, backbone)
    own, missing = model.state_dict(), set(model.state_dict())
    with torch.no_grad():
        for file, name, tensor in _tensors(files):
            require(name in own, f"{file} has a tensor {name} that its design has not; {_WAY_OUT}")
            require(
                tensor.shape == own[name].shape,
                f"{file} does not fit its design: {name} is {tuple(tensor.shape)}, and must be "
                f"{tuple(own[name].shape)}; {_WAY_OUT}",
            )
            own[name].copy_(tensor)
            missing.discard(name)
    lacks = ", ".join(sorted(missing)[:3])
    require(not missing, f"{files[0].parent} is not whole: its weights lack {lacks}; {_WAY_OUT}")
    return model


def _tensors(files: Sequence[Path]) -> Iterator[tuple[Path, str, Tensor]]:
    """The tensors of the files under the proxy's names."""
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for name in sorted(opened.keys()):
                    if name != HEAD:
                        yield file, name.removeprefix(PREFIX), opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{file} cannot be read: {error}; {_WAY_OUT}") from None


def drawn(spec: FFNSpec, backbone: Backbone, seed: int) -> ProxyLM:
    """A proxy with the initial weights of that seed, as a study's run has them."""
    with torch.random.fork_rng(devices=[]):
        model = ProxyLM(spec, backbone)
    draw_by_name(model, seed)
    return model


def fitting_tokenizer(name: str, vocab_size: int) -> tuple[str, int, int, int | None]:
    """A tokenizer's JSON, how many tokens it has, and its ids of end of text and of padding, None
    where it has none.

    name: a tokenizer.json, a folder that holds one, or a model id on the Hub.
    Raises InputError where there is none, or it does not fit the vocabulary.
    """
    tokenizer, specials = load_given(read_tokenizer(name, corpora_dir()), vocab_size)
    tokens = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    return tokenizer.to_str(), tokens, specials.eos_id, specials.pad_id


def is_untrained(model: LanguageModel) -> bool:
    """Whether no layer adds anything yet, as right after the initial draw of a proxy."""
    layers = [module for module in model.modules() if isinstance(module, Attention)]
    return bool(layers) and not any(bool(layer.out_DD.any()) for layer in layers)
