"""The commands that change a study: launch, resume, stop, extend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.command.cli_options import db_option, open_study, study_argument
from nas.command.terminal import echo
from nas.process import interrupts
from search_space.errors import WorkFailed

if TYPE_CHECKING:
    from nas.study import Study


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--name", help="Study name, instead of the file's; must be free.")
@db_option
def launch(config: Path, name: str | None, db: str) -> None:
    """Run the study described by the YAML file CONFIG."""
    from nas.config import StudyConfig
    from nas.study import launch as launch_study

    settings = StudyConfig.load(config)  # which a signal may break
    _drive(lambda **shown: launch_study(settings, db, name=name, **shown))


@click.command()
@study_argument
@db_option
def resume(study: str | None, db: str) -> None:
    """Go on with STUDY, which was stopped, failed, was extended or lost its driver."""
    from nas.study import resume as resume_study

    _drive(lambda **shown: resume_study(study, db, **shown))


@click.command()
@click.argument("study")
@db_option
def stop(study: str, db: str) -> None:
    """Stop STUDY wherever it runs, and wait until it has; it can be resumed."""
    with open_study(study, db) as opened:
        opened.stop()
        state = opened.record.state.value
        again = f"; go on with: nas resume {opened.name}" if opened.resumable else ""
        echo(f"study {opened.name} is {state}{again}")


@click.command()
@click.argument("study")
@click.option(
    "--flops", required=True, type=float, help="Training FLOPs that it may spend beyond its budget."
)
@click.option("--trials", type=int, help="Designs in all; without it they grow as the FLOPs do.")
@db_option
def extend(study: str, flops: float, trials: int | None, db: str) -> None:
    """Give STUDY more FLOPs, a finished one too; then it can be resumed."""
    with open_study(study, db) as opened:
        opened.extend(flops, trials)
        budget = opened.record.config["budget"]
        echo(
            f"study {opened.name} may spend {opened.record.budget_flops:.4g} FLOPs on "
            f"{budget['trials']:,} trials now; go on with: nas resume {opened.name}"
        )


COMMANDS = (launch, resume, stop, extend)


def _drive(drive: Callable[..., Study]) -> None:
    """Run a study under a display and sum up what it found.

    drive: takes `report`, `started` and `listen` of `nas.running.launcher`.
    """
    from nas.command.progress import StudyDisplay
    from nas.command.summary import print_summary
    from nas.command.terminal import console
    from nas.running.driver import StudyFailed

    with interrupts.held():
        try:
            with StudyDisplay(console(stderr=True)) as display:
                told: dict[str, Any] = {"report": display.note, "started": display.started}
                study = drive(**told, listen=display.update)
        except StudyFailed as error:
            raise WorkFailed(f"{error}; every trial: nas pareto --all") from error
        with study, interrupts.breakable():
            print_summary(study)
