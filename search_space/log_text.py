"""The text of a log line as it is sent, stored and shown: short, without secrets, printable."""

from __future__ import annotations

from search_space.secrets import redacted

MOST = 600  # characters of what a line says
MOST_OF_TRACE = 3_000  # of an exception's trace below it
MOST_STORED = 4_000  # of both


def log_text(text: str, most: int = MOST) -> str:
    """`text` without the secrets of URLs, in at most `most` characters.

    What cannot be printed is spelled out (a NUL or a lone surrogate, which no database takes, and
    what would turn or hide the letters beside it); line ends stay.
    """
    lines = text.replace("\r\n", "\n").replace("\t", "    ").strip()
    # Spelled out first: a mark inside a URL could keep its password from being found.
    shown = redacted("".join(map(_printable, lines)))
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _printable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return character.encode("unicode_escape").decode()
