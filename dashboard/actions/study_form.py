"""The launch form as data: the fields of a study's file, from its dataclasses; no Streamlit.

Nothing is written twice: names, defaults, choices and meanings are those of
`nas.config.StudyConfig` and of its sections, and their own validators judge what is typed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from nas.config import StudyConfig
from nas.search.objectives import OBJECTIVES
from nas.search.settings import Budget
from nas.warm_start import presets_of
from nas.yaml_file import parse_value, parse_yaml, write_yaml
from search_space.backbone import Backbone
from search_space.domain import Range
from search_space.errors import InputError, check_keys, require, shown
from search_space.matching import Equal
from search_space.methods import find, names
from search_space.space import SearchSpace
from search_space.spec import FFNSpec

Path = tuple[str, ...]
Kind = Literal["text", "number", "choice", "words", "list"]
Values = dict[Path, Any]  # what the form holds: texts, and lists of texts for "words"
_DOC = re.compile(r" {4}(\w+(?:, \w+)*): (.*(?:\n {8,}.*)*)")
# What stands first, the commonest of all; the others follow by section.
COMMON: tuple[Path, ...] = (
    ("name",),
    ("corpus", "source"),
    ("budget", "trials"),
    ("budget", "trial_flops"),
    ("budget", "rungs"),
    ("budget", "repeats", "share"),
    ("backbone", "d_model"),
    ("backbone", "n_layers"),
    ("backbone", "seq_len"),
    ("objectives",),
    ("constraints", "total_params"),
    ("constraints", "training_flops"),
    ("space", "methods"),
    ("warm_start",),
    ("workers", "count"),
    ("workers", "device"),
)
# The form of somebody who has typed nothing: what has no default must be something.
START: Values = {("budget", "trials"): "24", ("budget", "trial_flops"): "1e12"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A field of the form.

    path: of its key in the file.
    kind: `number` and `text` are typed; `choice` is one of `options`; `words` are some of them, and
        others may be typed; `list` is typed as `1, 2, 4`, or as a range.
    default: in plain data; None where there is none.
    needed: whether it has no default.
    meaning: from the schema.
    flags: whether its words are true and false.
    """

    path: Path
    kind: Kind
    default: Any
    needed: bool
    meaning: str
    options: tuple[str, ...] = ()
    flags: bool = False

    @property
    def key(self) -> str:
        """`budget.trials`."""
        return ".".join(self.path)

    @property
    def default_words(self) -> str:
        """The default as one would type it."""
        if self.default is None:
            return ""
        shown_value = as_typed(self, self.default)
        return ", ".join(shown_value) if isinstance(shown_value, list) else str(shown_value)


@functools.cache
def entries() -> tuple[Entry, ...]:
    """All fields, in the order of the schema."""
    return tuple(_of(StudyConfig, ()))


def sections() -> dict[str, list[Entry]]:
    """The fields that are not common, by section; "study" has those of none."""
    found: dict[str, list[Entry]] = {}
    for each in entries():
        if each.path not in COMMON:
            name = each.path[0] if len(each.path) > 1 else "study"
            if name == "space" and len(each.path) == 3:
                name = f"space: {each.path[1]}"
            found.setdefault(name, []).append(each)
    return found


def _of(cls: Any, path: Path) -> Iterator[Entry]:
    hints, meanings = get_type_hints(cls), _meanings(cls)
    for field in dataclasses.fields(cls):
        here, hint = (*path, field.name), hints[field.name]
        if field.name == "base" and cls is Backbone:
            continue  # a file never has it
        if field.name == "sections" and cls is SearchSpace:
            for method in names():
                knobs = find(method).knobs
                if knobs is not None:
                    yield from _of(knobs, (*path, method))
        elif dataclasses.is_dataclass(hint):
            yield from _of(hint, here)
        else:
            yield _entry(field, here, hint, meanings.get(field.name, ""))


def _entry(field: dataclasses.Field[Any], path: Path, hint: Any, meaning: str) -> Entry:
    default = field.default
    if default is MISSING and field.default_factory is not MISSING:
        default = field.default_factory()
    needed = default is MISSING
    default = None if needed else _plain(default)
    meaning = field.metadata.get("parameter", {}).get("meaning", meaning)
    own: dict[str, Any] = {"path": path, "default": default, "needed": needed, "meaning": meaning}
    if path == ("objectives",):
        return Entry(kind="words", options=tuple(OBJECTIVES), **own)
    if path == ("warm_start",):
        return Entry(kind="words", options=tuple(warm_starts("pretrain")), **own)
    if path == ("space", "methods"):
        return Entry(kind="words", options=tuple(names()), **own)
    if get_origin(hint) is Literal:
        return Entry(kind="choice", options=tuple(map(str, get_args(hint))), **own)
    if hint is str:
        return Entry(kind="text", **own)
    if isinstance(default, list) and default and isinstance(default[0], (str, bool)):
        words, flags = tuple(map(_word, default)), isinstance(default[0], bool)
        return Entry(kind="words", options=words, flags=flags, **own)
    if isinstance(default, (list, dict)):
        return Entry(kind="list", **own)
    assert hint in (int, float) or get_origin(hint) in (UnionType, Union), (path, hint)
    return Entry(kind="number", **own)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return dataclasses.asdict(value) if isinstance(value, Range) else value


def _meanings(cls: type) -> dict[str, str]:
    """What a dataclass's docstring says of its fields: `name, other: what they are.`"""
    found = {}
    text = inspect.cleandoc(cls.__doc__ or "")
    indented = "\n".join(f"    {line}" if line else "" for line in text.splitlines())
    for match in _DOC.finditer(indented):
        for name in match[1].split(", "):
            found[name] = " ".join(match[2].split())
    return found


