"""What the parts of the page share."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dashboard import links
from dashboard.context import Context
from dashboard.data.reading import Reading


def drawn(
    context: Context, reading: Reading, key: tuple[object, ...], make: Callable[[], Any]
) -> str:
    """A figure as JSON, made once for all readers.

    key: of the figure, its name first, beside the reading's.
    """
    name, *rest = key
    return context.source.once(
        (f"why-{name}", *rest, reading.stamp), lambda: json.dumps(make(), allow_nan=False)
    )


def select_one(number: int) -> None:
    """A clicked point selects its design."""
    links.select([number])
