"""Errors that reach a user as one line: the rule, the value, the way out; how they show a value."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

_LENGTH = 200  # characters of what is shown
_LONG = 400  # bits of the largest whole number that is written out


class InputError(ValueError):
    """Bad input from the user; its text is one line and the command exits with code 2."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class WorkFailed(RuntimeError):
    """The input was right and the work failed; its text is one line and the exit code is 1."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class SpecError(InputError):
    """An FFN design that cannot be built."""


class UnknownMethod(SpecError):
    """A selection method that this process has not: misspelt, or of a plug-in that is not here."""


class BrokenPlugIn(InputError):
    """No method can be looked up in this process, whatever its name: an installed one is broken."""


def require(condition: bool, message: str, error: type[InputError] = InputError) -> None:
    """Raise `error(message)` unless `condition` holds."""
    if not condition:
        raise error(message)


def nearest(word: object, known: Iterable[str]) -> str:
    """The way out for a misspelt word: the closest known one, or the whole list."""
    names = sorted(known)
    # Comparing takes time with the square of a word's length.
    text = word[:100] if isinstance(word, str) else shown(word)
    close = difflib.get_close_matches(text, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"


def check_keys(where: str, given: Iterable[object], known: Iterable[str]) -> None:
    """Refuse the first key of `given` that is not in `known`."""
    known = list(known)
    for key in given:
        if key not in known:
            raise InputError(f"{where}: unknown key {shown(key)}; {nearest(key, known)}")


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 80
        self.maxlong = 40
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = 6

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write out a whole number of more than 4,300 digits.
        if x.bit_length() > _LONG:
            return f"a whole number of about {int(x.bit_length() * 0.30103) + 1:,} digits"
        return super().repr_int(x, level)


_short = _Short()


def shown(value: Any) -> str:
    """`value` as Python writes it, cut short: always one line of at most 200 characters."""
    text = " ".join(_short.repr(value).split())
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 3]}..."
