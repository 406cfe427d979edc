"""What a study that cuts a pretrained model learns of it before anything runs: its shape.

A Llama-like checkpoint in a folder or on the Hub. Its configuration is read here, without torch;
its weights are read by the workers.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from search_space.backbone import Backbone
from search_space.base import CONFIG, FILES, Base, Family, Own, digest_of
from search_space.checks import TOKENS, whole
from search_space.errors import InputError, check_keys, require, shown
from search_space.placement import reference
from search_space.plain import read_json
from search_space.spec import FFNSpec


def with_base(given: dict[str, Any]) -> dict[str, Any]:
    """A study's plain data with what it has from the pretrained model that it cuts, unless that was
    read before; unchanged where it cuts none.

    Raises InputError for what does not go with such a model.
    """
    model, backbone = given.get("base_model"), given.get("backbone") or {}
    if not model or (isinstance(backbone, Mapping) and backbone.get("base")):
        return given
    require(isinstance(model, str), f"base_model is a folder or a Hub id: got {shown(model)}")
    sections = {name: given.get(name) or {} for name in ("backbone", "corpus", "space")}
    for name, value in sections.items():
        mapping = isinstance(value, Mapping)
        require(mapping, f"{name} is a mapping of its fields: got {shown(value)}")
    check_keys("backbone beside base_model", backbone, ["seq_len"])
    seq_len = backbone.get("seq_len", Backbone.seq_len)
    whole("backbone: seq_len", seq_len, 2, TOKENS)
    found = read_base(model, seq_len)
    assert found.base is not None
    corpus, space = dict(sections["corpus"]), dict(sections["space"])
    require(
        not corpus.get("tokenizer"),
        "corpus: the tokenizer is the base model's; leave corpus.tokenizer out",
    )
    corpus["tokenizer"] = found.base.model
    space.setdefault("match", "units")
    more = {"backbone": found.to_dict(), "base_model": found.base.model}
    return given | more | {"corpus": corpus, "space": space}


def read_base(model: str, seq_len: int) -> Backbone:
    """The backbone that a base model is.

    model: a folder, or an id on the Hub, whose files are fetched.
    seq_len: tokens of a training sequence.
    Raises InputError, in one line, for what is no Llama-like model of float weights.
    """
    folder = _folder(model)
    config = read_json(folder / CONFIG)
    require(isinstance(config, dict), f"base_model {model!r}: {CONFIG} is not a JSON object")
    family = config.get("model_type")
    if family in get_args(Own):
        return _own(model, folder, config, seq_len)
    require(
        family in get_args(Family),
        f"base_model {model!r} is of the family {shown(family)}; known are "
        f"{', '.join((*get_args(Family), *get_args(Own)))}",
    )
    require(
        not config.get("quantization_config"),
        f"base_model {model!r} has quantised weights, which are not trained on; give the model "
        "that it was made of",
    )
    _check_attention(model, config)
    base = Base(
        model=str(folder) if os.path.isdir(model) else model,
        digest=digest_of(folder),
        family=family,
        head_dim=config.get("head_dim")
        or _number(model, config, "hidden_size") // _number(model, config, "num_attention_heads"),
        n_kv_heads=config.get("num_key_value_heads") or config["num_attention_heads"],
        activation=_activation(model, config),
        tied=bool(config.get("tie_word_embeddings", False)),
    )
    _check_length(model, seq_len, config.get("max_position_embeddings") or seq_len)
    return Backbone(
        d_model=_number(model, config, "hidden_size"),
        n_layers=_number(model, config, "num_hidden_layers"),
        n_heads=_number(model, config, "num_attention_heads"),
        vocab_size=_number(model, config, "vocab_size"),
        seq_len=seq_len,
        reference_d_ff=_number(model, config, "intermediate_size"),
        rope_theta=_theta(config),
        base=base,
    )


def _own(model: str, folder: Path, config: Mapping[str, Any], seq_len: int) -> Backbone:
    """Of an export of this project in its custom form, which must be a dense design in all layers.
    Its embedding, attention and norms are a proxy's, and so are those of what is cut of it."""
    spec = FFNSpec.from_dict(config.get("spec"))  # type: ignore[arg-type]  # it checks
    backbone = Backbone.from_dict(config.get("backbone"))  # type: ignore[arg-type]
    one = spec.depth == 1 and not spec.output_gate and spec.placement == "all"
    require(
        spec.method == reference(backbone).method and one,
        f"base_model {model!r} is {spec.label}, and what is cut is one dense FFN in every layer; "
        "give an export of such a design",
    )
    _check_length(model, seq_len, backbone.seq_len)
    base = Base(
        model=str(folder) if os.path.isdir(model) else model,
        digest=digest_of(folder),
        family="ffn_nas",
        head_dim=backbone.head_dim,
        n_kv_heads=backbone.n_heads,
        activation=spec.activation,
        tied=True,
        gated=spec.gated,
    )
    units = spec.d_ff + spec.shared_width
    return dataclasses.replace(backbone, seq_len=seq_len, reference_d_ff=units, base=base)


def _check_length(model: str, seq_len: int, longest: int) -> None:
    require(
        seq_len <= longest,
        f"backbone.seq_len {seq_len} is more than the {longest} positions of {model!r}; lower it",
    )


def _folder(model: str) -> Path:
    """Where the files are; those of a Hub model are fetched."""
    path = Path(os.path.expanduser(model))
    if path.is_dir():
        require(
            (path / CONFIG).is_file(),
            f"base_model: a model's folder holds {CONFIG}: {model!r} does not",
        )
        return path.absolute()
    looks_local = path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1
    require(not looks_local, f"base_model: there is no folder {model!r}; give one, or a Hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(model, allow_patterns=FILES))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"base_model {model!r} cannot be had from the Hub: {reason}; log in with hf auth login "
            "where it is gated, or give a folder"
        ) from None


def _number(model: str, config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    require(
        isinstance(value, int) and not isinstance(value, bool) and value > 0,
        f"base_model {model!r}: {CONFIG} has no {name}: got {shown(value)}",
    )
    return int(value)  # type: ignore[arg-type]


def _activation(model: str, config: Mapping[str, Any]) -> Any:
    name = config.get("hidden_act", "silu")
    known = {"silu": "silu", "swish": "silu", "relu": "relu", "gelu": "gelu"}
    require(
        name in known,
        f"base_model {model!r} has the activation {shown(name)}; known are {', '.join(known)}",
    )
    return known[name]


def _check_attention(model: str, config: Mapping[str, Any]) -> None:
    """What a cut model would lose silently is refused: biases of the FFN."""
    require(
        not config.get("mlp_bias"),
        f"base_model {model!r} has biases in its FFN (mlp_bias), which experts have not",
    )


def _theta(config: Mapping[str, Any]) -> float:
    ropes = config.get("rope_parameters") or {}
    return float(ropes.get("rope_theta") or config.get("rope_theta") or 10_000.0)
