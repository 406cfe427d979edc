"""Documents: the texts of a source in order, and an account of what is not among them."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus.account import Account
from workers.corpus.content import decoded, opened
from workers.corpus.files import SourceFile
from workers.corpus.reasons import reason, unreadable
from workers.corpus.row_texts import STREAM_PATIENCE, json_rows, parquet_rows, row_texts


def read_documents(
    spec: CorpusSpec,
    files: Sequence[SourceFile],
    commit: str,
    cache_dir: Path,
    account: Account | None = None,
) -> Iterator[str]:
    """The documents of a source, in order, up to the spec's byte cap; empty ones are left out.

    A text file is one document, with line ends as LF. In .jsonl, .parquet and Hub datasets a row is
    one, as it stands. Bytes that are not text in the file's encoding are read as U+FFFD.

    files: of a file source.
    commit: of a Hub source.
    cache_dir: where `datasets` may write.
    account: told whatever is left out or replaced.
    Raises InputError for a file that cannot be read and for a missing or non-text field.
    """
    account = account or Account()
    cap = _Cap(spec.byte_cap, account)
    if spec.is_hub:
        texts = _hub_texts(spec, commit, str(cache_dir / "datasets"), account)
        yield from cap.limit(texts, spec.source)
    for number, file in enumerate(files, start=1):
        yield from cap.limit(_file_texts(spec, file, account), PurePosixPath(file.path).name)
        if cap.reached:
            account.add("unread_files", len(files) - number)
            return


def _file_texts(spec: CorpusSpec, file: SourceFile, account: Account) -> Iterator[str]:
    name = PurePosixPath(file.path).name
    try:
        with opened(file, account) as stream:
            if not stream.peek(1):
                account.add("empty_files", name=name)
            elif file.format == "text":
                yield from _whole_text(decoded(stream.read(), account, name), name, account)
            else:
                rows = (
                    json_rows(stream, file.path, name, spec.text_field, account)
                    if file.format == "json"
                    else parquet_rows(stream, file.path, spec.text_field, account)
                )
                yield from row_texts(
                    _counted(rows, name, account), spec.text_field, file.path, account
                )
    except (InputError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, _READ_ERRORS) or file.fs is not None:
            raise unreadable(file.path, error) from error
        raise


def _whole_text(text: str, name: str, account: Account) -> Iterator[str]:
    if "\r" in text:
        account.add("line_ends", text.count("\r"), name)
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text:
        account.add("nul_characters", text.count("\0"), name)
        yield text
    else:
        account.add("empty_files", name=name)


def _counted(
    rows: Iterable[dict[str, Any]], name: str, account: Account
) -> Iterator[dict[str, Any]]:
    any_row = False
    for row in rows:
        any_row = True
        yield row
    if not any_row:
        account.add("empty_files", name=name)


def _hub_texts(spec: CorpusSpec, commit: str, cache: str, account: Account) -> Iterator[str]:
    # Imported here because it takes seconds, and files are read without it.
    import datasets

    try:
        rows: Iterable[dict[str, Any]] = datasets.load_dataset(
            spec.hub_id,
            name=spec.name or None,
            split=spec.split,
            revision=commit or None,
            streaming=True,
            cache_dir=cache,
        )
        yield from row_texts(rows, spec.text_field, spec.source, account, STREAM_PATIENCE)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # The client lets its HTTP library's errors through, as they are.
        raise InputError(
            f"corpus: cannot read {spec.source!r} from the Hub: {reason(error)}; check name, "
            "split and the network, or use a local file or folder"
        ) from error


class _Cap:
    """Lets texts through until their UTF-8 bytes reach a limit; the last is cut to fit."""

    def __init__(self, limit: int | None, account: Account) -> None:
        self._room, self._account = limit, account
        self.reached = False

    def limit(self, texts: Iterable[str], name: str) -> Iterator[str]:
        """The texts of the source's part `name`, while there is room."""
        for number, text in enumerate(texts, start=1):
            if self._room is None:
                yield text
                continue
            data = text.encode()
            if len(data) > self._room:
                self.reached = True
                self._account.add("capped", name=f"{name}, document {number}")
                # "ignore" drops the character that the cap cuts in two.
                if piece := data[: self._room].decode(errors="ignore"):
                    yield piece
                return
            self._room -= len(data)
            yield text


# What a bad file raises: the file system, gzip (OSError, EOFError, zlib.error), and the parsers
# (Arrow's errors are ValueErrors).
_READ_ERRORS = (OSError, EOFError, ValueError, zlib.error)
