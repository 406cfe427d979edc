"""What several commands share: options, arguments, and how a study is opened."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

import click

from search_space.places import DB_VARIABLE, DEFAULT_DB

if TYPE_CHECKING:
    from nas.study import Study

P = ParamSpec("P")

db_option = click.option(
    "--db",
    envvar=DB_VARIABLE,
    default=DEFAULT_DB,
    show_default=True,
    help=f"Database URL, also ${DB_VARIABLE}.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, not a table.")
study_argument = click.argument("study", required=False)
trial_option = click.option(
    "--trial", type=click.IntRange(0, 2**31 - 1), help="Trial number; without one, the best."
)


def short(command: Callable[P, None]) -> Callable[P, None]:
    """A command that ends before its garbage matters: Python need not look for cycles, which
    takes a sixth of such a command's time, most of it while modules are imported."""

    @functools.wraps(command)
    def run_short(*arguments: P.args, **options: P.kwargs) -> None:
        was_on = gc.isenabled()
        gc.disable()
        try:
            command(*arguments, **options)
        finally:
            if was_on:
                gc.enable()

    return run_short


def reads(command: Callable[P, None]) -> Callable[P, None]:
    """A command that shows what a database has: its options, and how it runs."""
    return db_option(json_option(short(command)))


def open_study(study: str | None, db: str) -> Study:
    """The study of that name, or the newest, to read."""
    from nas.study import Study

    return Study.open(study, db)
