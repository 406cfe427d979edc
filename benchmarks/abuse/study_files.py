"""Mutated study files: each is a valid study, or one line.

They start from the examples and from the documents' snippets. Half are mutated as text, half as
data. `nas space` reads each; it counts designs for a moment only.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.abuse.commands import in_process, wrong
from nas.command import tables

FULL, SHORT = 2_000, 40

ROOT = Path(__file__).parents[2]
COUNT_S = 0.02
_SNIPPET = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
_VALUE = re.compile(r"(?<=: )[^#\n]+")

# As YAML text.
SCALARS = (
    "", "~", "null", "true", "No", "on", "0", "-1", "-0.0", "1.5", ".nan", ".inf", "-.inf", "=",
    "1e400", "1e-400", "1e5", "1e18", "1e30", "1e31", "1e308", "2147483648", "4294967296",
    "4294967297", "65536", "65537", "9223372036854775807", "9223372036854775808", "9" * 30,
    "9" * 400, "9" * 5_000, "0x7fff", "0x_", "0b_", "0o17", "1_000", "1:30:00", "190:20:30.15",
    "2001-01-01", "2001-99-99", "2001-12-14t21:59:43.10-05:00", "0001-01-01 00:00:00 +23:59",
    "'x'", "''", "' '", "'1'", "dense", "Dense", "topk", "stdlib", "gelu", "../..", "hub:a/b",
    "'" + "x" * 20_000 + "'", "'\u202e'", "'💥'", "é", '"\\0"', '"\\ud800"', '"\\x85"', "a: b: c",
    "http://u:p@h/x", "%s", "@x", "`x`", "*none", "!!int x", "!!binary x", "!!str 5", "!x 5",
    "!!python/name:os.system", "!!timestamp x", "!!null x", "!!float x", "|", ">-", "- ", "? ",
)  # fmt: skip
COLLECTIONS = (
    "[]", "{}", "[[]]", "[{}]", "[null]", "[true, 1]", "[1, 1]", "[a, b]", "[[dense]]", "{a: 1}",
    "[{a: 1}]", "{[a]: 1}", "{? [a, b] : 1}", "{1: 2}", "{null: 1}", "{a: 1, a: 2}", "&r [*r]",
    "{low: 1, high: 2}", "{low: .nan, high: 2}", "{low: 0, high: 1, log: true}", "{low: a}",
    "{low: 1, high: 1e308, log: true}", "{low: [1], high: {}}", "[1, 2", "}", "]", "!!set {a, b}",
    "!!omap [a: 1]", "!!pairs [a: 1]", "[0.5, 1e-300]", "[1e30, 2]", "[-1, 0, 1]", "['', ' ']",
    "[dense, switch, olmoe]", "[{d_ff: 64}]", "[{d_ff: 64, selection: {method: [topk]}}]",
    "[{d_ff: 4294967296, depth: 65536}]", "[{d_ff: 4294967291, expert_width: 2}]",
    "[" + ", ".join(map(str, range(1, 3_000))) + "]", "[" + ", ".join(map(str, range(1, 90))) + "]",
    "[" * 100 + "]" * 100, "[" * 3_000, "{a: " * 500, "{<<: {a: 1}}", "{<<: [1]}", "{<<: 1}",
)  # fmt: skip

MARKS = (
    "\t", ":", "- ", "[", "{", "}", "'", '"', "#", "&a ", "*a", "!!", "|", ">", "<<: ", "\x07",
    "\x85", "\ufeff", "\u2028", "---\n", "...\n", "%YAML 9.9\n",
)  # fmt: skip

# As data; what YAML dumps of it.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 333, 2**16, 2**16 + 1, 2**24, 2**31, 2**32, 2**63 - 1,
    2**63, 10**40, 0.0, 0.5, 1.0, 1e-300, 1e18, 1e30, 1e308, float("inf"), float("nan"), "", " ",
    "a", "dense", "topk", "1e12", "1e400", "é", "\0", "x" * 12_000, [], {}, [[]], [None], [True],
    [1, 1], [1, 2], [1.5, 2.5], ["dense"], ["topk", "hash", "dense"], [["dense"]], [{"a": 1}],
    {"low": 1, "high": 2}, {"low": 1e-9, "high": 1.0, "log": True}, {"low": 2, "high": 1},
    {"d_ff": 64}, [{"d_ff": 64}], {"method": "topk"}, list(range(1, 101)), list(range(1, 200)),
    [x / 7 for x in range(8, 100)], "free", "active_flops", "total_params",
)  # fmt: skip


def attempts(count: int, seed: int, folder: Path) -> Iterator[str]:
    """`nas space` on `count` mutated files."""
    chance = random.Random(seed)
    texts, counted = bases(), tables.COUNT_SECONDS
    tables.COUNT_SECONDS = COUNT_S
    try:
        for number in range(count):
            data = mutated(chance, chance.choice(texts))
            path = folder / "study.yaml"
            path.write_bytes(data)
            fault = wrong(in_process(["space", str(path)]))
            yield fault and f"{number}: {fault} from {data[:300]!r}"
    finally:
        tables.COUNT_SECONDS = counted


def bases() -> list[str]:
    """The examples, and the snippets that are studies: a snippet without a budget gets one."""
    texts = [path.read_text() for path in sorted((ROOT / "examples").glob("*.yaml"))]
    documents = sorted((ROOT / "docs").glob("*.md"))
    snippets = [s for path in documents for s in _SNIPPET.findall(path.read_text())]
    budget = "budget: {trials: 2, trial_flops: 1e13}\n"
    texts += [text if "budget:" in text else budget + text for text in snippets]
    return texts


def mutated(chance: random.Random, text: str) -> bytes:
    """One to three mutations of a file."""
    if chance.random() < 0.5:
        data = yaml.safe_load(text)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            data = change(chance, data)
        # Lists that are meant to be one are dumped as aliases, as people write them.
        return yaml.safe_dump(data, allow_unicode=chance.random() < 0.5).encode()
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        text = chance.choice(TEXTS)(chance, text)
    raw = text.encode("utf-8", "surrogatepass")
    return chance.choice(BYTES)(chance, raw) if chance.random() < 0.2 else raw


def change(chance: random.Random, data: Any) -> Any:
    """The data with one value anywhere in it replaced, removed, doubled or renamed."""
    data = copy.deepcopy(data)
    places = list(_places(data))
    if not places:
        return chance.choice(VALUES)
    holder, key = chance.choice(places)
    what = chance.randrange(6)
    if what == 0:
        del holder[key]
    elif what == 1 and isinstance(holder, dict):
        holder[chance.choice(("x", "d_ff", "k", "low", "", 1, None, True, 2.5))] = holder.pop(key)
    elif what == 2:
        other, name = chance.choice(places)
        holder[key] = copy.deepcopy(other[name])
    else:
        holder[key] = copy.deepcopy(chance.choice(VALUES))
    return data


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    items = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(items):
        yield data, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _delete(chance: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    del lines[chance.randrange(len(lines))]
    return "".join(lines)


def _double(chance: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    lines.insert(chance.randrange(len(lines)), chance.choice(lines))
    return "".join(lines)


def _swap(chance: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    one, other = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return "".join(lines)


def _indent(chance: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True) or [""]
    index = chance.randrange(len(lines))
    lines[index] = chance.choice((" ", "  ", "\t", "- ", "? ", ": ")) + lines[index]
    return "".join(lines)


def _value(chance: random.Random, text: str) -> str:
    found = list(_VALUE.finditer(text))
    if not found:
        return text + chance.choice(SCALARS)
    at = chance.choice(found)
    new = chance.choice(SCALARS if chance.random() < 0.6 else COLLECTIONS)
    return f"{text[: at.start()]}{new}{text[at.end() :]}"


def _insert(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text) + 1)
    return text[:at] + chance.choice(MARKS) + text[at:]


def _truncate(chance: random.Random, text: str) -> str:
    return text[: chance.randrange(len(text) + 1)]


def _alias(chance: random.Random, text: str) -> str:
    """Anchors that each name the one before several times, in lists or by merging."""
    levels, width = chance.choice(((3, 3), (12, 9), (200, 1)))
    merge = chance.random() < 0.5
    lines = [f"x0: &a0 {'{b: 1}' if merge else '[1]'}\n"]
    for level in range(1, levels):
        inner = ", ".join([f"*a{level - 1}"] * width)
        lines.append(
            f"x{level}: &a{level} " + (f"{{<<: [{inner}]}}\n" if merge else f"[{inner}]\n")
        )
    return "".join(lines) + text + f"\nspace: {{depth: *a{levels - 1}}}\n"


def _nest(chance: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "outer:\n" + "".join(f"  {line}" for line in lines)


def _flip(chance: random.Random, raw: bytes) -> bytes:
    data = bytearray(raw or b"x")
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def _recode(chance: random.Random, raw: bytes) -> bytes:
    text = raw.decode("utf-8", "replace")
    return text.encode(chance.choice(("utf-16", "utf-32", "utf-8-sig", "utf-16-le")))


def _long(chance: random.Random, raw: bytes) -> bytes:
    more = (b"# comment\n" * 150_000, b"a: " + b"x" * 2_000_000, b"- " * 20_000)
    return raw + chance.choice(more)


TEXTS: tuple[Callable[[random.Random, str], str], ...] = (
    _delete, _double, _swap, _indent, _value, _value, _value, _insert, _truncate, _alias, _nest,
)  # fmt: skip
BYTES: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _flip, _recode, _long)
