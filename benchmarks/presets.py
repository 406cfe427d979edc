"""How the published designs compare under our recipe, at equal training FLOPs.

Each is as wide as the dense FFN's active FLOPs allow; `--match` names another cost, or none.

A study a seed, whose warm starts are the designs: every design takes one seed before any takes the
next, so that a run that is cut still compares them all.
`python -m benchmarks.presets --state FOLDER --json FILE`; the same line again goes on where a cut
run ended, and does not try again what failed. `nas list --db sqlite:///FOLDER/nas.db` names its
studies. `--markdown` prints the table of a document.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from benchmarks.preset_comparison import Comparison, Outcomes
from benchmarks.preset_rows import markdown, rows
from benchmarks.preset_studies import Studies
from benchmarks.report import parser, publish
from nas.machines import Device
from nas.running.launcher import PoolFactory, open_pool
from nas.store import Store
from search_space.contract import Precision, Recipe
from search_space.corpus import STDLIB, CorpusSpec
from search_space.errors import InputError, WorkFailed, require
from search_space.places import corpora_dir
from search_space.presets import PRESETS
from workers.corpus import prepare


def compare(
    comparison: Comparison,
    text: CorpusSpec,
    *,
    store: Store,
    workers: int | None,
    console: Console,
    pool_factory: PoolFactory = open_pool,
) -> Outcomes:
    """Run what `store` does not hold, `workers` trainings at a time; Ctrl-C ends it early.

    console: gets the progress.
    Raises InputError for a bad corpus, and while somebody else runs one of the studies; WorkFailed
    when the workers are lost.
    """
    require(workers is None or workers >= 1, f"workers must be at least 1: got {workers}")
    backbone, note = comparison.backbone, functools.partial(say, console)
    corpus = prepare(text, backbone.vocab_size, backbone.seq_len, corpora_dir())
    studies = Studies(store, corpus.meta["hash"], corpus.meta["vocab_size"])
    configs = {seed: comparison.study(seed, text, workers) for seed in comparison.seeds}

    def ended() -> Outcomes:
        return {
            (preset, seed): outcome
            for seed, config in configs.items()
            for preset, outcome in studies.outcomes(config, comparison.presets).items()
        }

    outcomes = ended()
    with progress_bar(len(outcomes), len(configs) * len(comparison.presets), console) as tell:

        def tell_new() -> None:
            for (preset, seed), outcome in ended().items():
                if (preset, seed) not in outcomes:
                    outcomes[preset, seed] = outcome
                    tell(f"{preset}, seed {seed}: {outcome.line()}")

        try:
            for config in configs.values():
                studies.finish(
                    config,
                    report=note,
                    listen=lambda snapshot: tell_new() if snapshot.ended else None,
                    pool_factory=pool_factory,
                )
                tell_new()
        except KeyboardInterrupt:
            note("interrupted: the rows are of the trials that ended before")
    return ended()


@contextlib.contextmanager
def kept_in(folder: Path | None) -> Iterator[Store]:
    """The database of a folder, which is made; without one, of a folder that is removed again.

    InputError for a folder or a database that cannot be used.
    """
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"state: cannot use {str(folder)!r}: {error.strerror}; give another folder"
            ) from None
        path = str(folder.absolute() / "nas.db").replace("%", "%25").replace("?", "%3F")
        store = stack.enter_context(Store.open(f"sqlite:///{path}"))
        stack.callback(store.discard_if_unused)
        yield store


def say(console: Console, text: str) -> None:
    """Print a line as it is."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def progress_bar(done: int, total: int, console: Console) -> Iterator[Callable[[str], None]]:
    """A bar with the time left; yields a function that counts a trial and prints its line."""
    left_column = TextColumn("{task.fields[left]}")
    columns = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), left_column)
    began, before = time.monotonic(), done
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("", total=total, completed=done, left="")

        def tell(line: str) -> None:
            nonlocal done
            done += 1
            seconds = (time.monotonic() - began) * (total - done) / (done - before)
            left = f"about {seconds / 60:.0f} min left" if done < total else ""
            bar.update(task, completed=done, left=left)
            say(console, line)

        yield tell


def main(arguments: list[str] | None = None) -> int:
    """The command; exit code 1 where a trial did not finish, 2 for bad arguments."""
    command = _command()
    options = command.parse_args(arguments)
    try:
        json_file = options.json
        require(
            json_file is None or json_file.absolute().parent.is_dir(),
            f"json: there is no folder {str(json_file and json_file.parent)!r}; make it first",
        )
        comparison = Comparison(
            presets=tuple(options.presets.split(",")),
            seeds=options.seeds,
            match=None if options.match == "none" else options.match,
            flops=options.flops,
            eval_tokens=options.eval_tokens,
            recipe=Recipe(precision=options.precision),
            device=options.device,
        )
        with kept_in(options.state) as store:
            outcomes = compare(
                comparison,
                CorpusSpec(source=options.text),
                store=store,
                workers=options.workers,
                console=Console(stderr=True),
            )
    except (InputError, WorkFailed) as error:
        print(f"{command.prog}: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    with contextlib.redirect_stdout(sys.stderr if options.markdown else sys.stdout):
        code = publish(rows(comparison, outcomes), json_file)
    if options.markdown:
        print(markdown(comparison, outcomes))
    return code


def _command() -> argparse.ArgumentParser:
    command = parser(__doc__)
    add = command.add_argument
    default = Comparison()
    add("--presets", default=",".join(PRESETS), metavar="A,B", help="default: %(default)s")
    add(
        "--match",
        choices=("active_flops", "total_params", "none"),
        default="active_flops",
        help="the cost of the dense FFN that each design's has, default: %(default)s; none is the "
        "published widths",
    )
    add("--seeds", type=_seeds, default=default.seeds, metavar="N,N", help="default: 0,1,2")
    add(
        "--flops",
        type=float,
        default=default.flops,
        help="training FLOPs of a trial, default: %(default)g",
    )
    add("--text", default=STDLIB, metavar="GLOB", help="files of text; default: Python's library")
    add(
        "--workers",
        type=int,
        help="trainings of one thread at once; default: one a core",
    )
    add("--device", choices=get_args(Device), default=default.device, help="default: %(default)s")
    add(
        "--precision",
        choices=get_args(Precision),
        default=default.recipe.precision,
        help="default: %(default)s",
    )
    add("--eval-tokens", type=int, default=default.eval_tokens, help="default: %(default)s")
    add("--state", type=Path, metavar="FOLDER", help="keep the studies here, and go on with them")
    add("--markdown", action="store_true", help="the table to stdout, the rows to stderr")
    return command


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"whole numbers such as 0,1,2: got {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
