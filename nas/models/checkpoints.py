"""Where a study's weights lie, and whether they are the trial's own.

A study's files belong to the study: its folder's name and every checkpoint have its uid, and the
store keeps paths relative to that folder. So a database that is moved or copied with its
`nas-runs` still exports, and two databases in one place never share a file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.store import Store, StudyRecord, TrialRecord
from search_space.contract import BASE_CONFIG, MANIFEST, MANIFEST_FORMAT, TOKENIZER, WEIGHTS, Status
from search_space.errors import InputError, shown
from search_space.plain import read_json

log = logging.getLogger(__name__)
RUNS, STATES = "nas-runs", "states"
_WAY_OUT = "put the study's own folder back, or launch the study again"


@dataclass(frozen=True)
class Checkpoint:
    """A trial's own files, checked.

    spec, backbone: plain data that built the model.
    flops: that its run was trained with, over all of its rungs.
    """

    weights: Path
    tokenizer: Path
    spec: dict[str, Any]
    backbone: dict[str, Any]
    flops: float


def runs_dir(store: Store) -> Path:
    """Where studies' folders are made: beside a SQLite database, else in the working directory."""
    return (store.file.parent if store.file else Path.cwd()) / RUNS


def folder_name(study: StudyRecord) -> str:
    """The study's folder: its name for people, and enough of its uid to be the only one."""
    return f"{study.name}-{study.uid[:12]}"


def study_folder(study: StudyRecord, store: Store) -> Path:
    """Where the study's files lie: beside the database, or where it was launched."""
    beside = runs_dir(store) / folder_name(study)
    launched = study.facts.runs
    if not beside.is_dir() and launched and os.path.isdir(launched):
        return Path(launched)
    return beside


def trial_folder(trial: int, attempt: int) -> str:
    """The checkpoint's folder in the study's. An attempt that was given up may still write its own.

    trial: its number.
    """
    return f"trial-{trial}" if attempt == 1 else f"trial-{trial}.{attempt}"


def run_folder(trial: int, seed: int) -> str:
    """Where a run keeps its training's states, in the study's folder or at `workers.state_url`."""
    return f"{STATES}/trial-{trial}-seed-{seed}"


def state_place(folder: Path, url: str, study: StudyRecord) -> str:
    """The folder or URL that a study's runs keep their states below."""
    return f"{url.rstrip('/')}/{folder_name(study)}" if url else str(folder)


def kept_runs(place: str) -> set[str]:
    """The folders, in `run_folder`'s form, of all runs of a study that have states.

    place: as `state_place` gives it. One that cannot be looked at costs a warning, and has none.
    """
    folder = f"{place}/{STATES}"
    try:
        if os.path.isabs(place):
            names = os.listdir(folder) if os.path.isdir(folder) else []
        else:
            fs, path = _at_url(folder)
            found = fs.ls(path, detail=False) if fs.exists(path) else []
            names = [str(each).rstrip("/").rpartition("/")[2] for each in found]
    except Exception as error:  # of an object store, any: credentials are not OSErrors
        log.warning("training states in %s cannot be looked at: %s", folder, error)
        return set()
    return {f"{STATES}/{name}" for name in names}


def discard_states(place: str) -> None:
    """Remove a run's states, once no promotion and no resumption can need them.

    place: an absolute path or an fsspec URL. What cannot be removed costs a warning.
    """
    try:
        if os.path.isabs(place):
            if os.path.isdir(place):
                shutil.rmtree(place)
            return
        fs, path = _at_url(place)
        if fs.exists(path):
            fs.rm(path, recursive=True)
    except Exception as error:  # of an object store, any: credentials are not OSErrors
        log.warning("training states stay in %s: %s", place, error)


def _at_url(url: str) -> tuple[Any, str]:
    # What states are written with; imported here because most studies keep theirs in a folder.
    import fsspec

    fs, path = fsspec.core.url_to_fs(url)
    return fs, str(path)