def warm_starts(kind: str) -> dict[str, str]:
    """What a warm start may be, as it is typed -> in words."""
    presets = presets_of(kind)
    found = {
        name: f"{name}: {inspect.getdoc(preset) or ''}".partition("\n")[0].rstrip(". ")
        for name, preset in presets.items()
    }
    if kind == "pretrain":
        for name in presets:
            for match in get_args(Equal):
                typed = json.dumps({"preset": name, "match": match})
                found[typed] = f"{name}, as wide as the dense FFN's {match} allow"
    return found


# From what is typed to a file, and back.


def to_data(values: Mapping[Path, Any]) -> dict[str, Any]:
    """The study's plain data: what is typed, without what is empty or the default."""
    data: dict[str, Any] = {}
    for each in entries():
        typed = values.get(each.path)
        if not typed or (isinstance(typed, str) and not typed.strip()):
            continue
        value = _meant(each, typed)
        if value == each.default and type(value) is type(each.default):
            continue
        _put(data, each.path, value)
    return data


def to_yaml(values: Mapping[Path, Any]) -> str:
    """The study's file."""
    return write_yaml(to_data(values) or {"name": StudyConfig.name})


def _meant(entry: Entry, typed: Any) -> Any:
    """A field's value in plain data; what cannot be read is left as it is, to be refused."""
    if entry.kind == "words":
        read = entry.flags or entry.path == ("warm_start",)
        return [parse_value(word) if read else word for word in typed]
    if entry.kind == "number":
        value = parse_value(typed)
        is_float = isinstance(entry.default, float) and isinstance(value, int)
        return float(value) if is_float and not isinstance(value, bool) else value
    if entry.kind == "list":
        text = typed.strip()
        return parse_value(text if text[:1] in ("[", "{") else f"[{text}]")
    return typed


def _put(data: dict[str, Any], path: Path, value: Any) -> None:
    for name in path[:-1]:
        data = data.setdefault(name, {})
    data[path[-1]] = value


def from_yaml(text: str, name: str) -> Values:
    """What the form holds for a study's file; its values may still be wrong, its keys not.

    name: of the file, for errors.
    Raises InputError, one line, for what is no such file.
    """
    return from_data(parse_yaml(text, name), name)


def of_stored(study: str, config: Mapping[str, Any]) -> Values:
    """The same for a stored study's configuration, to launch one like it.

    What is read of a pretrained model, and what an extension gave, is not the file's.
    """
    data = {name: value for name, value in config.items() if value != {}}
    backbone = dict(data.get("backbone") or {})
    if backbone.pop("base", None) is not None:
        data["backbone"] = {"seq_len": backbone["seq_len"]}
        data["corpus"] = {k: v for k, v in data["corpus"].items() if k != "tokenizer"}
    return from_data(data, f"study {study}")


def from_data(data: Mapping[str, Any], name: str) -> Values:
    """The same for plain data."""
    known: dict[Path, Entry] = {each.path: each for each in entries()}
    values: Values = {}

    def walk(mapping: Any, path: Path) -> None:
        where = ".".join(path) or "study"
        require(isinstance(mapping, Mapping), f"{name}: {where} is a mapping: got {shown(mapping)}")
        depth = len(path)
        below = {each[depth] for each in known if each[:depth] == path}
        try:
            check_keys(where, mapping, sorted(below))
        except InputError as error:
            raise InputError(f"{name}: {error}") from None
        for key, value in mapping.items():
            here = (*path, key)
            if here in known:
                values[here] = as_typed(known[here], value)
            else:
                walk(value, here)

    walk(data, ())
    return values


def as_typed(entry: Entry, value: Any) -> Any:
    """A value of plain data as one would type it into the form."""
    if entry.kind == "words":
        items = value if isinstance(value, list) else [value]
        return [_word(item) for item in items]
    if entry.kind == "list" and isinstance(value, list):
        return ", ".join(map(_word, value))
    return _word(value)


def _word(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and abs(value) >= 1e6:
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return json.dumps(value)


# What is wrong.


@functools.lru_cache(maxsize=64)
def check(text: str) -> tuple[StudyConfig | None, str]:
    """The study that `nas launch` would read of this file, or the line with which it would refuse
    it."""
    try:
        return StudyConfig.from_dict(parse_yaml(text, "study")), ""
    except InputError as error:
        return None, str(error)


def rules(values: Mapping[Path, Any]) -> dict[Path, str]:
    """By field, the rule that what is typed there breaks by itself, whatever the others hold."""
    found = {}
    for each in entries():
        typed = values.get(each.path)
        if typed and each.path not in (("kind",), ("base_model",), ("warm_start",)):
            reason = _alone(each.path, json.dumps(_meant(each, typed), default=str))
            if reason:
                found[each.path] = reason
    return found


@functools.lru_cache(maxsize=1024)
def _alone(path: Path, value: str) -> str:
    """Why a field's value is refused in a study that leaves out all else; "" where it is not."""
    data: dict[str, Any] = {"budget": {"trials": 1, "trial_flops": 1e18}}
    own = json.loads(value)
    try:
        if path[0] == "budget":
            _put(data, path, own)
            Budget(**data["budget"])
        else:
            _put(data, path, own)
            StudyConfig.from_dict(data)
    except InputError as error:
        return str(error)
    return ""


def label_of(typed: str, kind: str = "pretrain") -> str:
    """A warm start in words, of a study of that kind."""
    words = warm_starts(kind)
    if typed in words:
        return words[typed]
    value = parse_value(typed)
    try:
        return FFNSpec.from_dict(value).label if isinstance(value, dict) else typed
    except InputError:
        return typed
