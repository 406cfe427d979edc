"""The log of a trial's evaluations as plain text, an evaluation a part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nas.store import EvaluationLog, EvaluationRecord
from search_space.contract import LogLine

_MARKS = {"info": "  info   ", "warning": "▲ warning", "error": "✖ error  "}


@dataclass(frozen=True)
class Part:
    """What was said during an evaluation.

    title: which one it is; plain words.
    text: a line a line, the newest last; "" without any.
    earlier: lines before these.
    """

    title: str
    text: str
    earlier: int


def parts(evaluations: Iterable[EvaluationRecord], logs: Mapping[int, EvaluationLog]) -> list[Part]:
    """A part for each of the evaluations, in their order."""
    return [
        Part(
            f"Rung {each.rung}, seed {each.seed}, {each.status.value.replace('_', ' ')}",
            "\n".join(map(written, logs[each.id].lines)),
            logs[each.id].earlier,
        )
        for each in evaluations
    ]


def written(line: LogLine) -> str:
    """Time, level and text, as in a file; further lines of a text stand below its first."""
    head = f"{line.at:%Y-%m-%d %H:%M:%S}  {_MARKS.get(line.level, line.level)}  "
    return head + line.text.replace("\n", "\n" + " " * len(head))