def find_checkpoint(store: Store, study: StudyRecord, trial: TrialRecord) -> Checkpoint:
    """The trial's checkpoint, once identity, design and checksums agree with the store.

    It is looked for beside the database, in the working directory, and where the study was
    launched. Raises InputError when there is none, or when it is not the trial's own.
    """
    result = trial.result
    if result is not None and (lost := result.stats.get("checkpoint_error")):
        raise InputError(
            f"trial {trial.number} of {study.name!r} has no weights to export, because its "
            f"checkpoint could not be written: {lost}; choose another with --trial"
        )
    if result is None or not result.checkpoint:
        standing = trial.status.value
        if trial.status is Status.PAUSED:
            standing = f"paused at rung {trial.rung} of 0 to {study.top}"
        raise InputError(
            f"only a finished trial with a checkpoint can be exported: trial {trial.number} of "
            f"{study.name!r} is {standing}; see: nas pareto {study.name}"
        )
    places = _places(store, study, result.checkpoint)
    # Not Path.is_file: a place that may not be looked at must not hide the others.
    found = next((place for place in places if os.path.isfile(place / WEIGHTS)), None)
    if found is None:
        raise InputError(
            f"the checkpoint of trial {trial.number} of {study.name!r} is gone: it was looked for "
            f"at {', '.join(map(str, places))}; {_WAY_OUT}"
        )
    manifest = _read_manifest(found, result.checkpoint_digest)
    evaluation = store.evaluation(result.evaluation)
    if manifest.get("format") == MANIFEST_FORMAT:
        tokenizer = _check_own(found, manifest, study, trial)
    else:
        _check_former(found, manifest, study, trial, evaluation.until_flops)
        tokenizer = Path(study.facts.corpus_dir) / TOKENIZER
    if not os.path.isfile(tokenizer):
        raise InputError(f"the tokenizer of {study.name!r} is gone: {tokenizer}; {_WAY_OUT}")
    spec, backbone = manifest["spec"], manifest["backbone"]
    # The evaluation's own FLOPs are those beyond the rung below.
    flops = evaluation.start_flops + result.flops
    return Checkpoint(found / WEIGHTS, tokenizer, spec, backbone, flops)


def _places(store: Store, study: StudyRecord, checkpoint: str) -> list[Path]:
    roots = [runs_dir(store), Path.cwd() / RUNS]
    if Path(checkpoint).is_absolute():  # what versions before 0002 stored
        former = [root / Path(checkpoint).parent.name / Path(checkpoint).name for root in roots]
        return list(dict.fromkeys([*former, Path(checkpoint)]))
    folders = [root / folder_name(study) for root in roots]
    if study.facts.runs:
        folders.append(Path(study.facts.runs))
    return list(dict.fromkeys(folder / checkpoint for folder in folders))


def _read_manifest(folder: Path, digest: str) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest = read_json(path)
        found = _digest(path)
    except InputError as error:
        raise InputError(f"{error}; {_WAY_OUT}") from None
    if digest and found != digest:
        raise InputError(
            f"{path} is not what the trial wrote: its checksum differs from the database's; "
            f"{_WAY_OUT}"
        )
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is damaged: it is not a JSON object; {_WAY_OUT}")
    return manifest


def _check_own(
    folder: Path, manifest: dict[str, Any], study: StudyRecord, trial: TrialRecord
) -> Path:
    """Raise InputError unless the checkpoint is the trial's; returns its tokenizer's path."""
    expected = {"study": study.uid, "trial": trial.number, "seed": study.seed}
    _agree(folder, manifest, expected, trial)
    files = {WEIGHTS: folder / WEIGHTS, TOKENIZER: folder.parent / TOKENIZER}
    if os.path.isfile(folder / BASE_CONFIG):
        files[BASE_CONFIG] = folder / BASE_CONFIG
    sums = manifest.get("files")
    for name, path in files.items():
        if os.path.isfile(path) and (not isinstance(sums, dict) or sums.get(name) != _digest(path)):
            raise InputError(
                f"{path} is damaged or another trial's: its checksum is not the one in "
                f"{folder / MANIFEST}; {_WAY_OUT}"
            )
    return files[TOKENIZER]


def _check_former(
    folder: Path,
    manifest: dict[str, Any],
    study: StudyRecord,
    trial: TrialRecord,
    until_flops: float,
) -> None:
    """A checkpoint from before studies had a uid: all that decided its training must agree."""
    expected = {
        "train_flops": until_flops,
        "corpus": study.facts.corpus.hash,
        "backbone": study.config.get("backbone"),
        "recipe": study.config.get("recipe"),
        "seed": study.seed,
    }
    _agree(folder, manifest, expected, trial)


def _agree(
    folder: Path, manifest: dict[str, Any], expected: dict[str, Any], trial: TrialRecord
) -> None:
    expected = expected | {"spec": trial.spec.to_dict()}
    for name, value in expected.items():
        if manifest.get(name) != value:
            raise InputError(
                f"the weights in {folder} are another trial's: their {name} is "
                f"{shown(manifest.get(name))}, the database has {shown(value)}; {_WAY_OUT}"
            )


def _digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; {_WAY_OUT}") from None


def sweep_drafts(folder: Path) -> None:
    """Remove what workers that died left of unfinished checkpoints in a study's folder."""
    for draft in folder.glob(".*"):
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        else:
            draft.unlink(missing_ok=True)
