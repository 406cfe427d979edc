"""What `make test` leaves to `make test-long`.

Long is what takes seconds of the processor and asks again what a quicker test asks already: of
further designs, on further pages, by a browser, by another tool, in the interpreter, under chaos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
LONG = pytest.mark.long


def leading(values: Iterable[T], count: int) -> list[Any]:
    """Parameters: all values, those after the first `count` long."""
    return [each if at < count else _long(each) for at, each in enumerate(values)]


def where(values: Iterable[T], quick: Callable[[T], bool]) -> list[Any]:
    """Parameters: all values, those that are not `quick` long."""
    return [each if quick(each) else _long(each) for each in values]


def _long(value: Any) -> Any:
    values = value if isinstance(value, tuple) else (value,)
    return pytest.param(*values, marks=LONG)
