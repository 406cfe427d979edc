"""What was learnt about a study before its trials began: a typed record, stored as JSON.

What another version or a benchmark noted beside it is kept in `more`, unread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

from search_space.checks import is_real, is_whole
from search_space.errors import shown


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """A record that is stored as JSON: fields that say nothing are left out, unknown keys kept.

    more: those keys.
    """

    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "facts") -> Self:
        """Read `to_dict`'s form. Raises ValueError, with what is wrong, for a field of nonsense.

        where: its place, in an error.
        """
        kinds = _annotations(cls)
        names = kinds.keys() - {"more"}
        # Earlier versions stored None for what there was not.
        known = {n: v for n, v in data.items() if n in names and v is not None}
        read = {name: _read(f"{where}.{name}", kinds[name], value) for name, value in known.items()}
        return cls(**read, more={n: v for n, v in data.items() if n not in names})

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        out: dict[str, Any] = {}
        silent = type(self)()
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "more" or value == getattr(silent, each.name):
                continue
            if isinstance(value, _Stored):
                value = value.to_dict()
            out[each.name] = list(value) if isinstance(value, tuple) else value
        return out | dict(self.more)


@dataclass(frozen=True, kw_only=True)
class CorpusFacts(_Stored):
    """What a prepared corpus holds.

    hash: of its content; None where there is no corpus.
    source: as its configuration names it.
    vocab_size: of its tokenizer.
    tokens: by split.
    eos_id: the token that ends a text; None where it was not noted.
    pad_id: the padding token; None for a tokenizer without one.
    notes: what was left out or changed, a line a kind.
    more: the rest of its account.
    """

    hash: str | None = None
    source: str = ""
    vocab_size: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)
    eos_id: int | None = None
    pad_id: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Facts(_Stored):
    """What was learnt about a study.

    corpus: what its text holds.
    corpus_dir: where the worker that prepared it has it.
    ngram_bits_per_byte: by order, of byte n-gram models on the same split.
    launched_in: the working directory of the launch.
    machine: that it was launched on, in words.
    training: the form of its trainings (`search_space.contract.TRAINING`); None before there were
        forms.
    runs: the folder of its files, as it was when it was last driven.
    more: what others noted.
    """

    corpus: CorpusFacts = field(default_factory=CorpusFacts)
    corpus_dir: str = ""
    ngram_bits_per_byte: Mapping[str, float] = field(default_factory=dict)
    launched_in: str = ""
    machine: str = ""
    training: int | None = None
    runs: str = ""

    @property
    def best_ngram(self) -> tuple[str, float] | None:
        """The order and the bits per byte of the best n-gram model; None without any."""
        return min(self.ngram_bits_per_byte.items(), key=lambda item: item[1], default=None)


# What a value must be, by the annotation of its field.
_PLAIN: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    str: ("text", lambda value: isinstance(value, str)),
    int: ("a whole number", is_whole),
    float: ("a finite number", is_real),
}

_annotations: Callable[[type], dict[str, Any]] = functools.cache(get_type_hints)


def _read(where: str, kind: Any, value: Any) -> Any:
    """A stored value as a field with this annotation has it."""
    form, of = get_origin(kind) or kind, get_args(kind)
    if form is tuple:
        _expect(isinstance(value, list), where, "a list", value)
        return tuple(_read(where, of[0], each) for each in value)
    if form is Mapping or form is CorpusFacts:
        _expect(isinstance(value, Mapping), where, "a mapping", value)
        if form is CorpusFacts:
            return CorpusFacts.from_dict(value, where)
        return {name: _read(f"{where}.{name}", of[1], each) for name, each in value.items()}
    words, fits = _PLAIN[of[0] if form is UnionType else kind]
    _expect(fits(value), where, words, value)
    return value


def _expect(ok: bool, where: str, words: str, value: Any) -> None:
    if not ok:
        raise ValueError(f"its {where} must be {words}: got {shown(value)}")
