"""A tiny study, and whether a database of studies is at rest."""

from __future__ import annotations

import random
from pathlib import Path

import yaml

from nas.store import Store, StudyState
from search_space.contract import Status
from search_space.errors import InputError

WORDS = "the cat sat on a mat and then ran off to find some more fish in sea near old house"


def write_study(
    folder: Path, trials: int, trial_flops: float = 3e7, lines: int = 4000, **changes: object
) -> str:
    """Write corpus.txt and study.yaml into `folder`; returns the file's name."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    words = WORDS.split()
    text = "\n".join(" ".join(draw.choices(words, k=9)) for _ in range(lines))
    (folder / "corpus.txt").write_text(text)
    study = {
        "name": "tiny",
        "corpus": {"source": "corpus.txt"},
        "backbone": {"d_model": 32, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32},
        "recipe": {"batch_size": 2},
        "budget": {"trials": trials, "trial_flops": trial_flops},
        "warm_start": ["dense", "switch"],
        "workers": {"count": 1, "device": "cpu"},
        "eval_tokens": 512,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study | changes))
    return "study.yaml"


def at_rest(url: str, *states: StudyState) -> str:
    """What is wrong with the studies of a database when no command runs, or "".

    states: the states that they may have; any ending without.
    """
    try:
        store = Store.open(url, create=False)
    except InputError as error:
        path = Path(url.removeprefix("sqlite:///"))
        return f"left {path.name}: {error}" if path.exists() else ""
    with store:
        studies = store.studies()
        if not studies:
            return "left a database without a study"
        for study in studies:
            if study.state is StudyState.RUNNING or (states and study.state not in states):
                return f"study {study.name} is {study.state.value}"
            running = [each for each in store.trials(study.id) if each.status is Status.RUNNING]
            if running:
                return f"{len(running)} trials of {study.name} are running"
            if reserved := store.ledger(study.id).reserved:
                return f"{study.name} holds {reserved:g} FLOPs"
    return ""
