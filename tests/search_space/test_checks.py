"""The rules of single values, and designs with absurd ones: refused at once, in one line."""

from __future__ import annotations

import json
import math
import time

import pytest

from search_space import checks
from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.cost import model_cost
from search_space.design import Method
from search_space.errors import InputError, SpecError
from search_space.methods import find, names
from search_space.methods.product_key import ProductKey
from search_space.methods.topk import TopK
from search_space.space import SearchSpace, params_of
from search_space.spec import FFNSpec

HUGE = 10**5_000  # Python writes out no more than 4,300 digits of a whole number
NO_NUMBER = (None, True, "1", [1], {"a": 1}, {1}, math.nan, math.inf, -math.inf, 1j, b"1", HUGE)


@pytest.mark.parametrize("value", NO_NUMBER, ids=lambda v: type(v).__name__)
def test_what_is_no_number_is_refused(value):
    for check in (checks.whole, checks.real):
        with pytest.raises(InputError, match=r"^x must be ") as caught:
            check("x", value)
        assert len(str(caught.value)) < 300
    assert not checks.is_whole(value) and not checks.is_real(value)


def test_bounds_are_part_of_what_they_bound():
    checks.whole("x", 2, least=2, most=2)
    checks.real("x", checks.REAL, least=checks.REAL)
    for call in (
        lambda: checks.whole("x", 1, least=2),
        lambda: checks.whole("x", 3, most=2),
        lambda: checks.whole("x", 1.0),
        lambda: checks.real("x", 1, above=1),
        lambda: checks.real("x", 2 * checks.REAL),
    ):
        with pytest.raises(InputError):
            call()


@pytest.mark.parametrize("value", [["a"], {"a": 1}, {"a"}, None, 1, "b", math.nan])
def test_a_word_is_looked_up_whatever_it_is(value):
    with pytest.raises(InputError, match="x must be one of a: got"):
        checks.one_of("x", value, ("a",))
    with pytest.raises(InputError, match=r"x: unknown method .*; "):
        checks.known_word("x", value, {"a": 1}, "method")
    with pytest.raises(InputError, match="x must be true or false: got"):
        checks.flag("x", value)


ABSURD = {
    "d_ff must be a whole number of at least 1: got inf": {"d_ff": math.inf},
    "d_ff must be a whole number of at least 1: got True": {"d_ff": True},
    "d_ff must be a whole number of at least 1: got \\[64\\]": {"d_ff": [64]},
    "d_ff must be at most 4,294,967,296: got a whole number of about 5,0": {"d_ff": HUGE},
    "depth must divide d_ff: 65536 does not divide 4294967291; nearest: 1, 4294967291": {
        "d_ff": 4_294_967_291,  # a prime
        "depth": 65_536,
    },
    "expert_width must divide d_ff/depth: 4294967295 does not divide 4294967291": {
        "d_ff": 4_294_967_291,
        "expert_width": 2**32 - 1,
    },
    "lr_multiplier must be a finite number of at most 1e": {"d_ff": 4, "lr_multiplier": HUGE},
    "selection must be a method's object: got Method": {"d_ff": 4, "selection": Method()},
    "selection must be a method's object: got 'topk'": {"d_ff": 4, "selection": "topk"},
    "activation must be one of gelu, relu, silu: got \\['gelu'\\]": {
        "d_ff": 4,
        "activation": ["gelu"],
    },
    "z_weight must be a finite number of at least 0: got nan": {
        "d_ff": 4,
        "selection": TopK(z_weight=math.nan),
    },
    "key_dim must be at most 65,536": {"d_ff": 4, "selection": ProductKey(key_dim=2**63)},
}


@pytest.mark.parametrize("message", ABSURD)
def test_an_absurd_design_is_refused_at_once(message):
    began = time.monotonic()
    with pytest.raises(SpecError, match=message):
        FFNSpec(**ABSURD[message])
    assert time.monotonic() - began < 2  # seconds; trying divisors one by one takes minutes


@pytest.mark.parametrize("method", names())
def test_the_largest_design_of_every_method_has_a_key_a_label_and_a_price(method):
    knobs = {"heads": 1, "k": 1} if method == "product_key" else {}
    width = 1 if method in ("direct", "product_key") else 2**16
    spec = FFNSpec(d_ff=2**32, expert_width=width, selection=find(method)(**knobs))
    assert FFNSpec.from_dict(json.loads(json.dumps(spec.to_dict()))).key == spec.key
    assert spec.label.startswith("peer" if method == "product_key" else method)
    largest = Backbone(d_model=2**16, n_layers=2**16, n_heads=1, vocab_size=2**24, seq_len=2**24)
    assert all(map(math.isfinite, model_cost(spec, largest).to_dict().values()))
    with pytest.raises(InputError, match="lies outside the space"):
        params_of(SearchSpace(), spec, Backbone())


@pytest.mark.parametrize("data", [None, [], "topk", 1, [["d_ff", 1]]])
def test_sections_are_mappings(data):
    for cls in (FFNSpec, Backbone, Recipe, SearchSpace):
        with pytest.raises(InputError, match="is a mapping of its fields: got"):
            cls.from_dict(data)
