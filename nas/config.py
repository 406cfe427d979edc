"""`StudyConfig`: what a user writes in a study's YAML, validated before anything runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from nas.base_model import with_base
from nas.machines import Workers
from nas.search.dearest import dearest_among, dearest_in_space
from nas.search.decisions import Plan
from nas.search.objectives import objective
from nas.search.rungs import expected_flops, path_flops
from nas.search.settings import Budget, Constraints, SamplerKind
from nas.store.names import check_name
from nas.warm_start import Kind, WarmStart, named, read_warm_start
from nas.yaml_file import numbers, read_yaml
from search_space.backbone import Backbone
from search_space.base import check_cut
from search_space.checks import is_whole, known_word, section, whole
from search_space.contract import Precision, Recipe
from search_space.corpus import CorpusSpec
from search_space.cost import step_flops
from search_space.design import Placement
from search_space.errors import InputError, SpecError, check_keys, require, shown
from search_space.methods import find
from search_space.placement import placed
from search_space.plain import checked
from search_space.space import SearchSpace, look
from search_space.spec import FFNSpec

MOST_WARM_STARTS = 1_000
LEAST_STEPS = 50  # of the dearest design at the lowest of several rungs


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """One study.

    name, seed: of the study.
    kind: whether proxies are trained from nothing, or cut from `base_model` and trained on.
    base_model: a dense pretrained model, as a folder or an id on the Hub; `backbone` is read from
        its configuration, but for seq_len, and its tokenizer is the corpus's.
    corpus: the text.
    backbone: the proxy around the FFN.
    recipe: how proxies are trained.
    space: the designs.
    objectives: minimised together; bits_per_byte is the first.
    constraints: upper bounds on a design's cost.
    budget: trials and FLOPs.
    warm_start: designs tried first, as presets' names, presets at the reference's cost, or specs;
        they may lie outside the space.
    sampler: who proposes the others.
    workers: the machines.
    eval_tokens: validation tokens that a result is measured on.
    """

    name: str = "study"
    seed: int = 0
    kind: Kind = "pretrain"
    base_model: str = ""
    budget: Budget
    corpus: CorpusSpec = field(default_factory=CorpusSpec)
    backbone: Backbone = field(default_factory=Backbone)
    recipe: Recipe = field(default_factory=Recipe)
    space: SearchSpace = field(default_factory=SearchSpace)
    objectives: tuple[str, ...] = ("bits_per_byte", "active_flops")
    constraints: Constraints = field(default_factory=Constraints)
    warm_start: tuple[WarmStart, ...] = ()
    sampler: SamplerKind = "tpe"
    workers: Workers = field(default_factory=Workers)
    eval_tokens: int = 65_536

    def __post_init__(self) -> None:
        check_name(self.name)
        whole("seed", self.seed, 0)
        known_word("sampler", self.sampler, get_args(SamplerKind), "value")
        known_word("kind", self.kind, get_args(Kind), "value")
        self._check_kind()
        require(
            is_whole(self.eval_tokens, self.backbone.seq_len),
            "eval_tokens must be a whole number of at least one sequence, "
            f"{self.backbone.seq_len} tokens: got {shown(self.eval_tokens)}",
        )
        self._check_objectives()
        self._check_warm_start()
        self._check_space()
        self._check_budget()

    def _check_kind(self) -> None:
        sparsify = self.kind == "sparsify"
        require(
            sparsify == bool(self.base_model) == (self.backbone.base is not None),
            "kind: sparsify and base_model belong together: got "
            f"kind {self.kind} and base_model {shown(self.base_model)}",
        )

    def _check_objectives(self) -> None:
        first = self.objectives[:1]
        require(
            first == ("bits_per_byte",),
            f"objectives: the first must be bits_per_byte: got {shown(list(self.objectives))}",
        )
        for index, name in enumerate(self.objectives):
            objective(name)
            require(name not in self.objectives[:index], f"objectives: {name} is given twice")

    def _check_warm_start(self) -> None:
        require(
            len(self.warm_start) <= MOST_WARM_STARTS,
            f"warm_start has {len(self.warm_start):,} designs, at most {MOST_WARM_STARTS:,} are "
            "tried first; leave some out",
        )
        names: dict[str, str] = {}
        for name, spec in self.warm_start_specs():
            self._check_placement(f"warm_start: {name}", spec.placement)
            self._check_cut(f"warm_start: {name}", spec)
            broken = self.constraints.broken(spec, self.backbone)
            require(
                not broken,
                f"warm_start: {name} breaks a constraint: {broken}; raise the bound or leave "
                f"{name} out",
            )
            require(
                spec.key not in names,
                f"warm_start: {name} and {names.get(spec.key)} are the same design; leave one out",
            )
            names[spec.key] = name

    def _check_placement(self, where: str, placement: Placement) -> None:
        try:
            placed(placement, self.backbone.n_layers)
        except SpecError as error:
            raise InputError(f"{where}: {error}") from None

    def _check_cut(self, where: str, spec: FFNSpec) -> None:
        base = self.backbone.base
        if base is None:
            uncut = spec.cut == "contiguous"
            require(uncut, f"{where}: cut {spec.cut} is for kind: sparsify; leave it out")
            return
        try:
            check_cut(spec, base, self.backbone.reference_d_ff)
        except SpecError as error:
            raise InputError(f"{where}: {error}") from None

    def _check_space(self) -> None:
        if self.space.placement != get_args(Placement):  # left out, it means those there can be
            for placement in self.space.placement:
                self._check_placement("space.placement", placement)
        closest = None
        for spec in look(self.space, self.backbone):
            broken = self.constraints.broken(spec, self.backbone)
            if not broken:
                return
            closest = closest or f"{spec.label}: {broken}"
        require(
            closest is not None,
            "space: no combination is a legal design at this backbone; lower width_multiple, "
            "granularity or depth, or widen the choices",
        )
        raise InputError(
            f"constraints: no design of the space keeps them (for one, {closest}); raise the "
            "bounds or add cheaper choices"
        )

    def _check_budget(self) -> None:
        self._check_smallest_step()
        if self.budget.rungs > 1:
            self._check_lowest_rung()
        require(
            self.budget.flops == 0 or self.budget.flops >= self.least_flops * (1 - 1e-15),
            f"budget.flops {self.budget.flops:g} does not pay for one trial of trial_flops "
            f"{self.budget.trial_flops:g}, which takes "
            f"{rounded_up(self.least_flops):g} with its rungs and the repeats' share: "
            "raise flops, or leave it out for what the trials are expected to cost",
        )

    @property
    def least_flops(self) -> float:
        """What one design takes, with its rungs and the repeats' share."""
        path = path_flops(self.budget.levels, self.recipe.decay)
        path += (self.budget.rungs - 1) * self._dearest_step
        return path / (1 - self.budget.repeats.share)

    @property
    def _dearest_step(self) -> float:
        """FLOPs that no step costs more than, by the rule of the lowest of several rungs."""
        return self.budget.levels[0] / LEAST_STEPS if self.budget.rungs > 1 else 0.0

    def _check_smallest_step(self) -> None:
        flops, smallest = self.budget.trial_flops, math.inf
        for spec in self._all_specs():
            step = step_flops(spec, self.backbone, self.recipe.batch_size)
            smallest = min(smallest, step)
            if smallest <= flops:
                return
        raise InputError(
            f"budget.trial_flops {flops:g} is below one training step of the smallest design, "
            f"{smallest:.3g} FLOPs ({self._step_words()}); "
            "raise trial_flops, or lower recipe.batch_size or the backbone"
        )

    def _check_lowest_rung(self) -> None:
        budget, lowest, limits = self.budget, self.budget.levels[0], self.limits()
        tokens = self.recipe.batch_size * self.backbone.seq_len
        warm = (spec for _, spec in self.warm_start_specs())
        methods = tuple(find(name) for name in self.space.methods)
        dearest = tokens * max(
            dearest_among(warm, self.backbone, limits),
            dearest_in_space(self.space, self.backbone, tuple(limits.items()), methods),
        )
        least = LEAST_STEPS * dearest * budget.reduction ** (budget.rungs - 1)
        require(
            lowest >= LEAST_STEPS * dearest * (1 - 1e-9),
            f"the lowest rung must be at least {LEAST_STEPS} training steps of the dearest design: "
            f"it is {lowest:.3g} FLOPs, {lowest / dearest:.3g} steps of {dearest:.3g} "
            f"({self._step_words()}); raise budget.trial_flops to {rounded_up(least):g}, or lower "
            "rungs, reduction, recipe.batch_size or constraints.training_flops",
        )

    def _step_words(self) -> str:
        return f"{self.recipe.batch_size} x {self.backbone.seq_len} tokens"

    def _all_specs(self) -> Iterator[FFNSpec]:
        warm = (spec for _, spec in self.warm_start_specs())
        return chain(warm, look(self.space, self.backbone))

    def warm_start_specs(self) -> list[tuple[str, FFNSpec]]:
        """The warm starts with the names that people know them by."""
        return [named(item, self.kind, self.backbone) for item in self.warm_start]

    def limits(self) -> dict[str, float]:
        """Upper bounds by objective name, in FLOPs a token and parameters."""
        return self.constraints.limits(self.backbone)

    @property
    def total_flops(self) -> float:
        """FLOPs of the whole study."""
        budget = self.budget
        return budget.flops or expected_flops(
            budget.levels,
            self.recipe.decay,
            budget.reduction,
            budget.trials,
            len(self.warm_start),
            budget.repeats.share,
        )

    def plan(self) -> Plan:
        """What the scheduler goes by."""
        budget = self.budget
        return Plan(
            levels=budget.levels,
            reduction=budget.reduction,
            decay=self.recipe.decay,
            objectives=self.objectives,
            bounds=self.limits(),
            trials=budget.trials,
            flops=self.total_flops,
            repeat_share=budget.repeats.share,
            seeds=budget.repeats.seeds if budget.repeats.share else 1,
            seed=self.seed,
            step=self._dearest_step,
        )

    def with_vocab_size(self, vocab_size: int) -> StudyConfig:
        """The same study with the vocabulary that the corpus's tokenizer turned out to have; a
        pretrained model keeps its own, which may have room for more."""
        if self.backbone.base is not None:
            return self
        backbone = dataclasses.replace(self.backbone, vocab_size=vocab_size)
        return dataclasses.replace(self, backbone=backbone)

    def with_precision(self, precision: Precision) -> StudyConfig:
        """The same study, all of whose runs are trained in this precision."""
        recipe = dataclasses.replace(self.recipe, precision=precision)
        return dataclasses.replace(self, recipe=recipe)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and YAML; `from_dict` reads it back."""
        out: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("corpus", "backbone", "recipe", "space"):
            out[name] = out[name].to_dict()
        for name in ("budget", "workers"):
            out[name] = dataclasses.asdict(out[name])
        out["constraints"] = self.constraints.ratios()
        out["objectives"] = list(self.objectives)
        out["warm_start"] = [i if isinstance(i, str) else i.to_dict() for i in self.warm_start]
        if self.kind == "pretrain":  # as studies were stored before there was another kind
            del out["kind"], out["base_model"]
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StudyConfig:
        """Read `to_dict`'s form; a missing key takes its default, an unknown one is refused."""
        if not isinstance(data, Mapping):
            raise InputError(f"a study is a mapping of its fields: got {shown(data)}")
        given = numbers(checked(data, "study"))
        check_keys("study", given, [f.name for f in fields(cls)])
        given = with_base(given)
        require("budget" in given, "a study needs budget, with trials and trial_flops: none given")
        for name, kind in _SECTIONS.items():
            if name in given:
                given[name] = section(kind, name, given[name])
        if "space" in given:
            given["space"] = SearchSpace.from_dict(given["space"])
        if "objectives" in given:
            given["objectives"] = tuple(_list("objectives", given["objectives"]))
        if "warm_start" in given:
            items = _list("warm_start", given["warm_start"])
            kind = given.get("kind", "pretrain")
            given["warm_start"] = tuple(read_warm_start(item, kind) for item in items)
        return cls(**given)

    @classmethod
    def load(cls, path: str | Path) -> StudyConfig:
        """Read a study's YAML. Whatever is wrong is one InputError that starts with the file."""
        data = read_yaml(path)
        try:
            return cls.from_dict(data)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None


_SECTIONS: dict[str, type] = {
    "corpus": CorpusSpec,
    "backbone": Backbone,
    "recipe": Recipe,
    "constraints": Constraints,
    "budget": Budget,
    "workers": Workers,
}


def rounded_up(value: float) -> float:
    """To three digits, so that what a message asks for is enough."""
    digit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / digit) * digit


def _list(where: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise InputError(f"{where} is a list: got {shown(value)}")
    return value
