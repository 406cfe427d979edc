"""The short form of `python -m benchmarks.rates`: its fit on losses of a known law."""

from __future__ import annotations

import math
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import rates, rates_fit
from benchmarks.rates import FITTED, HELD, MULTIPLES, SEEDS, fit_rows, held_rows
from benchmarks.rates_fit import Point, fit, means, regret
from search_space.presets import PRESETS
from search_space.rates import BASE
from search_space.rates import rates as rule

RECORDS = Path(rates.__file__).parent / "records" / "rates.jsonl"
CORPUS = {"dir": None, "meta": {"hash": "one text"}}
CURVATURE, NOISE = 0.015, 0.004
TRUE = {"d_model": -0.6, "n_layers": -0.2, "tokens": -0.4, "batch_tokens": 0.4}


def best(cell) -> float:
    """log2 of the best rate under the law of TRUE, a quarter of an octave above the rule's base."""
    ratios = zip(TRUE.values(), cell.shape, BASE, strict=True)
    return math.log2(0.0182) + 0.25 + sum(e * math.log2(own / base) for e, own, base in ratios)


def made_up(noise: float = 0.0) -> list[Point]:
    draw, out = random.Random(0), []
    for cell in FITTED:
        for multiple in MULTIPLES:
            for seed in SEEDS:
                rate = multiple * rule(cell.shape).matrix_lr
                bits = 2 + CURVATURE * (math.log2(rate) - best(cell)) ** 2
                out.append(Point(cell.name, multiple, rate, seed, bits + draw.gauss(0, noise)))
    return out


def test_a_known_law_is_found():
    rows = {row.name: row.value for row in fit_rows(made_up())}
    assert rows["curvature"] == pytest.approx(CURVATURE)
    assert rows["base: best matrix_lr"] == pytest.approx(0.0182 * 2**0.25)
    assert rows["longer: exponent of tokens"] == pytest.approx(TRUE["tokens"])
    assert rows["wider: exponent of d_model"] == pytest.approx(TRUE["d_model"])
    assert rows["deeper: exponent of n_layers"] == pytest.approx(TRUE["n_layers"])
    for name in ("more", "fewer"):
        assert rows[f"{name} tokens a step: exponent of batch_tokens"] == pytest.approx(0.4)


def test_the_errors_are_those_of_the_noise():
    fitted = fit(made_up(NOISE))
    assert fitted.residual == pytest.approx(NOISE, rel=0.3)
    for cell in FITTED:
        off = fitted.optima[cell.name] - best(cell)
        assert abs(off) < 4 * fitted.errors[cell.name] < 1


def test_what_a_rule_loses():
    points = [Point("a", m, m, 0, bits) for m, bits in ((0.5, 2.0), (1.0, 2.01), (2.0, 2.3))]
    assert regret(means(points)["a"]) == pytest.approx(0.01)
    row = {row.name: row for row in held_rows(points)}["a: regret"]
    assert not row.holds


def test_a_parabola_says_what_a_rule_loses_where_means_are_noisy():
    points, draw = [], random.Random(1)
    for cell, best_at in (("a", 0.0), ("b", 0.4)):  # octaves above the rule
        for multiple in MULTIPLES:
            for seed in range(12):
                bits = 2 + 0.015 * (math.log2(multiple) - best_at) ** 2 + draw.gauss(0, 0.005)
                points.append(Point(cell, multiple, 0.01 * multiple, seed, bits))
    found = rates_fit.regrets([*points, Point("c", 1.0, 0.01, 0, 2.0)])
    assert set(found) == {"a", "b"}  # one multiple makes no parabola
    broken = [Point("a", 2.8, 0.028, seed, 2.4) for seed in range(12)]  # nor does a cliff
    assert rates_fit.regrets([*points, *broken]) == found
    assert found["a"] == pytest.approx(0.0, abs=0.0005)
    assert found["b"] == pytest.approx(0.015 * 0.16, abs=0.0015)
    rows = {row.name: row for row in held_rows(points)}
    assert rows["b: regret by its parabola"].holds
    assert rows["a: shift of the mean at x2"].value == pytest.approx(0.015, abs=0.005)
    assert rows["a: deviation of a seed"].value == pytest.approx(0.005, rel=0.6)


