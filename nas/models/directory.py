"""A model directory that this project wrote, in any form: what its config.json says, its files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.models.forms import DESIGN
from nas.models.generate import check_size
from search_space.backbone import Backbone
from search_space.contract import TOKENIZER
from search_space.errors import InputError, require, shown
from search_space.native import NativeForm, native_form
from search_space.plain import read_json
from search_space.spec import FFNSpec

CONFIG, MODEL_TYPE = "config.json", "ffn_nas"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# What a tokenizer's own writer puts beside its tokenizer.json.
_TOKENIZER_FILES = (
    TOKENIZER,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
_TOKENIZER_FOLDER = "tokenizer"  # the tokenizer once more, by itself


@dataclass(frozen=True)
class ModelDirectory:
    """An exported model.

    native: the class of transformers that it is; None for one of this project's own code.
    weights: its safetensors files, in order.
    ends: its `eos_token_id` and `pad_token_id`.
    """

    folder: Path
    spec: FFNSpec
    backbone: Backbone
    native: NativeForm | None
    weights: tuple[Path, ...]
    ends: dict[str, int]

    @classmethod
    def open(cls, folder: Path) -> ModelDirectory:
        """Read and check all but the weights. InputError for one that is no export, of another
        version, and what is missing."""
        config = read_config(folder)
        spec, backbone, native = _design(folder, config)
        weights = _weights(folder)
        require(
            os.path.isfile(folder / TOKENIZER),
            f"a model is trained with its own tokenizer: {folder} has no {TOKENIZER}; put it back",
        )
        check_size(folder)
        ends = {f"{end}_token_id": config.get(f"{end}_token_id") for end in ("eos", "pad")}
        known = {name: value for name, value in ends.items() if isinstance(value, int)}
        return cls(folder, spec, backbone, native, weights, known)

    def digest(self) -> str:
        """SHA-256 of what a training starts from: weights, design and tokenizer."""
        digest = hashlib.sha256()
        facts: dict[str, Any] = {"spec": self.spec.to_dict(), "backbone": self.backbone.to_dict()}
        if self.native is not None:  # as it was written before there was another form
            facts["class"] = self.native.architecture
        digest.update(json.dumps(facts, sort_keys=True).encode())
        for path in (*self.weights, self.folder / TOKENIZER):
            try:
                with open(path, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise InputError(f"cannot read {path}: {error.strerror}") from None
        return digest.hexdigest()

    def copy_tokenizer(self, folder: Path) -> None:
        """Put the tokenizer into another folder, as it is."""
        for name in _TOKENIZER_FILES:
            if os.path.isfile(self.folder / name):
                shutil.copyfile(self.folder / name, folder / name)
        if os.path.isdir(self.folder / _TOKENIZER_FOLDER):
            shutil.copytree(self.folder / _TOKENIZER_FOLDER, folder / _TOKENIZER_FOLDER)


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model directory. InputError where there is none, or it is no object."""
    path = folder / CONFIG
    require(
        os.path.isfile(path),  # Path.is_file raises for a name that is too long
        f"a model directory holds {CONFIG}: {folder} does not; make one with nas export",
    )
    config = read_json(path)
    require(isinstance(config, dict), f"{path} is not a JSON object")
    return dict(config)


def _design(folder: Path, config: dict[str, Any]) -> tuple[FFNSpec, Backbone, NativeForm | None]:
    """What the configuration says of the design, and the class without code that it is."""
    kind, carried = config.get("model_type"), config.get("ffn", config.get(DESIGN))
    if kind == MODEL_TYPE:
        carried = config
    require(
        isinstance(carried, dict),
        f"nas train goes on with what nas export and nas train have written: {folder} (model_type "
        f"{shown(kind)}) names no design; train it with transformers, or, of an older export, "
        "export the trial again",
    )
    spec = FFNSpec.from_dict(carried.get("spec"))  # type: ignore[union-attr]  # it checks
    backbone = Backbone.from_dict(carried.get("backbone"))  # type: ignore[union-attr]
    if kind == MODEL_TYPE or "ffn" in config:
        return spec, backbone, None
    native, classes = native_form(spec, backbone), config.get("architectures")
    require(
        isinstance(native, NativeForm) and classes == [native.architecture],
        f"{folder} is {shown(classes)}, which {spec.label} is not; export it again",
    )
    assert isinstance(native, NativeForm)
    return spec, backbone, native


def _weights(folder: Path) -> tuple[Path, ...]:
    if os.path.isfile(folder / SINGLE):
        return (folder / SINGLE,)
    require(
        os.path.isfile(folder / INDEX),
        f"{folder} has no weights: neither {SINGLE} nor {INDEX}; export it again",
    )
    index = read_json(folder / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    names = sorted(set(places.values())) if isinstance(places, dict) else []
    bare = all(isinstance(name, str) and name == os.path.basename(name) for name in names)
    require(bool(names) and bare, f"{folder / INDEX} names no files of this folder")
    missing = next((name for name in names if not os.path.isfile(folder / name)), None)
    require(missing is None, f"{folder} is not whole: it has no {missing}; export it again")
    return tuple(folder / name for name in names)
