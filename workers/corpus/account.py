"""The account of a corpus: whatever was left out, replaced or skipped, in numbers and in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class _Kind:
    one: str
    many: str
    what: str


# fmt: off
KINDS: dict[str, _Kind] = {
    # While the files of a source are looked for:
    "unsupported_files": _Kind("file", "files", "left out: no suffix of text that is read"),
    "hidden": _Kind("file or folder", "files and folders", "left out: a dot begins the name"),
    "skipped_folders": _Kind("folder", "folders", "left out: caches and packages of programs"),
    "special_files": _Kind("pipe, socket or device", "pipes, sockets and devices", "left out"),
    "broken_links": _Kind("link", "links", "left out: nothing is where it leads"),
    "repeated_links": _Kind("link", "links", "left out: what it leads to is read already"),
    "unreadable": _Kind("file or folder", "files and folders", "left out: no permission to read"),
    # While they are read:
    "empty_files": _Kind("file", "files", "without any text"),
    "empty_rows": _Kind("row", "rows", "left out: the text is empty"),
    "null_rows": _Kind("row", "rows", "left out: the text field is null"),
    "missing_rows": _Kind("row", "rows", "left out: the text field is missing"),
    "misnamed_gzip": _Kind("file", "files", "read as its content is: the name errs on gzip"),
    "byte_order_marks": _Kind("byte order mark", "byte order marks", "taken off the text"),
    "recoded_files": _Kind("file", "files", "read as UTF-16 or UTF-32, as its mark says"),
    "replaced_bytes": _Kind("place", "places", "read as U+FFFD: the bytes are not valid text"),
    "replaced_surrogates": _Kind("half", "halves", "of a surrogate pair in JSON read as U+FFFD"),
    "nul_characters": _Kind("NUL character", "NUL characters",
                            "kept: a binary file, or UTF-16 without its mark"),
    "line_ends": _Kind("line end", "line ends", "of text files, CR or CR LF, read as LF"),
    "capped": _Kind("place", "places",
                    "where max_bytes was reached: the rest of the source was not read"),
    "unread_files": _Kind("file", "files", "not read: max_bytes was reached"),
    # While it is encoded:
    "unknown_tokens": _Kind("place", "places", "of text that the given tokenizer does not know"),
    "inexact_documents": _Kind("document or section", "documents or sections",
                               "that the given tokenizer changes: bytes are scaled to the true"),
}
# fmt: on


class Account:
    """Counts by kind (of `KINDS`), with the first few names of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._names: dict[str, list[str]] = {}

    def add(self, kind: str, count: int = 1, name: str = "") -> None:
        """Count `count` more of `kind`; `name` is shown while there are few."""
        if count <= 0:
            return
        self._counts[kind] += count
        names = self._names.setdefault(kind, [])
        if name and name not in names and len(names) <= _NAMES_SHOWN:
            names.append(name)

    @property
    def dropped(self) -> dict[str, int]:
        """Kind -> count, in the order of `KINDS`, without zeros."""
        return {kind: self._counts[kind] for kind in KINDS if self._counts[kind]}

    @property
    def notes(self) -> list[str]:
        """A sentence a kind."""
        return [self._note(kind, count) for kind, count in self.dropped.items()]

    def _note(self, kind: str, count: int) -> str:
        words, names = KINDS[kind], self._names[kind]
        text = f"{count:,} {words.one if count == 1 else words.many} {words.what}"
        if not names:
            return text
        more = ", ..." if len(names) > _NAMES_SHOWN else ""
        return f"{text} ({', '.join(_shown(name) for name in names[:_NAMES_SHOWN])}{more})"


def _shown(name: str) -> str:
    """One line of at most 80 printable characters."""
    name = name if name.isprintable() else repr(name)
    return name if len(name) <= 80 else f"{name[:38]} ... {name[-37:]}"
