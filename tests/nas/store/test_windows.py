"""An evaluation's windows take little room, and those of earlier versions are read as they are."""

from __future__ import annotations

import random
import sqlite3
import struct
import zlib
from pathlib import Path

import pytest
from store_cases import finished, new_study, new_trial

from nas.store import Store
from nas.store.windows import packed, unpacked


def nats(count: int, seed: int = 0) -> list[float]:
    source = random.Random(seed)
    return [source.gauss(400, 60) for _ in range(count)]


def test_nothing_is_lost_but_what_a_float32_has_no_room_for() -> None:
    for count in range(1, 200):
        values = nats(count, seed=count)
        data = packed(values)
        assert len(data) % 8, "or it would be read as doubles"
        assert unpacked(data) == pytest.approx(values, rel=6e-8)
        assert unpacked(packed(unpacked(data))) == unpacked(data)
    assert unpacked(packed([1.5, -0.0, 2.0**-40, 3e38])) == [
        1.5,
        0.0,
        2.0**-40,
        pytest.approx(3e38),
    ]
    assert packed([]) == b"" and unpacked(b"") == []


def test_they_take_less_than_half_of_the_former_room() -> None:
    assert len(packed(nats(512))) < 0.45 * 8 * 512


def test_the_bytes_do_not_depend_on_the_machine() -> None:
    """Written here once: planes of little-endian float32."""
    planes = bytes.fromhex("00000000c0803f40")  # 1.5 and 4 - 0, byte by byte
    assert zlib.decompress(packed([1.5, 4.0])) == planes


@pytest.mark.parametrize("count", [1, 2, 3, 257])
def test_doubles_of_an_earlier_version_are_read(count: int) -> None:
    values = nats(count)
    assert unpacked(struct.pack(f"<{count}d", *values)) == values


@pytest.mark.parametrize(
    "damage",
    [lambda d: d[:-5], lambda d: d + b"\1\2\3", lambda d: b"\0" + d[1:], lambda d: b"abc"],
)
def test_damaged_ones_are_no_numbers(damage) -> None:
    data = packed(nats(100))
    hurt = damage(data)
    if len(hurt) % 8 == 0:
        hurt = hurt[:-1]
    with pytest.raises(ValueError, match="its windows"):
        unpacked(hurt)


def test_a_row_of_an_earlier_version_reads_as_before(tmp_path: Path) -> None:
    file = tmp_path / "nas.db"
    values = nats(256)
    with Store.open(f"sqlite:///{file}") as store:
        _, evaluation = new_trial(store, new_study(store))
        store.end_evaluation(finished(evaluation, windows=values))
        assert store.result(evaluation.id).windows == pytest.approx(values, rel=6e-8)
    with sqlite3.connect(file) as connection:
        former = struct.pack("<256d", *values)
        connection.execute("UPDATE evaluation SET windows = ?", (former,))
    connection.close()
    with Store.open(f"sqlite:///{file}", create=False) as store:
        assert store.result(evaluation.id).windows == values


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), 1e39])
def test_windows_that_no_float32_holds_are_left_out(tmp_path: Path, odd: float) -> None:
    with Store.open(f"sqlite:///{tmp_path / 'nas.db'}") as store:
        _, evaluation = new_trial(store, new_study(store))
        store.end_evaluation(finished(evaluation, windows=[1.0, odd]))
        assert store.result(evaluation.id).windows == []
