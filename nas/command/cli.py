"""The `nas` command: thin over `nas.study`. Imports happen when a command runs.

Exit codes: 0 done, 1 the work failed, 2 the input was wrong, 130 stopped by Ctrl-C, SIGTERM or
SIGHUP.
"""

from __future__ import annotations

import gc
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.command.cli_driving import COMMANDS
from nas.command.cli_models import MODEL_COMMANDS, Scale, scale_options
from nas.command.cli_options import (
    db_option,
    json_option,
    open_study,
    reads,
    short,
    study_argument,
    trial_option,
)
from nas.command.outcome import outcome
from nas.command.terminal import echo, finish, prepare
from nas.process import interrupts
from search_space.checks import DIM, TOKENS, WHOLE
from search_space.machine import settle_threads
from search_space.places import settle_home

if TYPE_CHECKING:
    from search_space.matching import Equal
    from search_space.native import DType, Form


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="ffn-nas", prog_name="nas")
@click.option("--debug", is_flag=True, help="Log everything, and show tracebacks.")
def cli(debug: bool) -> None:
    """Search the design space of transformer feed-forward layers.

    A STUDY is a name; without one, commands take the newest.
    """
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(levelname)s %(name)s: %(message)s",
    )


for _command in (*COMMANDS, *MODEL_COMMANDS):
    cli.add_command(_command)


@cli.command("list")
@reads
def list_studies(db: str, as_json: bool) -> None:
    """List the studies, newest first."""
    from nas.command.study_tables import LISTED, study_row
    from nas.command.tables import print_rows
    from nas.store import Store

    with Store.open(db, create=False) as store:
        rows = [study_row(store, study) for study in store.studies()]
        print_rows(rows, as_json, columns=LISTED)


@cli.command()
@study_argument
@reads
def status(study: str | None, db: str, as_json: bool) -> None:
    """Say how far STUDY is."""
    from nas.command.study_tables import in_words, study_row
    from nas.command.tables import print_record

    with open_study(study, db) as opened:
        row = study_row(opened.store, opened.record)
        facts = {"facts": opened.record.facts.to_dict()}
        print_record(row | facts if as_json else in_words(row), as_json)


@cli.command()
@study_argument
@reads
def runs(study: str | None, db: str, as_json: bool) -> None:
    """Show every evaluation of STUDY: a trial's training with one seed, brought to one rung."""
    from nas.command.tables import print_rows
    from nas.views.trial_rows import run_row

    with open_study(study, db) as opened:
        print_rows([run_row(each) for each in opened.evaluations()], as_json)


@cli.command()
@study_argument
@click.option(
    "--html", type=click.Path(path_type=Path), help="Also draw it, and the runs over the rungs."
)
@click.option("--all", "everything", is_flag=True, help="Every trial, not the frontier alone.")
@reads
def pareto(study: str | None, html: Path | None, everything: bool, db: str, as_json: bool) -> None:
    """Show the Pareto frontier of STUDY: quality against cost."""
    from nas.command.study_tables import pareto_rows, print_pareto

    with open_study(study, db) as opened:
        print_pareto(pareto_rows(opened, everything), as_json)
        if html is not None:
            from nas.views.pareto import pareto_data
            from nas.views.runs import runs_data
            from nas.views.style import write_html

            record, trials = opened.record, opened.records(stats=False)
            figures = [pareto_data(record, trials)]
            if record.top:
                figures.append(runs_data(record, trials, opened.evaluations()))
            with interrupts.held():  # written whole
                write_html(figures, html)
            echo(f"wrote {html}", err=True)


@cli.command()
@study_argument
@click.option("--html", required=True, type=click.Path(path_type=Path), help="File, written whole.")
@db_option
@short
def report(study: str | None, html: Path, db: str) -> None:
    """Write STUDY on one page to mail: what it searched, found and spent, and how to repeat it."""
    from nas.views.files import write_whole
    from nas.views.report import report as report_page

    with open_study(study, db) as opened:
        text = report_page(opened.store, opened.record)
    with interrupts.held():
        write_whole(text, html, "the report")
    echo(f"wrote {html}, {len(text.encode()) / 1024:,.0f} KiB", err=True)


@cli.command()
@study_argument
@trial_option
@reads
def show(study: str | None, trial: int | None, db: str, as_json: bool) -> None:
    """Show one trial of STUDY whole: its design, measures, routing and runs."""
    from nas.command.study_tables import print_trial, trial_details

    with open_study(study, db) as opened:
        chosen = opened.best() if trial is None else opened.store.trial(opened.record.id, trial)
        print_trial(trial_details(opened, chosen), as_json)


@cli.command()
@click.argument("a")
@click.argument("b")
@click.option("--study", help="The study's name; without one, the newest.")
@reads
def compare(a: str, b: str, study: str | None, db: str, as_json: bool) -> None:
    """Say whether trials A and B differ: numbers of a study's trials, or STUDY:NUMBER."""
    from nas.command.study_tables import print_comparison

    with open_study(study, db) as opened:
        print_comparison(opened.compare(a, b), as_json)


