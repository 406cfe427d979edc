"""The folder of `nas train`: what was asked for, how far it is, and the model once it is done.

    OUT/
      config.json, model.safetensors, ...   the model, once the training is done
      training/
        request.json    what decides the training, and what was measured before it
        step-N.*        its states (workers.training.state), and those of the decay in branch/
        log.jsonl       a line a point of the curve
        result.json     what came of it

Files are written whole. While the model is replaced there is no config.json, so that no program
takes old weights for new ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nas.models.directory import CONFIG
from search_space.errors import InputError, WorkFailed, require, shown
from search_space.plain import read_json

PLACE, REQUEST, RESULT, LOG, LOCK = "training", "request.json", "result.json", "log.jsonl", "lock"
FORMAT = 1
KEYS = ("identity", "precision", "run_flops", "until_flops", "before")  # of a request
_DRAFT = ".export-"


class TrainingFolder:
    """Where a training keeps all of its files.

    request: what was asked for when it began, or was last extended; None before that.
    result: what came of it, once it was done; that of fewer FLOPs while it is extended.
    """

    def __init__(self, out: Path) -> None:
        """Look at `out`, and change nothing. InputError unless it is new, empty or a training's."""
        self.out, self.place = out.absolute(), out.absolute() / PLACE
        self.request: dict[str, Any] | None = self._read(REQUEST)
        self.result: dict[str, Any] | None = self._read(RESULT)
        self._lock: int | None = None
        self._made: list[Path] = []
        if self.request is None:
            self._check_free()
            return
        form = self.request.get("format")
        require(
            form == FORMAT,
            f"{self.place} was written by another version (format {shown(form)}); choose another "
            "--to",
        )
        lost = next((key for key in KEYS if key not in self.request), None)
        require(lost is None, f"{self.place / REQUEST} is damaged: it has no {lost}")

    def _check_free(self) -> None:
        way_out = "choose another --to"
        if not os.path.lexists(self.out):
            above = next(p for p in self.out.parents if os.path.lexists(p))
            require(os.path.isdir(above), f"{above} is no folder; {way_out}")
            can = os.access(above, os.W_OK | os.X_OK)
            require(can, f"nothing can be written to {above}: Permission denied; {way_out}")
            return
        require(
            os.path.isdir(self.out), f"a training needs a folder: {self.out} is a file; {way_out}"
        )
        try:
            empty = not os.listdir(self.out)
        except OSError as error:
            raise InputError(f"cannot read {self.out}: {error.strerror}; {way_out}") from None
        require(
            empty,
            f"a training needs a new or empty folder, or its own: {self.out} holds other files; "
            f"{way_out}",
        )

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.place / name
        if not os.path.isfile(path):
            return None
        found = read_json(path)
        require(isinstance(found, dict), f"{path} is damaged: it is no JSON object")
        return dict(found)

    @property
    def done(self) -> bool:
        """Whether the training that was last asked for is done, and its model written."""
        if self.request is None or self.result is None:
            return False
        return bool(self.result.get("until_flops") == self.request.get("until_flops"))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder; while the body runs, no other process trains here.

        What was made is removed again where the body ends before anything was kept.
        """
        folders = [self.place, self.out, *self.out.parents]
        self._made = [folder for folder in folders if not os.path.lexists(folder)]
        try:
            self.place.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.place / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock or 0)
            raise InputError(
                f"{self.out} is being trained by another process; wait for it, or choose another "
                "--to"
            ) from None
        except (OSError, ValueError) as error:  # or a NUL, and what no file name can hold
            self._remove_made()
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"cannot write to {self.out}: {reason}; choose another --to") from None
        try:
            self._sweep()
            yield
        finally:
            os.close(self._lock)
            if not os.path.isfile(self.place / REQUEST):
                (self.place / LOCK).unlink(missing_ok=True)
                self._remove_made()

    def _remove_made(self) -> None:
        for folder in self._made:
            with suppress(OSError):  # it holds what others put there, or was never made
                folder.rmdir()

    def _sweep(self) -> None:
        """Remove the drafts of processes that were killed."""
        for draft in self.out.glob(f"{_DRAFT}*"):
            shutil.rmtree(draft, ignore_errors=True)

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        """Write REQUEST or RESULT whole. WorkFailed when it cannot be written."""
        path = self.place / name
        draft = path.with_suffix(".new")
        try:
            draft.write_text(json.dumps({"format": FORMAT, **data}, indent=1) + "\n")
            os.replace(draft, path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise WorkFailed(f"cannot write {path}: {error.strerror}") from None
        if name == REQUEST:
            self.request = dict(data)
        else:
            self.result = dict(data)

    @contextmanager
    def new_model(self) -> Iterator[Path]:
        """Yield a draft to write the model into; it takes the old one's place at the end."""
        draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=self.out))
        try:
            yield draft
            self._replace(draft)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _replace(self, draft: Path) -> None:
        """The configuration goes first and comes last: without it there is no model."""
        (self.out / CONFIG).unlink(missing_ok=True)
        new = sorted(os.listdir(draft))
        before = self.result.get("files", []) if self.result else []
        for name in before:
            if name == os.path.basename(name) and (name not in new or _is_folder(self.out / name)):
                _remove(self.out / name)
        for name in sorted(new, key=lambda name: name == CONFIG):
            os.replace(draft / name, self.out / name)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _remove(path: Path) -> None:
    """A file or a folder of an earlier model."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class TrainingLog:
    """log.jsonl: a JSON object a line, each with its `step`; one that cannot be written is lost."""

    def __init__(self, place: Path, after: int) -> None:
        """Go on after the lines of the steps up to `after`: later ones are done again."""
        self.path = place / LOG
        kept = [line for line in self._lines() if line["step"] <= after]
        draft = self.path.with_suffix(".new")
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept))
        os.replace(draft, self.path)

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        for line in self.path.read_text().splitlines():
            try:
                found = json.loads(line)
            except ValueError:  # cut when the process was killed
                continue
            if isinstance(found, dict) and isinstance(found.get("step"), int):
                yield found

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line."""
        with suppress(OSError), open(self.path, "a") as file:
            file.write(json.dumps(dict(line)) + "\n")
