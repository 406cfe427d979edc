"""The database's own clock, which all leases go by: machines' clocks differ."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Double, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement

LEASE_SECONDS = 60.0  # without a sign of life; a driver renews its leases much more often


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


# When a lease that is given now runs out. The seconds are looked up as it is: tests shorten them.
LEASE_END = db_seconds() + bindparam("lease_seconds", type_=Double, callable_=lambda: LEASE_SECONDS)
