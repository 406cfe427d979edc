"""From losses at several learning rates to where the least one lies, and what a rate loses."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import NamedTuple

import numpy as np

CLIFF = 0.08  # bits per byte


@dataclass(frozen=True)
class Point:
    """One training.

    multiple: of the rates that the rule gave when it was trained.
    matrix_lr: Muon's rate.
    bits_per_byte: None where it did not finish.
    corpus: the prepared text's hash.
    training: the form of trainings (`search_space.contract.TRAINING`).
    """

    cell: str
    multiple: float
    matrix_lr: float
    seed: int
    bits_per_byte: float | None
    seconds: float = 0.0
    corpus: str = ""
    training: int = 0


class Fit(NamedTuple):
    """A parabola a cell over log2(rate), all of one curvature.

    curvature: bits per byte an octave squared.
    optima: log2 of the best rate by cell.
    least: bits per byte at it by cell.
    errors: the optima's standard errors, in octaves.
    residual: standard deviation of a training about its parabola, bits per byte.
    """

    curvature: float
    optima: dict[str, float]
    least: dict[str, float]
    errors: dict[str, float]
    residual: float


def finished(points: Iterable[Point]) -> list[tuple[Point, float]]:
    """The points with a loss, and it."""
    return [(point, point.bits_per_byte) for point in points if point.bits_per_byte is not None]


def fit(points: Iterable[Point]) -> Fit:
    """Least squares: bits = k x^2 + b_c x + a_c for every cell c, x = log2(rate)."""
    known = finished(points)
    cells = list(dict.fromkeys(point.cell for point, _ in known))
    columns = np.zeros((len(known), 1 + 2 * len(cells)))
    bits = np.array([value for _, value in known])
    for row, (point, _) in zip(columns, known, strict=True):
        x, place = math.log2(point.matrix_lr), 1 + 2 * cells.index(point.cell)
        row[0], row[place], row[place + 1] = x * x, x, 1.0
    beta, *_ = np.linalg.lstsq(columns, bits, rcond=None)
    residual = bits - columns @ beta
    variance = float(residual @ residual) / (len(bits) - len(beta))
    covariance = variance * np.linalg.inv(columns.T @ columns)
    k, optima, least, errors = float(beta[0]), {}, {}, {}
    for number, cell in enumerate(cells):
        b, a = float(beta[1 + 2 * number]), float(beta[2 + 2 * number])
        optima[cell], least[cell] = -b / (2 * k), a - b * b / (4 * k)
        slope = np.zeros(len(beta))
        slope[0], slope[1 + 2 * number] = b / (2 * k * k), -1 / (2 * k)
        errors[cell] = math.sqrt(float(slope @ covariance @ slope))
    return Fit(k, optima, least, errors, math.sqrt(variance))


def means(points: Iterable[Point]) -> dict[str, dict[float, float]]:
    """By cell and multiple the mean over seeds; infinite where one did not finish."""
    found: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        bits = math.inf if point.bits_per_byte is None else point.bits_per_byte
        found[point.cell][point.multiple].append(bits)
    return {
        cell: {multiple: mean(bits) for multiple, bits in sorted(of_cell.items())}
        for cell, of_cell in found.items()
    }


def regret(bits: Mapping[float, float]) -> float:
    """What the rule's rates lose against the best of the multiples: means at each."""
    return bits[1.0] - min(bits.values())


def regrets(points: Iterable[Point]) -> dict[str, float]:
    """What the rule's rates lose by the parabolas of `fit`, of the cells with four multiples or
    more, that of the rule among them.

    Multiples whose mean lies more than CLIFF above the cell's least are left out: training breaks
    there, which no parabola describes.
    """
    known = [point for point, _ in finished(points)]
    bits = means(known)
    known = [p for p in known if bits[p.cell][p.multiple] - min(bits[p.cell].values()) <= CLIFF]
    rules = {point.cell: point.matrix_lr for point in known if point.multiple == 1.0}
    tried = {cell: {p.multiple for p in known if p.cell == cell} for cell in rules}
    whole = [point for point in known if len(tried.get(point.cell, ())) >= 4]
    if not whole:
        return {}
    found = fit(whole)
    return {
        cell: found.curvature * (math.log2(rules[cell]) - best) ** 2
        for cell, best in found.optima.items()
    }
