"""Read a YAML file into plain data; whatever is wrong with it is one line with file and line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from search_space.checks import WHOLE
from search_space.errors import InputError, shown
from search_space.plain import DEPTH, NODES, TEXT, checked, read_text

try:
    from yaml import CSafeLoader as SafeLoader  # libyaml's parser: several times as fast
except ImportError:  # a PyYAML that was built without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]

# YAML 1.1 reads 1e12 and 1e-3 as text, because they have no dot.
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
_TEXT = {"name", "source", "split", "revision", "text_field", "tokenizer", "ray_address"}

_TAGS = "tag:yaml.org,2002:"


class _Loader(SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError):
            raise yaml.MarkedYAMLError(
                problem=f"{shown(node.value)} is written as a date or a number and is none that "
                "can be read; put texts in quotes",
                problem_mark=node.start_mark,
            ) from None


# A lone = is text.
_Loader.add_constructor(f"{_TAGS}value", lambda loader, node: str(node.value))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds. InputError for a file that is not one."""
    return parse_yaml(read_text(path, "a YAML file"), str(path))


def parse_yaml(text: str, path: str) -> dict[str, Any]:
    """The mapping that a YAML text holds; `path` is what errors call it."""
    try:
        _Survey().over(text)
        data = yaml.load(text, Loader=_Loader)  # a safe loader: plain data alone
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line} is not valid YAML: {error.problem}") from None
    except yaml.reader.ReaderError as error:
        line = f":{text.count(chr(10), 0, error.position) + 1}"
        character = shown(text[error.position : error.position + 1])
        raise InputError(
            f"{path}{line} is not valid YAML: the character {character} may not stand in it"
        ) from None
    if data is None:
        raise InputError(f"{path} is empty: write a mapping such as 'name: my-study'")
    if not isinstance(data, dict):
        raise InputError(
            f"{path} holds a {type(data).__name__}, not a mapping: write 'key: value' lines"
        )
    out: dict[str, Any] = checked(data, path)
    return out


def parse_value(text: str) -> Any:
    """One value as a YAML file would have it: a number, a word, a list, a mapping; what is no YAML
    is the text itself."""
    try:
        found = parse_yaml(f"value: {text}", "")["value"]
    except (InputError, KeyError):
        return text
    return numbers(found)


class _Dumper(yaml.SafeDumper):
    """A line a key; a list on one line."""


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence(f"{_TAGS}seq", items, flow_style=True)
)


def write_yaml(data: dict[str, Any]) -> str:
    """Plain data as a YAML text; `parse_yaml` reads it back."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def numbers(value: Any) -> Any:
    """Plain data with numbers such as "1e12" read as numbers; texts keep theirs."""
    if isinstance(value, dict):
        return {k: v if k in _TEXT else numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [numbers(item) for item in value]
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        number = float(value)
        return int(number) if number.is_integer() and abs(number) < WHOLE else number
    return value


@dataclass
class _Open:
    """A list or mapping that has begun.

    size: values in it so far, aliases counted as what they stand for.
    height: levels below it.
    keys: of a mapping; None for a list.
    key_next: whether a mapping's next node is a key.
    """

    anchor: str | None
    keys: set[str] | None
    key_next: bool
    size: int = 1
    height: int = 0


@dataclass
class _Survey:
    """Walks over a document's events before anything is built of it.

    Building follows aliases and merges, which can stand for more than any memory holds, and it goes
    as deep as the document does, which ends the process in libyaml. Events do neither.
    """

    open: list[_Open] = field(default_factory=list)
    anchors: dict[str, _Open | None] = field(default_factory=dict)

    def over(self, text: str) -> None:
        """Raise MarkedYAMLError for what is not to be built."""
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.NodeEvent):
                self.node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self.add(event, self.open.pop())

    def node(self, event: yaml.NodeEvent) -> None:
        if isinstance(event, yaml.AliasEvent):
            self.key(event, None)
            self.add(event, self.named(event))
            return
        tag = getattr(event, "tag", None)
        if tag is not None and tag != "!":
            short = shown(tag.replace(_TAGS, "!!"))[1:-1]
            _refuse(event, f"tags such as {short} are not read; write the value without one")
        if isinstance(event, yaml.ScalarEvent):
            self.key(event, event.value)
            if len(event.value) > TEXT:
                _refuse(event, f"a text has at most {TEXT:,} characters: got {len(event.value):,}")
            self.add(event, _Open(event.anchor, None, False))
            return
        self.key(event, None)
        mapping = isinstance(event, yaml.MappingStartEvent)
        anchor = event.anchor
        self.open.append(_Open(anchor, set() if mapping else None, mapping))
        if anchor is not None:
            self.anchors[anchor] = None
        if len(self.open) > DEPTH:
            _refuse(event, f"nested more than {DEPTH} levels deep; write it flat")

    def named(self, event: yaml.AliasEvent) -> _Open:
        name = str(event.anchor)
        if name not in self.anchors:
            _refuse(event, f"no anchor &{name} stands before *{name}")
        found = self.anchors[name]
        if found is None:
            _refuse(event, f"*{name} stands inside what it names; write it out")
        return _Open(None, None, False, found.size, found.height)

    def key(self, event: yaml.NodeEvent, word: str | None) -> None:
        """Keep a mapping's keys apart; `word` is None for a node that is no scalar."""
        at = self.open[-1] if self.open else None
        if at is None or at.keys is None:
            return
        if at.key_next:
            if word is None:
                _refuse(event, "keys are text: got a list, a mapping or an alias")
            if word in at.keys:
                _refuse(event, f"key {shown(word)} is given twice; keep one")
            at.keys.add(word)
        at.key_next = not at.key_next

    def add(self, event: yaml.Event, node: _Open) -> None:
        """A node has ended: its parent has grown."""
        if node.anchor is not None:
            self.anchors[node.anchor] = node
        if not self.open:
            return
        parent = self.open[-1]
        parent.size += node.size
        parent.height = max(parent.height, node.height + 1)
        if parent.size > NODES:
            _refuse(
                event, f"more than {NODES:,} values, aliases counted as all that they stand for"
            )
        if len(self.open) + parent.height > DEPTH + 1:
            _refuse(event, f"nested more than {DEPTH} levels deep; write it flat")


def _refuse(event: yaml.Event, problem: str) -> NoReturn:
    mark: Any = event.start_mark  # its type is another class with libyaml
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
