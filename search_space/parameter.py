"""Parameters: what a trial is asked for, declared beside the field that says what it may be.

A field of `SearchSpace` that every method may ask for, and a field of a method's `Knobs`, is made
by `asked`: its choices, its meaning, when it is asked and whether it shapes a design stand there,
once. Asking, walking, counting and the documents read it from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from search_space.domain import Choices, Domain, Match, Numbers, check_from, read_domain
from search_space.errors import InputError

_KINDS: dict[str, Any] = {"Choices": Choices, "Numbers": Numbers, "Domain": Domain}
MATCHES: tuple[Match, ...] = get_args(Match)


@dataclass(frozen=True)
class Condition:
    """On the parameters chosen before: in words, and as a test."""

    words: str
    holds: Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter.

    name: as trials have it; `method.key` is a key of one method.
    meaning: in a few words.
    kind: of its domain, `Choices`, `Numbers` or `Domain`.
    match: the modes that ask for it.
    when: what else must hold for it to be asked.
    shape: whether it can change a design's widths, cost or legality.
    last: whether it is asked when all others made a legal design.
    ratio: whether a selection's field of its name follows from it and is not the value itself.
    least: the least value that is legal, where its own kind does not say.
    """

    name: str
    meaning: str
    kind: str = "Choices"
    match: tuple[Match, ...] = MATCHES
    when: Condition | None = None
    shape: bool = False
    last: bool = False
    ratio: bool = False
    least: float | None = None

    def asked(self, match: Match, chosen: Mapping[str, Any]) -> bool:
        """Whether a trial that chose these parameters is asked for it: the one rule."""
        return match in self.match and (self.when is None or self.when.holds(chosen))


def asked(default: Any, meaning: str, **options: Any) -> Any:
    """A dataclass field that is a parameter.

    default: its domain, or a function that returns it.
    meaning: in a few words.
    options: fields of `Parameter`; `name` where it is not the field's.
    """
    given = {"default_factory": default} if callable(default) else {"default": default}
    metadata = {"parameter": options | {"meaning": meaning}}
    return dataclasses.field(**given, metadata=metadata)


def declared(cls: type, prefix: str = "") -> dict[str, Parameter]:
    """The parameters that a dataclass declares, by name."""
    found = {}
    for f in dataclasses.fields(cls):
        if "parameter" in f.metadata:
            options = {"name": f.name, "kind": _kind(f)} | f.metadata["parameter"]
            options["name"] = prefix + options["name"]
            found[options["name"]] = Parameter(**options)
    return found


def _kind(field: dataclasses.Field[Any]) -> str:
    """How a parameter is annotated; without postponed annotations it is the type itself."""
    for name, meant in _KINDS.items():
        if field.type == meant or str(field.type).rpartition(".")[2] == name:
            return name
    raise InputError(
        f"the parameter {field.name} must be annotated {' or '.join(_KINDS)}: got {field.type}"
    )


def read_domains(owner: Any, prefix: str) -> None:
    """Bring each parameter's field of a new object to its checked form.

    prefix: of the names in errors, such as `space.topk.`.
    """
    for f in dataclasses.fields(owner):
        if "parameter" not in f.metadata:
            continue
        where, kind = prefix + f.name, _kind(f)
        domain = read_domain(where, getattr(owner, f.name), kind)
        object.__setattr__(owner, f.name, domain)
        least = f.metadata["parameter"].get("least")
        if least is not None and isinstance(domain, tuple):
            check_from(where, domain, least, whole=kind == "Choices")


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """The keys that a method has in a space: its selection's fields by name, and ratios.

    method: the method's name.
    fixed: what its selection needs beside a key for that key to be judged alone.
    """

    method: ClassVar[str]
    fixed: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        read_domains(self, f"space.{self.method}.")


def keys(knobs: type[Knobs]) -> tuple[str, ...]:
    """The names of a method's own parameters, in the order of their fields."""
    return tuple(declared(knobs, f"{knobs.method}."))
