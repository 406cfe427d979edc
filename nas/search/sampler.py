"""Proposals of designs: an Optuna study in memory, rebuilt from the records at every ask.

The store is the one truth. Nothing is kept between asks but caches, and a sampler's seed comes
from (study seed, trial number) alone, so a study that was interrupted goes on as if it had not
been.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from nas.search.pareto import non_dominated
from nas.search.settings import Constraints, SamplerKind
from search_space.backbone import Backbone
from search_space.errors import InputError, SpecError, require
from search_space.space import SearchSpace, designs, params_of, suggest
from search_space.spec import FFNSpec

STARTUP_TRIALS = 16  # finished trials before TPE models anything
POPULATION = 16  # of NSGA-II
_GENERATION = "NSGAIISampler:generation"  # where NSGA-II looks for a trial's generation
MODEL_ASKS, RANDOM_ASKS = 16, 64  # before a space is searched for what is left of it
MOST_TOLD = 1000  # finished trials that a model learns from, beside the frontier
_Replayed = tuple[str, str, dict[str, BaseDistribution]]


class SpaceExhausted(InputError):
    """Every design of the space was tried or breaks a constraint."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a sampler is told of one trial.

    params: the trial's parameters; empty for a design from outside the space.
    values: of the objectives; None while it runs and when it failed.
    violations: by constraint; at most 0 where it is kept.
    running: whether it has not ended.
    key: `FFNSpec.key`; needed where params is empty.
    order: its place among the trials that ended; negative counts the told ones.
    """

    params: Mapping[str, Any]
    values: tuple[float, ...] | None = None
    violations: Mapping[str, float] = field(default_factory=dict)
    running: bool = False
    key: str = ""
    order: int = -1


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A design to train.

    source: `tpe`, `random`, `nsga2` or `enumeration`.
    refused: proposals that were turned down before this one, because they are illegal, known or
        outside the constraints.
    """

    spec: FFNSpec
    params: dict[str, Any]
    source: str
    refused: int


