"""Documents, read through the `datasets` library as a stream: nothing is copied to disk."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus.files import SourceFile


def read_documents(
    spec: CorpusSpec, files: Sequence[SourceFile], commit: str, cache_dir: Path
) -> Iterator[str]:
    """The documents of a source, in order, up to the spec's byte cap; empty ones are left out.

    A text file is one document, with line ends as LF and bytes that are not UTF-8 read as
    U+FFFD. In .jsonl, .parquet and Hub datasets a row is one.
    files: of a file source.  commit: of a Hub source.  cache_dir: where `datasets` may write.
    Raises InputError for a file that cannot be read and for a missing or non-text field.
    """
    cache = str(cache_dir / "datasets")
    rows = _hub_rows(spec, commit, cache) if spec.is_hub else _file_rows(spec, files, cache)
    return _capped((text for text in rows if text), spec.byte_cap)


def _file_rows(spec: CorpusSpec, files: Sequence[SourceFile], cache: str) -> Iterator[str]:
    yield from _text_rows([f.path for f in files if f.format == "text"], cache)
    for file in files:
        # One file at a time, because files need not share their other fields.
        if file.format != "text":
            yield from _row_texts(spec, file, cache)


def _text_rows(paths: list[str], cache: str) -> Iterator[str]:
    if not paths:
        return
    read = 0
    try:
        options = {"sample_by": "document", "encoding_errors": "replace"}
        for row in _load("text", cache, data_files={"train": paths}, split="train", **options):
            read += 1
            yield row["text"]
    except _READ_ERRORS as error:
        raise _unreadable(paths[min(read, len(paths) - 1)], error) from error


def _row_texts(spec: CorpusSpec, file: SourceFile, cache: str) -> Iterator[str]:
    try:
        rows = _load(file.format, cache, data_files={"train": [file.path]}, split="train")
        yield from _field(rows, spec.text_field, file.path)
    except InputError:
        raise
    except _READ_ERRORS as error:
        raise _unreadable(file.path, error) from error


def _hub_rows(spec: CorpusSpec, commit: str, cache: str) -> Iterator[str]:
    try:
        rows = _load(
            spec.hub_id, cache, name=spec.name or None, split=spec.split, revision=commit or None
        )
        yield from _field(rows, spec.text_field, spec.source)
    except InputError:
        raise
    except Exception as error:  # The client lets its HTTP library's errors through, as they are.
        raise InputError(
            f"corpus: cannot read {spec.source!r} from the Hub: {_short(error)}; check name, "
            "split and the network, or use a local file or folder"
        ) from error


def _load(path: str, cache: str, **options: Any) -> Iterable[dict[str, Any]]:
    # Imported here because it takes seconds, and a corpus that is prepared already needs none.
    import datasets

    rows: Iterable[dict[str, Any]] = datasets.load_dataset(
        path, streaming=True, cache_dir=cache, **options
    )
    return rows


def _field(rows: Iterable[dict[str, Any]], field: str, where: str) -> Iterator[str]:
    for row in rows:
        if field not in row:
            raise InputError(
                f"corpus: {where!r} has no field {field!r}; set text_field to one of: "
                f"{', '.join(row)}"
            )
        text = row[field]
        if text is not None and not isinstance(text, str):
            raise InputError(
                f"corpus: field {field!r} of {where!r} holds {type(text).__name__}, not text; "
                f"set text_field to another of: {', '.join(row)}"
            )
        yield text or ""


def _capped(texts: Iterable[str], cap: int | None) -> Iterator[str]:
    room = cap
    for text in texts:
        if room is None:
            yield text
            continue
        data = text.encode()
        if len(data) >= room:
            # "ignore" drops the character that the cap cuts in two.
            yield data[:room].decode(errors="ignore")
            return
        room -= len(data)
        yield text


# What a bad file raises: the file system, gzip (OSError, EOFError, zlib.error), and the parsers
# (Arrow's and pandas' errors are ValueErrors).
_READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)


def _unreadable(path: str, error: Exception) -> InputError:
    return InputError(
        f"corpus: cannot read {path!r}: {_short(error)}; mend the file or take it out of the source"
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