@cli.command()
@study_argument
@click.option("--to", "folder", required=True, type=click.Path(path_type=Path), help="New folder.")
@trial_option
@click.option(
    "--form",
    type=click.Choice(["auto", "native", "custom"]),
    default="auto",
    show_default=True,
    help="A class of transformers that computes the same, our code, or the first that there is.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of the weights.",
)
@click.option("--no-verify", is_flag=True, help="Skip loading it in a fresh process.")
@scale_options
@db_option
def export(
    study: str | None,
    folder: Path,
    trial: int | None,
    form: Form,
    dtype: DType,
    no_verify: bool,
    scale: Scale,
    db: str,
) -> None:
    """Write a trial of STUDY as a model directory that transformers loads."""
    from nas.models.export import form_line

    with open_study(study, db) as opened:
        if scale.asked:
            scale.export(opened, folder, trial, form, verify=not no_verify)
            return
        chosen = opened.best() if trial is None else opened.store.trial(opened.record.id, trial)
        path = opened.export(folder, chosen.number, form=form, dtype=dtype, verify=not no_verify)
        echo(form_line(chosen.spec, opened.backbone, form), err=True)
        echo(str(path))


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--prompt", default="def ", show_default=True)
@click.option("--tokens", default=120, show_default=True, type=click.IntRange(1, TOKENS))
@click.option("--temperature", default=0.8, show_default=True, type=click.FloatRange(0))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, WHOLE))
def generate(model: Path, prompt: str, tokens: int, temperature: float, seed: int) -> None:
    """Sample text from an exported MODEL directory, through transformers."""
    from nas.models.generate import sample

    echo(sample(model, prompt, tokens=tokens, temperature=temperature, seed=seed))


@cli.command()
@click.option("--port", default=8501, show_default=True, type=click.IntRange(1, 65535))
@click.option("--host", default="127.0.0.1", show_default=True, help="Loopback unless you say so.")
@db_option
def dashboard(port: int, host: str, db: str) -> None:
    """Serve the Pareto dashboard."""
    from nas.command.serve_dashboard import serve

    sys.exit(serve(db, host, port))


@cli.command()
@click.option("--d-model", default=128, show_default=True, type=click.IntRange(1, DIM))
@json_option
@click.option(
    "--match",
    type=click.Choice(["active_flops", "total_params"]),
    help="As wide as the dense FFN's FLOPs or parameters allow.",
)
def presets(d_model: int, as_json: bool, match: Equal | None) -> None:
    """List the published designs, scaled to a model width."""
    from nas.command.tables import preset_rows, print_rows

    print_rows(preset_rows(d_model, match), as_json)


@cli.command()
@click.argument("config", metavar="[STUDY.yaml]", required=False, type=click.Path(path_type=Path))
@json_option
def space(config: Path | None, as_json: bool) -> None:
    """Print the search space of a study's file, or the default one: parameters and their counts."""
    from nas.command.tables import print_space, space_record
    from nas.config import StudyConfig
    from search_space.backbone import Backbone
    from search_space.space import SearchSpace

    if config is None:
        record = space_record(SearchSpace(), Backbone())
    else:
        settings = StudyConfig.load(config)
        record = space_record(settings.space, settings.backbone)
    print_space(record, as_json)


@cli.command()
@click.argument("design")
@click.option("--d-model", default=128, show_default=True, type=click.IntRange(1, DIM))
@click.option("--layers", default=4, show_default=True, type=click.IntRange(1, DIM))
@click.option("--heads", default=4, show_default=True, type=click.IntRange(1, DIM))
@click.option("--vocab", default=1024, show_default=True, type=click.IntRange(2, TOKENS))
@click.option("--seq-len", default=128, show_default=True, type=click.IntRange(2, TOKENS))
@json_option
def cost(
    design: str, d_model: int, layers: int, heads: int, vocab: int, seq_len: int, as_json: bool
) -> None:
    """Price a DESIGN: a preset's name, a spec as JSON, or a file that holds one."""
    from nas.command.tables import cost_record, print_record
    from search_space.backbone import Backbone

    backbone = Backbone(
        d_model=d_model, n_layers=layers, n_heads=heads, vocab_size=vocab, seq_len=seq_len
    )
    print_record(cost_record(design, backbone), as_json)


@cli.group("db")
def database() -> None:
    """Look after the database."""


@database.command("upgrade")
@db_option
def upgrade_database(db: str) -> None:
    """Bring a database of an older version to this one's schema; no study is lost."""
    from nas.store import Store

    with interrupts.held(), Store.upgrade(db) as store:
        echo(f"{store.url} has this version's schema, {len(store.studies())} studies")


@cli.command()
@db_option
@click.option(
    "--gpu",
    is_flag=True,
    help="Check instead what this machine's GPUs compute, and how fast: minutes at the first time.",
)
@json_option
def doctor(db: str, gpu: bool, as_json: bool) -> None:
    """Check this machine: versions, processors, database, workers."""
    from nas.command.doctor import checks, gpu_checks
    from nas.command.tables import print_rows

    rows = gpu_checks() if gpu else checks(db)
    print_rows(rows, as_json)
    if any(row["state"] == "broken" for row in rows):
        sys.exit(1)


def run(arguments: list[str]) -> int:
    """The command with these arguments; returns its exit code and never raises for the user's."""
    try:
        answer: Any = cli.main(args=arguments, prog_name="nas", standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except BaseException as error:
        return outcome(error, debug="--debug" in arguments)


def main() -> None:
    """Entry point of the `nas` script."""
    prepare()
    settle_home()
    settle_threads()
    code = finish(interrupts.command(lambda: run(sys.argv[1:])))
    if "torch" not in sys.modules:
        # What lives now goes with the process: a last search for cycles in it takes 0.1 s. With
        # torch, triton would take what is not searched for leaks, and list them.
        gc.freeze()
    sys.exit(code)
