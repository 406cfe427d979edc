"""Random specs, as JSON and as Python: each is a design with a price, or one line.

A third is random nested data, a third published designs with absurd numbers in them, a third built
from the classes themselves.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.abuse.commands import Late, in_process, time_limit, wrong, wrong_message
from search_space.backbone import Backbone
from search_space.checks import is_real
from search_space.cost import model_cost
from search_space.design import Method
from search_space.errors import InputError, shown
from search_space.methods import find, names
from search_space.presets import PRESETS
from search_space.space import SearchSpace, params_of
from search_space.spec import FFNSpec

FULL, SHORT = 4_000, 120

NUMBERS: tuple[Any, ...] = (
    0, 1, 2, 3, 4, 7, 8, 16, 60, 64, 97, 128, 256, 512, 1000, 1024, 4096, 65_535, 65_536, 65_537,
    2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 5, 2**32, 2**32 + 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64,
    10**30, 10**400, 10**5_000, -1, -(2**63), 0.0, -0.0, 0.25, 0.5, 1.0, 1.5, 1e-300, 1e18, 1e308,
    math.inf, -math.inf, math.nan, True, False,
)  # fmt: skip
WORDS: tuple[Any, ...] = (
    "", "dense", "topk", "hash", "avgk", "direct", "product_key", "straight_through", "d_ff", "k",
    "relu_routing", "gelu", "relu", "silu", "softmax", "sigmoid", "batch", "layer", "none", "peer",
    "pkm", "method", "selection", "é", "\0", "\ud800", "x" * 10_001, "1e12", None,
)  # fmt: skip
FIELDS = tuple(f.name for f in dataclasses.fields(FFNSpec))
SELECTIONS = tuple(find(name) for name in names())
KNOBS = tuple({f.name for cls in SELECTIONS for f in dataclasses.fields(cls)})
BACKBONES = (Backbone(), Backbone(d_model=65_536, n_layers=65_536, vocab_size=2**24))


def attempts(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Read or build `count` specs, and ask each that is legal all that a spec is asked."""
    chance = random.Random(seed)
    for number in range(count):
        kind = chance.choice((nested, absurd, built))
        given = kind(chance)
        if kind is not built and chance.random() < 0.1:
            fault = _command(chance, given, folder)
        else:
            fault = _outcome(given if kind is built else lambda data=given: FFNSpec.from_dict(data))
        told = given.keywords if kind is built else given
        yield fault and f"{number}: {kind.__name__}: {fault} from {shown(told)}"


def nested(chance: random.Random) -> Any:
    """Random nested data; most of it mappings with the fields of a spec."""
    data = _nested(chance, 0)
    if not isinstance(data, dict) or chance.random() < 0.1:
        return data
    return {"d_ff": chance.choice(NUMBERS)} | data


def _nested(chance: random.Random, depth: int) -> Any:
    what = chance.random()
    if what < 0.5 and depth < 4:
        names = FIELDS if depth == 0 else KNOBS + ("method",)
        keys = (chance.choice(names if chance.random() < 0.9 else WORDS) for _ in range(4))
        return {key: _nested(chance, depth + 1) for key in keys}
    if what < 0.6 and depth < 4:
        return [_nested(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return chance.choice(NUMBERS if what < 0.85 else WORDS)


def absurd(chance: random.Random) -> dict[str, Any]:
    """A published design with one to three of its fields of the right kind and of any size."""
    data = copy.deepcopy(chance.choice(list(PRESETS.values()))(Backbone()).to_dict())
    for _ in range(chance.choice((1, 1, 2, 3))):
        holder = data if chance.random() < 0.6 else data["selection"]
        name = chance.choice(sorted(holder))
        if name != "selection":
            holder[name] = _like(chance, holder[name])
    return data


def _like(chance: random.Random, value: Any) -> Any:
    if isinstance(value, bool) or chance.random() < 0.1:
        return chance.choice((True, False, None, 0, 1, "yes", [], {}))
    if isinstance(value, str):
        return chance.choice(WORDS)
    powers = 2 ** chance.randint(0, 70)
    scale = chance.choice((chance.randint(1, 8), powers, chance.choice(NUMBERS)))
    numbers = is_real(value) and is_real(scale)
    return value * scale if numbers and chance.random() < 0.3 else scale


def built(chance: random.Random) -> functools.partial[FFNSpec]:
    """A call of the classes themselves, with what JSON cannot say too."""
    objects: tuple[Any, ...] = ({1}, object(), b"x", 1j, (1, 2), Method(), FFNSpec(d_ff=4))

    def value() -> Any:
        what = chance.random()
        return chance.choice(NUMBERS if what < 0.75 else WORDS if what < 0.9 else objects)

    cls = chance.choice(SELECTIONS)
    names = [f.name for f in dataclasses.fields(cls)]
    knobs = {name: value() for name in names if chance.random() < 0.4}
    fields = {name: value() for name in FIELDS if chance.random() < 0.25}
    fields["d_ff"] = chance.choice((64, 4_096, value()))
    if chance.random() < 0.7:
        fields["selection"] = cls(**knobs)
    return functools.partial(FFNSpec, **fields)


def _outcome(make: Callable[[], FFNSpec]) -> str:
    try:
        with time_limit():
            try:
                spec = make()
            except InputError as error:
                return wrong_message(str(error))
            return _asked(spec)
    except (Exception, Late) as error:
        return f"{type(error).__name__}: {ascii(error)[:200]}"


def _asked(spec: FFNSpec) -> str:
    """Ask a legal spec for all that the service asks one for."""
    again = FFNSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    if (again.key, again.label) != (spec.key, spec.label):
        return "another key or label after it was written and read"
    for backbone in BACKBONES:
        costs = model_cost(spec, backbone).to_dict()
        if not all(math.isfinite(value) and value >= 0 for value in costs.values()):
            return f"a price that is no number: {costs}"
    try:
        params_of(SearchSpace(), spec, BACKBONES[0])
    except InputError as error:
        return wrong_message(str(error))
    return ""


def _command(chance: random.Random, data: Any, folder: Path) -> str:
    """`nas cost`, with the spec in a file or as an argument."""
    text = _written(data)
    if chance.random() < 0.5 and text.startswith("{") and "\0" not in text:
        return wrong(in_process(["cost", text]))
    path = folder / "spec.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return wrong(in_process(["cost", str(path), "--json"]))


def _written(data: Any) -> str:
    try:
        return json.dumps(data, default=repr)
    except ValueError:  # a whole number that Python does not write out
        return '{"d_ff": ' + "9" * 5_000 + "}"
    except TypeError:  # a key that is no text
        return "{d_ff: 1}"