def test_a_training_that_did_not_finish_is_the_worst():
    points = [Point("a", 1.0, 1.0, 0, 2.0), Point("a", 2.0, 2.0, 0, None)]
    assert means(points)["a"] == {1.0: 2.0, 2.0: math.inf}
    assert regret(means(points)["a"]) == 0


def test_a_second_call_trains_only_what_is_missing(monkeypatch, tmp_path):
    """Records outlive a run that is cut."""
    records, asked, text = tmp_path / "records.jsonl", [], "one text"

    def train(cell, multiple, seed, setting):
        asked.append((cell.name, multiple, seed))
        rate = cell.rates(multiple).matrix_lr
        return Point(cell.name, multiple, rate, seed, 2.0, corpus=text, training=rates.TRAINING)

    monkeypatch.setattr(rates, "ProcessPoolExecutor", ThreadPoolExecutor)
    monkeypatch.setattr(rates, "train", train)
    monkeypatch.setattr(rates, "prepare", lambda *a: type("Corpus", (), CORPUS))
    study = type("Study", (), {"corpus": None, "eval_tokens": 256})
    cell = FITTED[0]
    first = rates.trained([(cell, 1.0, 0)], study, records, 1)
    both = rates.trained([(cell, 1.0, 0), (cell, 1.6, 0)], study, records, 1)
    assert asked == [("base", 1.0, 0), ("base", 1.6, 0)]
    assert first == both[:1]
    assert len(both) == 2


@pytest.mark.parametrize("change", [{"corpus": "another"}, {"training": 1}, {"matrix_lr": 0.5}])
def test_records_of_another_text_form_or_rule_are_not_taken(change):
    cell = FITTED[0]
    rate = cell.rates(1.41).matrix_lr
    point = Point(cell.name, 1.41, rate, 0, 2.0, corpus="one text", training=rates.TRAINING)
    assert rates.of_today(point, cell, "one text")
    assert not rates.of_today(replace(point, **change), cell, "one text")


def test_the_recorded_trainings_are_those_of_the_fit():
    """The document's table is of this file."""
    points = list(rates.read(RECORDS).values())
    assert len(points) == len(FITTED) * len(MULTIPLES) * len(SEEDS)
    cells = {cell.name: cell for cell in FITTED}
    assert all(rates.of_today(point, cells[point.cell], point.corpus) for point in points)
    fitted = fit(points)
    assert 2 ** fitted.optima["base"] == pytest.approx(rule(BASE).matrix_lr, rel=0.02)


def test_the_recorded_held_out_trainings_are_of_todays_rates():
    """The document's second table is of this file, and no seed in it chose what it judges."""
    points = list(rates.read(rates.HELD_RECORDS).values())
    cells = {cell.name: cell for cell in HELD}
    assert all(rates.of_today(point, cells[point.cell], point.corpus) for point in points)
    for name in {point.cell for point in points}:
        seeds = {point.seed for point in points if point.cell == name}
        assert seeds == set(cells[name].seeds), name
        assert not seeds & set(SEEDS)


def test_the_trainings_that_are_not_whole_yet_are_of_todays_rates():
    points = rates.read(rates.HELD_RECORDS.with_name("held_d128.jsonl")).values()
    cells = {cell.name: cell for cell in HELD}
    assert points and not {point.seed for point in points} & set(SEEDS)
    assert all(rates.of_today(point, cells[point.cell], point.corpus) for point in points)


def test_every_preset_is_held_at_both_sizes():
    names = {(cell.preset, cell.d_model) for cell in HELD}
    assert {(name, width) for name in PRESETS for width in (64, 128)} <= names
    assert all(cell.length[0] > 0 < cell.length[1] for cell in (*FITTED, *HELD))


def test_drawing_what_nobody_measured_is_one_line(tmp_path, capsys):
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    assert rates.picture(tmp_path / "none.jsonl", RECORDS, tmp_path / "rates.png") == 2
    said = capsys.readouterr().err
    assert said.startswith("records: there is no file") and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
