"""Rows and their text: JSON lines, Parquet, and whatever else gives rows."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from search_space.errors import InputError
from workers.corpus.account import Account
from workers.corpus.content import decoded, replaced, seekable, wide_encoding
from workers.corpus.reasons import unreadable

# Rows without the text field before a stream, which may never end, is taken to have none.
STREAM_PATIENCE = 1000
_FIELDS_SHOWN = 20
_BATCH_ROWS = 1024

_SURROGATE = re.compile("[\ud800-\udfff]")
_DECODER = json.JSONDecoder(strict=False)


def row_texts(
    rows: Iterable[Mapping[str, Any]],
    field: str,
    where: str,
    account: Account,
    patience: int | None = None,
) -> Iterator[str]:
    """The text of each row that has some, in order; the others are counted.

    where: what errors call the source.
    patience: rows without the field before it is taken to be in none; None reads them all.
    Raises InputError when no row has the field, or when one holds something else than text.
    """
    found, missing = False, 0
    for number, row in enumerate(rows, start=1):
        if field not in row:
            missing += 1
            if not found and missing == patience:
                raise _no_field(where, field, row)
            account.add("missing_rows")
            continue
        found = True
        text = row[field]
        if text is None:
            account.add("null_rows")
        elif not isinstance(text, str):
            raise _not_text(f"{where!r}, row {number}", field, type(text), row)
        elif not text:
            account.add("empty_rows")
        else:
            yield _valid(text, account)
    if missing and not found:
        raise _no_field(where, field, row)


def _valid(text: str, account: Account) -> str:
    account.add("nul_characters", text.count("\0"))
    try:
        text.encode()
        return text
    except UnicodeEncodeError:
        text, count = _SURROGATE.subn("\ufffd", text)
        account.add("replaced_surrogates", count)
        return text


def _no_field(where: str, field: str, names: Iterable[str]) -> InputError:
    return InputError(
        f"corpus: {where!r} has no field {field!r}; set text_field to one of: {_listed(names)}"
    )


def _not_text(where: str, field: str, kind: Any, names: Iterable[str]) -> InputError:
    held = _JSON_NAMES.get(kind, getattr(kind, "__name__", str(kind)))
    return InputError(
        f"corpus: field {field!r} of {where} holds {held}, not text; set text_field to another "
        f"of: {_listed(names)}"
    )


_JSON_NAMES = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
}


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _FIELDS_SHOWN} more" if len(names) > _FIELDS_SHOWN else ""
    return (", ".join(names[:_FIELDS_SHOWN]) or "none, the row is empty") + more


class _Objects:
    """Decodes a JSON text; tells whether the object that it is has a field more than once."""

    def __init__(self, field: str) -> None:
        self._field = field
        # Control characters inside strings are common, and no reader of JSON lines minds them.
        self.decode = json.JSONDecoder(strict=False, object_pairs_hook=self._object).decode
        self.repeated = False

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # The outermost object is the last to end, so it is the one that is remembered.
        row = dict(pairs)
        self.repeated = len(row) < len(pairs) and [k for k, _ in pairs].count(self._field) > 1
        return row


def json_rows(
    stream: io.BufferedReader, path: str, name: str, field: str, account: Account
) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; blank lines are nothing.

    Raises InputError with the number of a line that is not one object, or has the text `field`
    more than once.
    """
    objects = _Objects(field)
    for number, line in enumerate(_lines(stream, name, account), start=1):
        if not line.strip():
            continue
        for text in _objects(line):
            try:
                row = objects.decode(text)
            except json.JSONDecodeError as error:
                why = f"line {number} is no JSON object: {error.msg} at character {error.pos + 1}"
                raise unreadable(path, why) from error
            except (ValueError, RecursionError) as error:  # A number, or nesting, without end.
                why = f"line {number} is nested too deep or holds a number that is too long"
                raise unreadable(path, why) from error
            if not isinstance(row, dict):
                held = _JSON_NAMES.get(type(row), "text" if isinstance(row, str) else "null")
                raise unreadable(path, f"line {number} holds {held}, not an object")
            if objects.repeated:
                raise unreadable(path, f"line {number} has the field {field!r} more than once")
            yield row


def _objects(line: str) -> list[str]:
    """The line, or its parts between lone CRs, which end the lines of some old programs."""
    body = line.rstrip("\r\n")
    if "\r" not in body:
        return [body]
    try:
        _DECODER.decode(body)
        return [body]
    except (ValueError, RecursionError):
        return [part for part in body.split("\r") if part and not part.isspace()]


def _lines(stream: io.BufferedReader, name: str, account: Account) -> Iterator[str]:
    if wide_encoding(stream.peek(4)[:4]):
        text = decoded(stream.read(), account, name)
        yield from (line for line in text.split("\n") if line)
        return
    for number, line in enumerate(stream):
        yield (
            decoded(line, account, name) if number == 0 else replaced(line, "utf-8", account, name)
        )


def parquet_rows(
    stream: io.BufferedReader, path: str, field: str, account: Account
) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, with the text field alone.

    Raises InputError when the file has no such column, or one of another type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(seekable(stream))
    schema = file.schema_arrow
    if schema.names.count(field) != 1:
        raise _no_field(path, field, schema.names)
    kind = schema.field(field).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    strings = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if not pa.types.is_null(kind) and not any(test(kind) for test in strings):
        raise _not_text(repr(path), field, kind, schema.names)
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=[field]):
        yield from ({field: text} for text in _strings(batch.column(0), path, account))


def _strings(column: Any, name: str, account: Account) -> list[str | None]:
    try:
        texts: list[str | None] = column.to_pylist()
        return texts
    except UnicodeDecodeError:
        import pyarrow as pa

        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        values = column.cast(pa.large_binary()).to_pylist()
        return [None if v is None else replaced(v, "utf-8", account, name) for v in values]
