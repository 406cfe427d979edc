"""Visiting the designs of a space: every one, one of every shape, how many there are, and the way
back to choices."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from search_space.backbone import Backbone
from search_space.errors import InputError, SpecError
from search_space.space.asking import placements, suggest
from search_space.space.data import SearchSpace
from search_space.space.parameters import METHOD, SHARED, held, parameters_of
from search_space.space.walk import Draw, OutsideSpace, Walk
from search_space.spec import FFNSpec

LOOKS = 2_000  # paths that a question about a whole space may try


def walked(
    space: SearchSpace, backbone: Backbone, walk: Walk, most: float = math.inf
) -> Iterator[tuple[Walk, FFNSpec]]:
    """The legal designs on at most so many paths of a walk, each with the walk as it stands."""
    for looked in itertools.count():
        if looked >= most or not walk.next_path():
            return
        try:
            spec = suggest(space, walk, backbone)
        except SpecError:
            continue
        yield walk, spec


def designs(space: SearchSpace, backbone: Backbone) -> Iterator[tuple[dict[str, Any], FFNSpec]]:
    """Every legal combination of the choices with its parameters; ranges stand at `low`."""
    return ((dict(walk.params), spec) for walk, spec in walked(space, backbone, Walk({})))


def shapes(space: SearchSpace, backbone: Backbone) -> Iterator[tuple[FFNSpec, int]]:
    """One legal design of every shape, with the number of combinations that have it.

    Knobs that change neither widths nor cost (`Parameter.shape`) stand at their first choice,
    so this visits few designs of a large space, and one of every cost that it offers.
    """
    # A placement changes no width, so that a design is sized once for all.
    everywhere = dataclasses.replace(space, placement=("all",))
    for walk, spec in walked(everywhere, backbone, Walk({}, held=held(space))):
        for placement in placements(space, backbone):
            yield dataclasses.replace(spec, placement=placement), walk.multiplicity


def look(space: SearchSpace, backbone: Backbone) -> Iterator[FFNSpec]:
    """Legal designs among LOOKS paths in order and as many drawn ones: a bounded time.

    Shows one of every shape while the space has no more paths than that.
    """
    walk = Walk({}, held=held(space))
    yield from (spec for _, spec in walked(space, backbone, walk, most=LOOKS))
    if walk.ended:
        return
    draw = Draw(seed=0)
    for _ in range(LOOKS):
        with contextlib.suppress(SpecError):
            yield suggest(space, draw, backbone)


def combinations(space: SearchSpace, backbone: Backbone) -> int:
    """Number of different legal designs, each range counted as one value.

    Combinations that spell the same function (`FFNSpec.canonical`) count once.
    """
    return sum({spec.canonical(): n for spec, n in shapes(space, backbone)}.values())


@dataclass(frozen=True, kw_only=True)
class Count:
    """Different legal designs of one method; at least so many when not `complete`."""

    method: str
    designs: int
    complete: bool


def count_designs(
    space: SearchSpace, backbone: Backbone, *, seconds: float = math.inf
) -> list[Count]:
    """The designs of each method, as `combinations` counts them.

    A method that its share of the time does not suffice for is counted as far as it got.
    """
    end = time.monotonic() + seconds
    counts = []
    for index, method in enumerate(space.methods):
        share = (end - time.monotonic()) / (len(space.methods) - index)
        counts.append(_count(space, backbone, method, time.monotonic() + share))
    return counts


def _count(space: SearchSpace, backbone: Backbone, method: str, end: float) -> Count:
    found: dict[FFNSpec, int] = {}
    complete = time.monotonic() <= end
    if complete:
        # Each is there once for every placement, so one stands for all.
        everywhere = dataclasses.replace(space, methods=(method,), placement=("all",))
        for spec, multiplicity in shapes(everywhere, backbone):
            found[spec.canonical()] = multiplicity
            if time.monotonic() > end:
                complete = False
                break
    return Count(
        method=method,
        designs=sum(found.values()) * len(placements(space, backbone)),
        complete=complete,
    )


def params_of(space: SearchSpace, spec: FFNSpec, backbone: Backbone) -> dict[str, Any]:
    """Parameters that make `suggest` yield a design with the key of `spec`.

    Raises InputError when the spec lies outside the space, or is not among the first LOOKS
    paths to designs that are alike.
    """
    pins = _pins(spec.canonical())
    try:
        walks = walked(space, backbone, Walk(pins), most=LOOKS)
        for walk, candidate in walks:
            if candidate.key == spec.key:
                return dict(walk.params)
    except OutsideSpace as error:
        raise InputError(f"{spec.label} lies outside the space: {error}") from None
    ratios = (p for p in parameters_of(spec.method) if space.match in p.match)
    raise InputError(
        f"{spec.label} lies outside the space: no legal choice gives d_ff {spec.d_ff}, "
        f"expert_width {spec.expert_width}, shared_width {spec.shared_width}; widen "
        + ", ".join(p.name for p in ratios if p.name not in pins)
    )


def _pins(spec: FFNSpec) -> dict[str, Any]:
    """The parameters that a spec spells out; the walk tries the ratios that it does not."""
    fields = {f.name: getattr(spec, f.name) for f in dataclasses.fields(spec)}
    pinned = {name: value for name, value in fields.items() if name in SHARED}
    if spec.shared_width:
        del pinned["shared_width"]  # a share in the space
    return pinned | {METHOD.name: spec.method} | spec.selection.pins(spec)
