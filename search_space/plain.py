"""Raw YAML and JSON -> checked plain data, before anything else sees it.

Plain data is what JSON has: mappings with text as keys, lists, text, whole numbers, real numbers,
true, false and null. Everything is bounded, so that what reads it need not be afraid of it.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_space.checks import WHOLE
from search_space.errors import InputError, require, shown

FILE_BYTES = 1 << 20  # of a file that people write; a study of 1,000 designs has a tenth of it
NODES = 100_000  # values of a document, each alias counted as all that it stands for
DEPTH = 64  # lists and mappings within each other; a study has 4
TEXT = 10_000  # characters of one text


def checked(value: Any, where: str) -> Any:
    """A copy of `value` that is plain data within the bounds above; tuples become lists.

    where: names the value in errors, such as a file.  Raises InputError for whatever is not.
    """
    return _Check(where).read(value, "", 0)


class _Check:
    def __init__(self, where: str) -> None:
        self.where, self.nodes = where, 0

    def read(self, value: Any, at: str, depth: int) -> Any:
        self.nodes += 1
        self.need(self.nodes <= NODES, "", f"more than {NODES:,} values; write fewer")
        self.need(depth <= DEPTH, at[:80], f"nested more than {DEPTH} levels deep; write it flat")
        if isinstance(value, Mapping):
            return {
                self.key(key, at): self.read(item, f"{at}.{key}" if at else str(key), depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.read(item, f"{at}[{i}]", depth + 1) for i, item in enumerate(value)]
        return self.scalar(value, at)

    def key(self, key: Any, at: str) -> str:
        self.need(isinstance(key, str), at, f"keys are text: got {shown(key)}; put it in quotes")
        return str(self.text(key, at))

    def scalar(self, value: Any, at: str) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value, at)
        if isinstance(value, int):
            fits = -WHOLE <= value <= WHOLE
            self.need(fits, at, f"a whole number has at most 64 bits: got {shown(value)}")
            return value
        if isinstance(value, float):
            self.need(math.isfinite(value), at, f"a number must be finite: got {value}")
            return value
        kind = type(value).__name__
        raise InputError(
            f"{self.path(at)}: values are text, numbers, true, false, null, lists and mappings: "
            f"got a {kind}; put text in quotes"
        )

    def text(self, value: str, at: str) -> str:
        size = f"a text has at most {TEXT:,} characters: got {len(value):,}"
        self.need(len(value) <= TEXT, at, size)
        bad = next((c for c in value if c == "\0" or "\ud800" <= c <= "\udfff"), "")
        self.need(not bad, at, f"text holds no NUL and no half characters: got {shown(value)}")
        return value

    def need(self, condition: bool, at: str, message: str) -> None:
        if not condition:
            raise InputError(f"{self.path(at)}: {message}")

    def path(self, at: str) -> str:
        return f"{self.where}: {shown(at)[1:-1]}" if at else self.where


def read_text(path: str | Path, what: str) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, of at most FILE_BYTES.

    what: it should be, such as "a YAML file".

    Raises InputError, also for what is no file: a folder, and a pipe or a device, which might
    never end.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits until somebody writes to it.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise _unreadable(path, error, what) from None
    except ValueError:  # Python's own, before it asks the system
        raise InputError(f"a path holds no NUL: got {shown(str(path))}") from None
    with file:
        require(
            stat.S_ISREG(os.fstat(file.fileno()).st_mode),
            f"cannot read {path}: it is a pipe, a device or a socket; write it to a file and give "
            f"the path of {what}",
        )
        try:
            data = file.read(FILE_BYTES + 1)
        except OSError as error:
            raise _unreadable(path, error, what) from None
    require(
        len(data) <= FILE_BYTES,
        f"{path} has more than {FILE_BYTES:,} bytes; give the path of {what}",
    )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not text in UTF-8 (byte {error.start:,} is {data[error.start]:#04x}): "
            f"write {what} in UTF-8"
        ) from None


def parse_json(text: str, where: str) -> Any:
    """The plain data of a JSON text; InputError that starts with `where`."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise InputError(f"{where} is not valid JSON: {error.msg}, {place}") from None
    except RecursionError:
        raise InputError(f"{where}: nested more than {DEPTH} levels deep; write it flat") from None
    except _GivenTwice as error:
        raise InputError(f"{where}: key {error.key} is given twice; keep one") from None
    except ValueError:  # Python reads no whole number of more than 4,300 digits
        raise InputError(f"{where}: a whole number has at most 64 bits: got a longer one") from None
    return checked(value, where)


def read_json(path: str | Path) -> Any:
    """The plain data of a JSON file of at most FILE_BYTES; InputError that names the file."""
    return parse_json(read_text(path, "a JSON file"), str(path))


class _GivenTwice(ValueError):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = shown(key)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise _GivenTwice(key)
        out[key] = value
    return out


def _unreadable(path: str | Path, error: OSError, what: str) -> InputError:
    text = str(path)
    name = text if 0 < len(text) <= 300 else shown(text)
    return InputError(f"cannot read {name}: {error.strerror or error}; give the path of {what}")
