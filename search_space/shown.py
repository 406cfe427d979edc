"""How an error shows the value that it refuses."""

from __future__ import annotations

import reprlib
from typing import Any

_LENGTH = 200  # characters of what is shown
_LONG = 400  # bits of the largest whole number that is written out


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
