"""Random command lines of every command, with hostile words: a valid result, or one line.

Most run in this process; every tenth in a process of its own, as a shell starts it. Nothing starts
a study, a server or a worker: what could is given at least one word that is wrong.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.abuse.commands import LIMIT_S, WAITS, Ended, in_process, shown_arguments, wrong
from nas.command import tables
from nas.store import Facts, Store, StudyState
from search_space.backbone import Backbone
from search_space.contract import EvalResult, Status
from search_space.cost import model_cost
from search_space.spec import FFNSpec

FULL, SHORT = 200, 20

ROOT = Path(__file__).parents[2]
OWN_PROCESS = 10  # every so many-th
START_S = 20.0  # of an interpreter and its imports on a busy machine, at most

NUMBERS = (
    "0", "1", "7", "-1", "1.5", "nan", "inf", "-inf", "1e3", "1e400", "0x10", "1_000", "٣", "",
    "true", "65535", "65536", "65537", str(2**31), str(2**32), str(2**63), str(2**64),
    "1" + "0" * 30, "1" + "0" * 400, "9" * 5_000, "-" + "9" * 400, " 3 ", "1,000", "3;4", "None",
)  # fmt: skip
TEXTS = (
    "", " ", "-", "--", "--help-me", "x", "first", "frist", "é", "💥", "\u202e", "\udcff", "a\nb",
    "x" * 5_000, "x/" * 3_000, "..", "../..", "/", ".", "/dev/zero", "/dev/full", "/proc/self/mem",
    "pipe", "folder", "latin.json", "study.yaml", "none.yaml", "%s%n", "{}", "[]", "$(id)", "*",
    "~", "~root", "http://u:p@h/x", "[bold]x[/bold]", "[/]", "first.", "1e5",
)  # fmt: skip
DATABASES = (
    *TEXTS, "nas.db", "sqlite:///nas.db", "sqlite:///none.db", "sqlite://", "sqlite:///", "sqlite:",
    "sqlite:///:memory:", "sqlite:///pipe", "sqlite:///folder", "sqlite:////dev/null", "sqlite:///%00",
    "sqlite:////proc/x", "sqlite:///none/nas.db", "sqlite:///nas.db?timeout=x", "sqlite://h/nas.db",
    "sqlite:///latin.json", "sqlite:///" + "x" * 400, "sqlite+x:///nas.db", "postgresql://[::1",
    "postgresql://u:p@127.0.0.1:1/d", "postgresql://127.0.0.1:99999999/d", "postgresql://h:port/d",
    "postgresql://u:p@ss@127.0.0.1:1/d", "postgresql://127.0.0.1:1/d?x=y", "mysql://u:p@h/d",
    "postgresql://127.0.0.1:1/d?connect_timeout=x", "oracle://h", "postgresql+x://127.0.0.1:1/d",
)  # fmt: skip
DESIGNS = (
    *TEXTS, "dense", "switch", "peer", "olmoe", "swich", "spec.json", '{"d_ff": 512}', "{}", "{",
    '{"d_ff": ' + "9" * 400 + "}", '{"d_ff": 512, "selection": {"method": ["topk"]}}', "{d_ff: 1}",
    '{"d_ff": 1e9}', '{"d_ff": NaN}', '{"d_ff": 4, "d_ff": 8}', '{"d_ff": null}', '{"a": ' * 2_000,
    '{"d_ff": "\\ud800"}', '{"d_ff": 4294967296, "depth": 65536}',
    '{"d_ff": 4294967291, "expert_width": 3}',
)  # fmt: skip
TRIALS = (*NUMBERS, *TEXTS, "first:0", "first:9", "frist:0", ":0", "first:", "a:b:0", "first: 0")
FILES = (*TEXTS, "bad.yaml", "huge.yaml", "bomb.yaml")
FOLDERS = (".", "/", "none/report.html", "bad.yaml/report.html", "\udcff/x", "a\0b", "x" * 300)
HOSTS = ("256.1.1.1", "a" * 100, "é", "host.invalid", "::g", "-1", "\udcff", "x y")

Words = tuple[str, ...]


@dataclass(frozen=True)
class Command:
    """What its arguments, and the values of its options, are drawn from; None for a flag."""

    arguments: tuple[Words, ...] = ()
    options: Mapping[str, Words | None] = field(default_factory=dict)


JSON: dict[str, Words | None] = {"--json": None}
READ: dict[str, Words | None] = {"--db": DATABASES, "--json": None}
SIZES = dict.fromkeys(("--d-model", "--layers", "--heads", "--vocab", "--seq-len"), NUMBERS)
SAMPLING = dict.fromkeys(("--tokens", "--temperature", "--seed"), NUMBERS)
PAIRS = (*TEXTS, "d_model=64", "d_model=1e999", "lr=nan", "a=b=c", "=", ",,,", "max_bytes=-1", "x=")
SCALING: dict[str, Words | None] = {"--backbone": PAIRS, "--tokenizer": TEXTS, "--seed": NUMBERS}
TEXT = {"--corpus": TEXTS, "--corpus-option": PAIRS, "--device": TEXTS, "--threads": NUMBERS}
TRAINING: dict[str, Words | None] = {
    **TEXT,
    **dict.fromkeys(("--flops", "--micro-batch", "--seed", "--keep-every"), NUMBERS),
    "--to": TEXTS,
    "--recipe": PAIRS,
    "--track": TEXTS,
}
MEASURING: dict[str, Words | None] = {
    **TEXT,
    **dict.fromkeys(("--tokens", "--batch", "--seq-len"), NUMBERS),
    "--split": TEXTS,
    **JSON,
}
COMMANDS = {
    "list": Command(options=READ),
    "status": Command((TEXTS,), READ),
    "runs": Command((TEXTS,), READ),
    "resume": Command((TEXTS,), {"--db": DATABASES}),
    "stop": Command((TEXTS,), {"--db": DATABASES}),
    "extend": Command((TEXTS,), {"--flops": NUMBERS, "--trials": NUMBERS, "--db": DATABASES}),
    "pareto": Command((TEXTS,), {"--all": None, **READ}),
    "report": Command((TEXTS,), {"--db": DATABASES}),
    "compare": Command((TRIALS, TRIALS), {"--study": TEXTS, **READ}),
    "show": Command((TEXTS,), {"--trial": NUMBERS, **READ}),
    "export": Command(
        (TEXTS,),
        {"--to": TEXTS, "--form": TEXTS, "--no-verify": None, "--db": DATABASES, **SCALING},
    ),
    "generate": Command((FILES,), {**SAMPLING, "--prompt": TEXTS}),
    "train": Command((FILES,), TRAINING),
    "eval": Command((FILES,), MEASURING),
    "presets": Command(options={"--d-model": NUMBERS, **JSON}),
    "space": Command((FILES,), JSON),
    "cost": Command((DESIGNS,), {**SIZES, **JSON}),
    "launch": Command((FILES,), {"--name": TEXTS, "--db": DATABASES}),
    "dashboard": Command(options={"--port": NUMBERS, "--db": DATABASES}),
}
# These start something unless they are refused: each gets a word that is always wrong.
CERTAIN = {
    "dashboard": ("--host", HOSTS),
    "export": ("--trial", ("-1", "99", "x")),
    "report": ("--html", FOLDERS),
}
READERS = {"list", "status", "runs", "pareto", "compare", "show", "presets", "space", "cost"}


def attempts(count: int, seed: int, folder: Path) -> Iterator[str]:
    """Run `count` command lines in a folder with a study, and files of every bad kind."""
    chance = random.Random(seed)
    furnish(folder)
    counted, tables.COUNT_SECONDS = tables.COUNT_SECONDS, 0.1
    known = {"NAS_DB", "FFN_NAS_CACHE"}
    before = {name: os.environ.pop(name) for name in known if name in os.environ}
    os.environ["FFN_NAS_CACHE"] = str(folder / "cache")
    try:
        with contextlib.chdir(folder):
            for number in range(count):
                words = command_line(chance)
                fault = attempt(words, own=number % OWN_PROCESS == 0)
                yield fault and f"{number}: nas {shown_arguments(words)}: {fault}"
    finally:
        tables.COUNT_SECONDS = counted
        del os.environ["FFN_NAS_CACHE"]
        os.environ.update(before)


def command_line(chance: random.Random) -> list[str]:
    """A command, some of its arguments and options, and at times a word too many."""
    name = chance.choice(list(COMMANDS))
    command = COMMANDS[name]
    words = [chance.choice(drawn) for drawn in command.arguments if chance.random() < 0.9]
    for option, drawn in command.options.items():
        if chance.random() < 0.4:
            words += [option] if drawn is None else [option, chance.choice(drawn)]
    if name in CERTAIN:
        option, wrong_words = CERTAIN[name]
        words += [option, chance.choice(wrong_words)]
    if chance.random() < 0.1:
        words.insert(chance.randrange(len(words) + 1), chance.choice(TEXTS))
    return [name, *words]


def attempt(words: list[str], own: bool) -> str:
    """Run one line; what is wrong with how it ended, and with what it left behind."""
    before = set(os.listdir())
    ended = _in_own_process(words) if own else in_process(words)
    fault = wrong(ended, refused_only=words[0] not in READERS)
    if not fault and ended.seconds > LIMIT_S + (START_S if own else 0):
        fault = f"took {ended.seconds:.1f} s"
    if left := set(os.listdir()) - before:
        fault = fault or f"left {sorted(left)} behind"
    return fault


def _in_own_process(words: list[str]) -> Ended:
    command = [sys.executable, "-c", "from nas.command.cli import main; main()", *words]
    before = os.times()
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=(LIMIT_S + START_S) * WAITS,
    )
    after = os.times()
    took = sum(after[2:4]) - sum(before[2:4])  # of work: the children's that have ended
    out, err = (stream.decode("utf-8", "replace") for stream in (done.stdout, done.stderr))
    return Ended(done.returncode, out, err, took)


def furnish(folder: Path) -> None:
    """A database with a finished trial that has no checkpoint, and files of every bad kind."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "latin.json").write_bytes(b'{"d_ff": 512, "x": "\xe9"}')
    (folder / "spec.json").write_text('{"d_ff": 96, "activation": "relu"}')
    (folder / "study.yaml").write_text("budget: {trials: 0, trial_flops: 1e13}\n")
    (folder / "bad.yaml").write_text("name: [first\nbudget: {\n")
    (folder / "huge.yaml").write_bytes(b"# comment\n" * 200_000)
    names = (f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    (folder / "bomb.yaml").write_text("a0: &a0 [x]\n" + "".join(names))
    with Store.open(f"sqlite:///{folder}/nas.db") as store:
        study = store.create_study("first", {}, 0, 3e9, ["bits_per_byte", "active_flops"])
        store.update_study(study.id, facts=Facts(ngram_bits_per_byte={"3": 2.5}))
        spec = FFNSpec(d_ff=64)
        _, evaluation = store.add_trial(
            study.id,
            spec,
            seed=0,
            source="preset",
            params={},
            until_flops=1e9,
            cost=model_cost(spec, Backbone()).to_dict(),
        )
        result = {"bits_per_byte": 2.25, "bits_per_byte_se": 0.1, "flops": 5e8}
        ended = EvalResult(evaluation=evaluation.id, status=Status.FINISHED, **result)
        store.end_evaluation(ended)
        # Finished, so that it can be neither stopped nor resumed.
        store.release(store.hold_study(study.id, "nobody"), StudyState.FINISHED)
