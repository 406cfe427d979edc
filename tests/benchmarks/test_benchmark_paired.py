"""The calibration's arithmetic, on made-up trainings of known noise."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from benchmarks import paired_runs
from benchmarks.paired import rows
from benchmarks.paired_runs import Measured, train
from search_space.errors import InputError


def made(deviation: float, noise: float, seeds: int = 6) -> list[Measured]:
    """Fourteen designs on 128 windows. noise: of a window, beside what is common to all."""
    source = random.Random(0)
    hard = [source.gauss(500, 60) for _ in range(128)]
    unit, out = math.log(2) * 300, []
    for number in range(14):
        own = [0.02 * number + source.gauss(0, noise) for _ in hard]
        for seed in range(seeds):
            shift = source.gauss(0, deviation)
            windows = [h + unit * (o + shift) for h, o in zip(hard, own, strict=True)]
            bits = math.fsum(windows) / unit / len(hard)
            out.append(
                Measured(
                    design=f"design {number}", seed=seed, bits_per_byte=bits,
                    bits_per_byte_se=60 / unit / math.sqrt(len(hard)), windows=windows,
                )
            )  # fmt: skip
    return out


def found(runs: list[Measured], known: int = 3) -> dict:
    return {row.name: row for row in rows(runs, known)}


def test_the_bars_hold_where_the_noise_is_what_the_intervals_take_it_for() -> None:
    table = found(made(0.006, 0.02))
    assert all(row.holds for row in table.values()), table
    assert table["intervals"].value == 91 * 20
    assert table["deviation of one seed, own part"].value == pytest.approx(0.006, rel=0.15)
    assert table["median share of the unpaired interval"].value == pytest.approx(
        table["median half width, paired"].value / table["median half width, unpaired"].value,
        rel=0.1,
    )


def test_the_bars_break_where_it_is_not() -> None:
    """Fresh seeds that lie elsewhere than the known ones."""
    source, moved = random.Random(1), []
    shifts: dict[str, float] = {}
    for run in made(0.002, 0.001):
        shift = shifts.setdefault(run.design, source.gauss(0, 0.05)) if run.seed >= 3 else 0.0
        scale = 1 + shift / run.bits_per_byte
        windows = [scale * nats for nats in run.windows]
        moved.append(
            Measured(
                **(vars(run) | {"windows": windows, "bits_per_byte": run.bits_per_byte + shift})
            )
        )
    only = [run for run in moved if run.seed != 3]
    table = found(only, known=2)
    assert not table["fresh seeds covered, on the same windows"].holds


def test_there_must_be_fresh_seeds() -> None:
    with pytest.raises(InputError, match="known seeds are 2 to 5"):
        found(made(0.006, 0.02), known=6)


def test_what_was_trained_is_not_trained_again(tmp_path: Path, monkeypatch) -> None:
    calls = []

    def trained(design: str, seed: int, *settings: object) -> Measured:
        calls.append((design, seed))
        return Measured(
            design=design, seed=seed, bits_per_byte=2.0, bits_per_byte_se=0.1, windows=[1.0]
        )

    monkeypatch.setattr(paired_runs, "_train", trained)
    monkeypatch.setattr(paired_runs, "_prepare", lambda cache: "corpus")
    kept = tmp_path / "runs.jsonl"
    told: list[str] = []

    def table(designs: tuple[str, ...], flops: float = 1.0) -> list[Measured]:
        return train(designs, (0, 1), flops, 128, kept=kept, report=told.append)

    first = table(("dense",))
    assert calls == [("dense", 0), ("dense", 1)] and len(told) == 2
    assert [run.design for run in table(("dense", "switch"))] == ["dense", "switch"] * 2
    assert calls[2:] == [("switch", 0), ("switch", 1)]
    assert table(("dense",)) == first and len(calls) == 4
    table(("dense",), flops=2.0)
    assert len(calls) == 6, "other settings are other trainings"