class Sampler:
    """Proposes designs of a space; see `propose`."""

    def __init__(
        self,
        *,
        space: SearchSpace,
        backbone: Backbone,
        objectives: Sequence[str],
        constraints: Constraints,
        seed: int,
        kind: SamplerKind = "tpe",
    ) -> None:
        self.space, self.backbone, self.constraints = space, backbone, constraints
        self.objectives, self.seed, self.kind = tuple(objectives), seed, kind
        # Caches of what is a function of their keys: they change the time of an ask, nothing else.
        self._replayed: dict[str, _Replayed] = {}
        self._made: dict[tuple[Any, ...], FrozenTrial] = {}

    def params(self, spec: FFNSpec) -> dict[str, Any]:
        """The parameters of a design, by which it is told; empty when it lies outside the space."""
        try:
            return params_of(self.space, spec, self.backbone)
        except InputError:
            return {}

    def propose(
        self, number: int, trials: Sequence[Told], tried: Set[str] = frozenset()
    ) -> Proposal:
        """The design of trial `number`, given trials so far in their order.

        tried: keys of further designs, which are not proposed again.
        A function of its arguments and the study's seed. Raises SpaceExhausted when no design
        is left, InputError when a told trial does not fit the space.
        """
        told = {trial.key or self._replay(trial.params)[0] for trial in trials}
        known = tried if told <= tried else told | tried
        with _quiet():
            study = self._study(trials)
            refused = 0
            for source, sampler, asks in self._samplers(number):
                study.sampler = sampler
                for _ in range(asks):
                    # A refused ask stays RUNNING, which steers TPE away from asking it again.
                    trial = study.ask()
                    spec = self._suggest(trial)
                    if spec is not None and self._allowed(spec, known):
                        return Proposal(
                            spec=spec, params=trial.params, source=source, refused=refused
                        )
                    refused += 1
        return self._enumerate(known, refused)

    def _samplers(self, number: int) -> Iterator[tuple[str, BaseSampler, int]]:
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}/{number}".encode()).digest()[:4])
        if self.kind != "random":
            yield self.kind, _SAMPLERS[self.kind](seed), MODEL_ASKS
        yield "random", RandomSampler(seed=seed), RANDOM_ASKS

    def _suggest(self, trial: optuna.Trial) -> FFNSpec | None:
        try:
            return suggest(self.space, trial, self.backbone)
        except SpecError:
            return None

    def _allowed(self, spec: FFNSpec, known: Set[str]) -> bool:
        violations = self.constraints.violations(spec, self.backbone)
        return spec.key not in known and all(value <= 0 for value in violations.values())

    def _enumerate(self, known: Set[str], refused: int) -> Proposal:
        for params, spec in designs(self.space, self.backbone):
            if self._allowed(spec, known):
                return Proposal(spec=spec, params=params, source="enumeration", refused=refused)
        raise SpaceExhausted(
            f"the space is used up: each of its designs is among the {len(known)} tried or breaks "
            "a constraint; widen the space or the constraints, or ask for fewer trials"
        )

    def _study(self, trials: Sequence[Told]) -> optuna.Study:
        study = optuna.create_study(directions=["minimize"] * len(self.objectives))
        finished, telling = 0, list[tuple[Told, int]]()
        for told in trials:
            if self._tells(told):
                place = told.order if told.order >= 0 else finished
                telling.append((told, place // POPULATION))
                finished += not told.running
        for told, generation in _most_telling(telling, finished):
            study.add_trial(self._frozen(told, generation))
        return study

    def _tells(self, told: Told) -> bool:
        """Whether there is something to learn from the trial."""
        if not told.params or told.running:
            return bool(told.params)
        if told.values is None:
            return False
        require(
            len(told.values) == len(self.objectives),
            f"a trial is told {len(told.values)} values for {len(self.objectives)} objectives",
        )
        # Optuna would rank infinities as if they were measured.
        return all(map(math.isfinite, (*told.values, *told.violations.values())))

    def _frozen(self, told: Told, generation: int) -> FrozenTrial:
        """The trial in Optuna's form."""
        _, name, distributions = self._replay(told.params)
        made = (name, told.running, told.values, tuple(told.violations.items()), generation)
        if made not in self._made:
            self._made[made] = _optuna_trial(told, distributions, generation)
        return self._made[made]

    def _replay(self, params: Mapping[str, Any]) -> _Replayed:
        """A told trial's key, its parameters as text, and their distributions."""
        name = json.dumps(dict(params), sort_keys=True)
        if name not in self._replayed:
            trial = FixedTrial(dict(params))
            try:
                key = suggest(self.space, trial, self.backbone).key
            except ValueError as error:
                raise InputError(
                    f"a stored trial does not fit the study's space: {error} (parameters {name})"
                ) from None
            self._replayed[name] = key, name, trial.distributions
        return self._replayed[name]


class _SharedTrial(FrozenTrial):
    """A told trial in Optuna's form. Nobody changes what it holds, so that copies share it:
    Optuna copies every trial that a study is given to its last part."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenTrial:
        return copy.copy(self)


def _optuna_trial(
    told: Told, distributions: dict[str, BaseDistribution], generation: int
) -> FrozenTrial:
    given: dict[str, Any] = {"params": dict(told.params), "distributions": distributions}
    if told.running:
        given["state"] = TrialState.RUNNING
    else:
        given |= {"values": told.values, "constraints": dict(told.violations)}
        given["system_attrs"] = {_GENERATION: generation}
    trial = create_trial(**given)
    trial.__class__ = _SharedTrial
    return trial


def _most_telling(telling: Sequence[tuple[Told, int]], finished: int) -> Sequence[tuple[Told, int]]:
    """The running trials, the newest MOST_TOLD finished ones, and all that are on the frontier.

    TPE models the best few (at most 25) against all others, and gives old ones among these
    hardly any weight, yet its time grows with their number.
    """
    if finished <= MOST_TOLD:
        return telling
    kept = {i for i, (told, _) in enumerate(telling) if told.running}
    ended = [i for i in range(len(telling)) if i not in kept]
    feasible = [i for i in ended if all(v <= 0 for v in telling[i][0].violations.values())]
    mask = non_dominated([telling[i][0].values or () for i in feasible])
    kept.update(i for i, keep in zip(feasible, mask, strict=True) if keep)
    kept.update(ended[-MOST_TOLD:])
    return [telling[i] for i in sorted(kept)]


def _tpe(seed: int) -> BaseSampler:
    # `group` lets TPE model the parameters that only one method has; Optuna calls it experimental.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, n_startup_trials=STARTUP_TRIALS, seed=seed)


def _nsga2(seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=POPULATION, seed=seed)


_SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {"tpe": _tpe, "nsga2": _nsga2}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's line for every study that is created."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
