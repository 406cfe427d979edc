"""The commands that take models further: a design at another size, training one, measuring one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nas.command.cli_options import json_option
from nas.command.terminal import echo
from nas.process import interrupts
from search_space.checks import TOKENS, WHOLE
from search_space.errors import require, shown

if TYPE_CHECKING:
    from nas.study import Study
    from search_space.corpus import CorpusSpec
    from search_space.native import Form


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

    def export(
        self, study: Study, folder: Path, trial: int | None, form: Form, verify: bool
    ) -> None:
        """Write the design at that size, and say what it is."""
        require(
            form != "native",
            "--backbone writes a design in its own form, which nas train takes: got --form native; "
            "leave it out",
        )
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


def corpus_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `corpus`, a CorpusSpec without a tokenizer."""

    @click.option("--corpus", "source", required=True, help="A file, folder, glob, URL or hub:ID.")
    @click.option(
        "--corpus-option",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Another key of a study file's corpus, such as max_bytes or text_field.",
    )
    @functools.wraps(command)
    def with_corpus(*arguments: Any, source: str, settings: tuple[str, ...], **rest: Any) -> None:
        command(*arguments, corpus=_corpus(source, settings), **rest)

    return with_corpus


def _corpus(source: str, settings: tuple[str, ...]) -> CorpusSpec:
    from search_space.corpus import CorpusSpec

    fields: dict[str, Any] = {}
    for each in settings:
        for key, value in pairs(each, "--corpus-option").items():
            require(key not in fields, f"--corpus-option: {key} is given twice; keep one")
            fields[key] = value
    for name, why in {"source": "--corpus has it", "tokenizer": "a model has its own"}.items():
        require(name not in fields, f"--corpus-option has no {name}: {why}; leave it out")
    return CorpusSpec.from_dict({"source": source, **fields})


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@corpus_options
@click.option("--flops", required=True, type=float, help="Training FLOPs that it may spend.")
@click.option("--to", "out", required=True, type=click.Path(path_type=Path), help="Its folder.")
@click.option(
    "--recipe",
    default="",
    metavar="KEY=VALUE,...",
    help="Keys of a study file's recipe: batch_size=16,lr=auto,precision=bfloat16",
)
@click.option(
    "--micro-batch",
    default=0,
    type=click.IntRange(0, TOKENS),
    help="Sequences that are read at once; 0 for a whole batch.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, WHOLE))
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", default=0, type=click.IntRange(0, 4096), help="Of torch, on the CPU.")
@click.option(
    "--keep-every",
    default=60.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Seconds between two states.",
)
@click.option("--eval-tokens", default=65_536, show_default=True, type=click.IntRange(2, TOKENS))
@click.option(
    "--track",
    multiple=True,
    type=click.Choice(["tensorboard", "wandb", "mlflow"]),
    help="Where the curve goes besides its log; must be installed.",
)
@click.option("--no-verify", is_flag=True, help="Skip loading the model in a fresh process.")
@json_option
def train(
    model: Path,
    corpus: CorpusSpec,
    out: Path,
    recipe: str,
    keep_every: float,
    track: tuple[str, ...],
    no_verify: bool,
    as_json: bool,
    **rest: Any,
) -> None:
    """Train MODEL, an exported directory, on, or go on with a training.

    The same command goes on with a training that was stopped or killed; with more --flops, with
    one that is done. torchrun --nproc-per-node 2 -m nas train ... trains in several processes.
    """
    from nas.command.tables import print_record
    from nas.command.terminal import console
    from nas.command.training_bar import TrainingBar
    from nas.models.order import Order
    from nas.models.train import train_model
    from search_space.contract import Recipe

    order = Order(
        source=model,
        corpus=corpus,
        out=out,
        recipe=Recipe.from_dict(pairs(recipe, "--recipe")),
        keep_seconds=keep_every,
        trackers=tuple(dict.fromkeys(track)),
        verify=not no_verify,
        **rest,
    )
    with interrupts.held(), TrainingBar(console(stderr=True)) as bar:
        result = train_model(order, bar.note, bar.listen)
    if result:  # of several processes the first one has it
        print_record({key: value for key, value in result.items() if key != "files"}, as_json)


@click.command("eval")
@click.argument("model", type=click.Path(path_type=Path))
@corpus_options
@click.option(
    "--split", default="validation", show_default=True, type=click.Choice(["validation", "test"])
)
@click.option("--tokens", default=65_536, show_default=True, type=click.IntRange(2, WHOLE))
@click.option("--batch", default=16, show_default=True, type=click.IntRange(1, TOKENS))
@click.option(
    "--seq-len", default=0, type=click.IntRange(0, TOKENS), help="The model's own without one."
)
@click.option("--device", default="auto", show_default=True)
@click.option("--threads", default=0, type=click.IntRange(0, 4096), help="Of torch, on the CPU.")
@json_option
def evaluate(model: Path, corpus: CorpusSpec, as_json: bool, **rest: Any) -> None:
    """Measure MODEL, any causal language model's directory, on a text: bits per byte.

    Code in the directory runs, as with nas generate.
    """
    from nas.command.tables import print_record
    from nas.models.evaluate import Question, evaluate_model

    print_record(evaluate_model(Question(model=model, corpus=corpus, **rest)), as_json)


MODEL_COMMANDS = (train, evaluate)
