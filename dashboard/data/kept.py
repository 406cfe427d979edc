"""`Kept`: columns of large studies on disk, so that a server that starts again has them at once.

Reading 50,000 trials from their database takes seconds, and nothing of an ended evaluation changes.
What is kept is used only while it adds up to what the database says (`agrees`), and is made again
by any other version of this project.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dashboard.data.columns import Block
from search_space.errors import InputError
from search_space.methods import find, names
from search_space.places import cache_dir

log = logging.getLogger(__name__)

FOLDER = "dashboard"  # of the cache
FILES = 8  # studies that are kept
LEAST = 5_000  # evaluations, below which reading takes a moment
GROWTH = 1.1  # times as many evaluations, from which on they are kept again
PATIENCE_S = 10.0  # before they are written: the first pages come first
ROUNDING = 1e-9  # of sums in another order
_TABLES = ("evaluation", "trial")


class Kept:
    """The columns of one database's studies.

    url: its own, which tells a copy of a database from what it was copied from.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def has(self, uid: str) -> bool:
        """Whether anything is kept of a study."""
        try:
            return all(self._file(uid, table).is_file() for table in _TABLES)
        except (OSError, InputError):
            return False

    def load(self, uid: str) -> tuple[Block, Block] | None:
        """The columns of a study's evaluations and of its trials as they were kept, or None."""
        found = []
        for table in _TABLES:
            try:
                with pa.memory_map(str(self._file(uid, table))) as file:
                    read = pa.ipc.open_file(file).read_all()
            except (OSError, pa.ArrowException, InputError) as error:
                log.debug("nothing is kept of %s: %s", uid, error)
                return None
            if (read.schema.metadata or {}).get(b"code") != _code():
                return None
            found.append({name: _values(read[name]) for name in read.column_names})
        return found[0], found[1]

    def save(self, uid: str, evaluations: Block, trials: Block) -> None:
        """Keep them, in a while and beside what else is done; blocks are never changed in place."""
        timer = threading.Timer(PATIENCE_S, self.write, (uid, evaluations, trials))
        timer.daemon = True
        timer.start()

    def write(self, uid: str, evaluations: Block, trials: Block) -> None:
        """Keep them now. Where they cannot be, they are read from the database as before."""
        try:
            for name, block in zip(_TABLES, (evaluations, trials), strict=True):
                table = pa.table({n: pa.array(v) for n, v in block.items()})
                _replace(self._file(uid, name), table.replace_schema_metadata({"code": _code()}))
            _forget_others(cache_dir() / FOLDER)
        except (OSError, InputError) as error:
            log.info("columns are read from the database each time: %s", error)

    def _file(self, uid: str, table: str) -> Path:
        name = hashlib.sha256(json.dumps([self._url, uid]).encode()).hexdigest()[:32]
        return cache_dir() / FOLDER / f"{name}.{table}.arrow"


def agrees(sums: Mapping[str, Mapping[str, float]], evaluations: Block, trials: Block) -> bool:
    """Whether columns add up to what `Store.sums` says."""
    for name, block in zip(_TABLES, (evaluations, trials), strict=True):
        expected = dict(sums[name])
        if expected.pop("rows") != len(next(iter(block.values()))):
            return False
        found = [_amount(block[column]) for column in expected]
        if not np.allclose(found, list(expected.values()), rtol=ROUNDING, atol=0):
            return False
    return True


def _amount(values: npt.NDArray[Any]) -> float:
    if values.dtype.kind == "O":
        return float(sum(map(len, values)))
    if values.dtype.kind == "M":
        return float(np.count_nonzero(~np.isnat(values)))
    return float(np.nansum(values, dtype=float))


def _values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """A column as `dashboard.data.columns.array` makes it, in memory of its own."""
    return np.array(column.to_numpy())


def _replace(path: Path, table: pa.Table) -> None:
    """Another server reads the old file or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".draft", delete=False) as draft:
        try:
            with pa.ipc.new_file(draft, table.schema) as file:
                file.write_table(table)
            draft.close()
            os.replace(draft.name, path)
        except BaseException:
            Path(draft.name).unlink(missing_ok=True)
            raise


def _forget_others(folder: Path) -> None:
    files = sorted(folder.glob("*.arrow"), key=lambda path: path.stat().st_mtime)
    for path in files[: -FILES * len(_TABLES)]:
        path.unlink(missing_ok=True)


@cache
def _code() -> bytes:
    """Changes with any line of what columns are made by, the methods of plug-ins too: they say how
    a design is called."""
    root = Path(__file__).parents[2]
    folders = ("dashboard/data", "nas/store", "search_space")
    files = {path for folder in folders for path in (root / folder).rglob("*.py")}
    files |= {Path(inspect.getfile(find(name))) for name in names()}
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest().encode()
