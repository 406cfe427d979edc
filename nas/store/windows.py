"""The nats of an evaluation's validation windows as a row keeps them: float32, compressed.

A float32 is wrong by 3e-8 of a window, far below what two seeds differ by. Rows of before hold
doubles, 8 bytes each; what is written now never has a multiple of 8 bytes, so that both are read
and no database needs to be rewritten.
"""

from __future__ import annotations

import sys
import zlib
from array import array
from collections.abc import Sequence

MOST = 3.4e38  # about a float32's largest
_WIDTH = 4  # bytes of a float32
_FORMER = 8  # bytes of a double


def packed(windows: Sequence[float]) -> bytes:
    """Finite numbers of at most `MOST`, in their order."""
    if not windows:
        return b""
    raw = _little(array("f", windows)).tobytes()
    # First bytes of all, then second bytes of all: signs and exponents are alike.
    data = zlib.compress(b"".join(raw[at::_WIDTH] for at in range(_WIDTH)), 9)
    return data if len(data) % _FORMER else data + b"\0"


def unpacked(data: bytes) -> list[float]:
    """What `packed` made bytes of, or an earlier version. Raises ValueError for neither."""
    if len(data) % _FORMER == 0:
        return _little(array("d", data)).tolist()
    stream = zlib.decompressobj()
    try:
        planes = stream.decompress(data)
    except zlib.error as error:
        raise ValueError(f"its windows cannot be unpacked: {error}") from None
    if not stream.eof or stream.unused_data not in (b"", b"\0") or len(planes) % _WIDTH:
        raise ValueError(
            f"its windows, {len(data)} bytes, are cut off or longer than they should be"
        )
    count = len(planes) // _WIDTH
    raw = bytearray(len(planes))
    for at in range(_WIDTH):
        raw[at::_WIDTH] = planes[at * count : (at + 1) * count]
    return _little(array("f", bytes(raw))).tolist()


def _little(numbers: array[float]) -> array[float]:
    """The numbers with their bytes as a little-endian machine has them, or back."""
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
