"""The commands that take models further: a design at another size, training one, measuring one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.command.terminal import echo
from search_space.checks import WHOLE
from search_space.errors import require, shown

if TYPE_CHECKING:
    from nas.study import Study


def pairs(text: str, option: str) -> dict[str, Any]:
    """`key=value,key=value` as a mapping; a value is a number, true or false, or text.

    option: its name, in an error.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = (each.strip() for each in part.partition("="))
        require(bool(key and equals and value), f"{option} is key=value: got {shown(part)}")
        require(key not in found, f"{option}: {key} is given twice; keep one")
        found[key] = _scalar(value)
    return found


def _scalar(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@dataclass(frozen=True)
class Scale:
    """The options of `nas export` that ask for another size."""

    backbone: str | None
    tokenizer: str | None
    seed: int | None

    @property
    def asked(self) -> bool:
        """Whether another size is asked for. Raises InputError for options that need it."""
        for name in ("tokenizer", "seed"):
            require(
                self.backbone is not None or getattr(self, name) is None,
                f"--{name} goes with --backbone: a trained model has its own; leave it out",
            )
        return self.backbone is not None

    def export(self, study: Study, folder: Path, trial: int | None, verify: bool) -> None:
        """Write the design at that size, and say what it is."""
        changes = pairs(self.backbone or "", "--backbone")
        made = study.export_scaled(
            folder,
            changes,
            trial,
            tokenizer=self.tokenizer or "",
            seed=self.seed or 0,
            verify=verify,
        )
        for note in made.notes:
            echo(note, err=True)
        echo(str(folder))


def scale_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `scale`, what its options say of another size."""

    @click.option(
        "--backbone",
        metavar="KEY=VALUE,...",
        help="The design at another size, initialised and not trained: d_model=1024,n_layers=24",
    )
    @click.option("--tokenizer", help="With --backbone: a file, a folder or a Hub id.")
    @click.option(
        "--seed", type=click.IntRange(0, WHOLE), help="With --backbone: of the initial weights."
    )
    @functools.wraps(command)
    def scaled(
        *arguments: Any, backbone: str | None, tokenizer: str | None, seed: int | None, **rest: Any
    ) -> None:
        command(*arguments, scale=Scale(backbone, tokenizer, seed), **rest)

    return scaled


MODEL_COMMANDS: tuple[click.Command, ...] = ()
