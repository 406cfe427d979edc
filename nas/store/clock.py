"""The database's own clock, which all leases go by: machines' clocks differ."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement


class db_seconds(FunctionElement[float]):
    """The seconds since 1970 on the database's clock, as an SQL expression."""

    type = Double()
    inherit_cache = True


@compiles(db_seconds, "sqlite")
def _sqlite(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_seconds, "postgresql")
def _postgresql(element: Any, compiler: Any, **options: Any) -> str:
    # Not now(), which stands still inside a transaction that waited for a lock.
    return "extract(epoch from clock_timestamp())"
