"""What another library's error comes to in words that a user can be shown."""

from __future__ import annotations

import re

from search_space.errors import InputError
from search_space.secrets import redacted

# "[Errno 2] ", "(FooError) ", "FooError: ", "FooError("
_NOISE = re.compile(r"\[Errno -?\d+\] |\(?\b[A-Za-z_.]+(?:Error|Exception)\b\)?[:(]? ?")


def reason(error: BaseException) -> str:
    """One line of at most 300 characters, without class names, secrets of URLs and paths."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    line = redacted(" ".join(_NOISE.sub("", text).split()))[:300].rstrip(" .")
    return line or "it gives no reason"


def unreadable(path: str, error: BaseException | str) -> InputError:
    """The error for a file that cannot be read, or not as what its suffix says."""
    why = error if isinstance(error, str) else reason(error)
    return InputError(
        f"corpus: cannot read {path!r}: {why}; mend the file or take it out of the source"
    )
