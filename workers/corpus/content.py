"""The bytes of a source file, unpacked where they are packed, and as text."""

from __future__ import annotations

import codecs
import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from workers.corpus.account import Account
from workers.corpus.files import SourceFile

_GZIP = b"\x1f\x8b"
_DEFLATE = b"\x08"  # the only method that gzip has
_BUFFER = 1 << 20

# UTF-32's mark begins with UTF-16's.
_WIDE = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@contextmanager
def opened(file: SourceFile, account: Account) -> Iterator[io.BufferedReader]:
    """The content of a file, unpacked if it is gzip: the content decides, not the name."""
    with _raw(file) as raw:
        head = raw.peek(3)[:3]
        named = PurePosixPath(file.path).name.lower().endswith(".gz")
        packed = head[:2] == _GZIP and (named or head[2:3] == _DEFLATE)
        if head and packed != named:
            account.add("misnamed_gzip", name=PurePosixPath(file.path).name)
        if not packed:
            yield raw
            return
        with gzip.GzipFile(fileobj=raw) as unpacked:
            yield io.BufferedReader(cast(Any, unpacked), _BUFFER)


def _raw(file: SourceFile) -> io.BufferedReader:
    if file.fs is None:
        return io.BufferedReader(io.FileIO(file.path), _BUFFER)
    # A web address is read as one answer from start to end: not every server sends parts.
    seekable = not file.path.startswith(("http://", "https://"))
    return io.BufferedReader(_Remote(file.fs.open(file.path, "rb"), seekable), _BUFFER)


class _Remote(io.RawIOBase):
    """A file of fsspec as a raw stream."""

    def __init__(self, file: Any, seekable: bool) -> None:
        self._file, self._seekable = file, seekable

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seekable(self) -> bool:
        return self._seekable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def wide_encoding(head: bytes) -> str:
    """The encoding that a UTF-16 or UTF-32 mark at the start names; "" without one."""
    return next((name for mark, name in _WIDE if head.startswith(mark)), "")


def decoded(data: bytes, account: Account, name: str) -> str:
    """The text of a whole file: without its byte order mark, what is not valid as U+FFFD."""
    encoding = wide_encoding(data)
    if encoding:
        account.add("recoded_files", name=name)
    elif data.startswith(codecs.BOM_UTF8):
        account.add("byte_order_marks", name=name)
        data = data[len(codecs.BOM_UTF8) :]
    text = replaced(data, encoding or "utf-8", account, name)
    return text[1:] if encoding else text


def replaced(data: bytes, encoding: str, account: Account, name: str) -> str:
    """`data` as text, with U+FFFD for every place that is not valid."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode(encoding, "replace")
        own = data.decode(encoding, "ignore").count("\ufffd")
        account.add("replaced_bytes", text.count("\ufffd") - own, name)
        return text


def seekable(stream: io.BufferedReader) -> BinaryIO:
    """The stream, or its content in memory where going back is slow or impossible."""
    packed = isinstance(stream.raw, gzip.GzipFile)
    return io.BytesIO(stream.read()) if packed or not stream.seekable() else stream
