"""What may stand in a search space: choices, ranges, and the trial that picks from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from search_space.checks import CHOICES, flag, is_real, is_whole, real
from search_space.errors import InputError, SpecError, check_keys, require, shown

Match = Literal["free", "active_flops", "total_params", "units"]


class Chooser(Protocol):
    """Who answers a space's questions: an Optuna trial (this is the part of it that a space uses),
    a walk through all choices, or a draw."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of `choices`."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = ...) -> float:
        """A number in [low, high]."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Real numbers in [low, high]; searched on a log scale when `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, _number(name, getattr(self, name)))
        require(self.low < self.high, f"low must be below high: got {self.low}, {self.high}")
        flag("log", self.log)
        require(self.low > 0 or not self.log, f"a log range needs low above 0: got {self.low}")


Choices = tuple[Any, ...]
Numbers = tuple[float, ...]
Domain = Numbers | Range


def _number(where: str, value: object) -> float:
    real(where, value)
    return float(value)  # type: ignore[arg-type]


def read_domain(where: str, value: Any, kind: str) -> Domain | Choices:
    """A field's value as written -> its checked form; `kind` is the field's annotation."""
    if isinstance(value, Mapping):
        if kind != "Domain":
            raise InputError(f"{where} is a list of choices, not a range: got {shown(value)}")
        check_keys(where, value, ["low", "high", "log"])
        require("low" in value and "high" in value, f"{where}: a range needs low and high")
        try:
            value = Range(**value)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    if isinstance(value, Range):
        return value
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    require(bool(items), f"{where} is empty: give at least one choice")
    require(
        len(items) <= CHOICES,
        f"{where} has {len(items):,} choices, at most {CHOICES} are searched; give fewer",
    )
    if kind != "Choices":
        items = [_number(where, item) for item in items]
    for index, item in enumerate(items):
        if item in items[:index]:
            raise InputError(f"{where} lists {shown(item)} twice: give each choice once")
    return tuple(items)


def ends(domain: Domain | Choices) -> Choices:
    """The values whose legality decides the domain's: every choice, or both ends of a range."""
    return (domain.low, domain.high) if isinstance(domain, Range) else domain


def check_each(where: str, domain: Domain | Choices, build: Callable[[Any], object]) -> None:
    """Let the spec's own validation judge every choice, and both ends of a range."""
    for value in ends(domain):
        try:
            build(value)
        except SpecError as error:
            raise InputError(f"{where}: {error}") from None


def check_from(where: str, values: Sequence[Any], least: float, whole: bool = False) -> None:
    """Refuse values below `least`, or not whole where they must be."""
    kind, is_one = ("whole numbers", is_whole) if whole else ("numbers", is_real)
    for value in values:
        if not (is_one(value) and value >= least):
            raise InputError(f"{where} must be {kind} of at least {least:g}: got {shown(value)}")


def words(domain: Domain | Choices) -> str:
    """A domain as people write it: `1, 2, 4`, or `0.01 to 1 (log)`."""
    if isinstance(domain, Range):
        return f"{domain.low:g} to {domain.high:g}{' (log)' if domain.log else ''}"
    return ", ".join(_word(value) for value in domain)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def ask(chooser: Chooser, name: str, domain: Domain | Choices) -> Any:
    """What is chosen from a domain."""
    if isinstance(domain, Range):
        return chooser.suggest_float(name, domain.low, domain.high, log=domain.log)
    return chooser.suggest_categorical(name, domain)
