"""`Base`: a dense pretrained model whose FFNs a study cuts into experts, and which cuts are legal.

Only plain facts: `nas.base_model` reads them from a checkpoint's configuration.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from search_space.checks import DIM, flag, known_word, section, text, whole
from search_space.design import Activation, Design
from search_space.errors import SpecError, require
from search_space.methods import find, names
from search_space.plain import read_json

CONFIG = "config.json"
FILES = ["*.json", "*.safetensors", "*.txt"]  # of a Hub model
_ENDS = 65_536  # bytes of each end of a weights' file that name it, with its size
Family = Literal["llama", "mistral", "qwen2", "qwen3"]
Own = Literal["ffn_nas"]  # an export of a dense design of this project, in its custom form


@dataclass(frozen=True, kw_only=True)
class Base:
    """A decoder of Llama's kind: RMSNorm, rotary attention, a gated FFN; or a dense proxy.

    model: its folder, or its id on the Hub.
    digest: names its configuration and weights by their content.
    family: its `model_type`; `ffn_nas` of a proxy.
    head_dim: width of a head; d_model need not be n_heads times it.
    n_kv_heads: heads of keys and values.
    activation: of its FFN.
    tied: whether its head is its embedding.
    gated: whether its FFN is.
    """

    model: str
    digest: str
    family: Family | Own
    head_dim: int
    n_kv_heads: int
    activation: Activation = "silu"
    tied: bool = False
    gated: bool = True

    def __post_init__(self) -> None:
        for name in ("model", "digest"):
            text(f"base: {name}", getattr(self, name))
        known_word("base: family", self.family, (*get_args(Family), *get_args(Own)), "family")
        known_word("base: activation", self.activation, get_args(Activation), "activation")
        for name in ("head_dim", "n_kv_heads"):
            whole(f"base: {name}", getattr(self, name), 1, DIM)
        flag("base: tied", self.tied)
        flag("base: gated", self.gated)
        require(self.gated or self.own, f"base: a {self.family} has a gated FFN")

    @property
    def own(self) -> bool:
        """Whether it is a proxy, and so are the models that are cut of it."""
        return self.family in get_args(Own)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; `gated` is there where it is not, as there were no others
        before."""
        out = asdict(self)
        if self.gated:
            del out["gated"]
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Base:
        """Read `to_dict`'s form; an unknown key is refused."""
        return section(cls, "base", data)


def digest_of(folder: Path) -> str:
    """Names a checkpoint's configuration and weights by their content: of a weights' file its size
    and both ends are read, for some are larger than a command may wait for.

    Raises InputError where there are none.
    """
    config = json.dumps(read_json(folder / CONFIG), sort_keys=True)
    digest, files = hashlib.sha256(config.encode()), sorted(folder.glob("*.safetensors"))
    require(
        bool(files),
        f"base_model: {str(folder)!r} holds no *.safetensors; save the model again with "
        "save_pretrained",
    )
    for file in files:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(_ENDS)
            stream.seek(max(0, size - _ENDS))
            digest.update(f"{file.name} {size}".encode() + head + stream.read())
    return digest.hexdigest()[:32]


def cuttable() -> tuple[str, ...]:
    """The methods whose experts can be slices of a trained FFN."""
    return tuple(name for name in names() if find(name).cuttable)


def check_cut(spec: Design, base: Base, units: int) -> None:
    """Raise SpecError unless a model's FFN, `units` wide, can be cut into this design."""

    def need(holds: bool, rule: str, got: object) -> None:
        if not holds:
            raise SpecError(f"a cut of {base.model}: {rule}: got {got}")

    words = ", ".join(cuttable())
    need(spec.selection.cuttable, f"the method is one of {words}", spec.method)
    need(spec.gated == base.gated and spec.activation == base.activation,
         f"experts are its own, {'gated with' if base.gated else 'plain'} {base.activation}",
         f"{spec.activation}, gated {spec.gated}")  # fmt: skip
    need(spec.depth == 1, "depth is 1", spec.depth)
    need(not spec.output_gate, "there is no output gate", spec.output_gate)
    need(spec.shared_width == 0, "shared_width is 0", spec.shared_width)
    need(spec.d_ff <= units, f"d_ff is at most its {units} hidden units", spec.d_ff)
