"""What people read: text for terminals that have not every character, and streams that fail."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata
from typing import TYPE_CHECKING, Any

import click

from search_space.secrets import redacted

if TYPE_CHECKING:
    from rich.console import Console

_LONG = 1_500  # characters of the longest line about an error

_PLAIN = {"±": "+/-", "→": "->", "←": "<-", "≤": "<=", "≥": ">=", "µ": "u"}
_PLAIN |= dict(zip("×÷·–—‘’“”•─━╸╺│┃", "x/---''\"\"*----||", strict=True))


def plain(text: str, encoding: str) -> str:
    """`text` with a substitute for each character that the encoding has not."""
    return text.encode(encoding, _NAME).decode(encoding)


def _substitute(character: str) -> str:
    known = _PLAIN.get(character)
    if known is not None:
        return known
    if "─" <= character <= "╿":  # other lines of boxes
        return "+"
    if "▀" <= character <= "▟":  # blocks of bars
        return "#"
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return letters or "?"


def _handle(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_substitute, error.object[error.start : error.end])), error.end


_NAME = "nas-plain"
codecs.register_error(_NAME, _handle)


class _Output(io.FileIO):
    """A descriptor whose reader may leave: what nobody reads is dropped.

    Here, for click, rich and the interpreter each end a command in another way. So the command does
    what it would, and its exit code is its own.
    """

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return super().write(data)


def prepare() -> None:
    """Let standard output and error substitute what they cannot say, and output's reader leave."""
    out = sys.stdout
    buffer = getattr(out, "buffer", None)  # a FileIO itself under PYTHONUNBUFFERED
    if isinstance(out, io.TextIOWrapper) and isinstance(getattr(buffer, "raw", buffer), io.FileIO):
        out.flush()
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Output(out.fileno(), "w", closefd=False)),
            encoding=out.encoding,
            line_buffering=bool(out.line_buffering),
            write_through=bool(out.write_through),
        )
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # None where a stream is closed
        if reconfigure is not None:
            reconfigure(errors=_NAME)


def finish(code: int) -> int:
    """The exit code once all output is out: 1, with one line, when it could not be written."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError as error:
            # Else the interpreter tries once more when it ends, and exits with a code of its own.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if not isinstance(error, BrokenPipeError) and stream is sys.stdout and code == 0:
                echo(f"Error: cannot write the output: {error.strerror}", err=True)
            code = code or 1
    return code


def one_line(message: str) -> str:
    """What a command says of an error: no secret of a URL, and cut where a word was endless."""
    line = redacted(" ".join(message.split()))
    # The way out stands at the end.
    return line if len(line) <= _LONG else f"{line[: _LONG - 300]} ... {line[-200:]}"


def echo(text: str = "", err: bool = False) -> None:
    """Print a line; to standard error with `err`."""
    # Without a file, click writes UTF-8 to a stream that says it is ASCII.
    click.echo(text, file=sys.stderr if err else sys.stdout)


def console(stderr: bool = False) -> Console:
    """A rich console; a pipe has no width, and 80 columns would cut every line."""
    from rich.console import Console

    made = Console(highlight=False, stderr=stderr)
    return made if made.is_terminal else Console(highlight=False, stderr=stderr, width=200)
