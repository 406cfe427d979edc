"""Secrets in URLs: finding them, and hiding them from whatever is shown or stored."""

from __future__ import annotations

import re

HIDDEN = "***"

# A name before the colon may be shown; without a colon the whole is taken for a token. The last @
# of a word ends a password, because people forget to write %40 for one inside it. In a web address
# digits and a slash after the colon are a port. No pattern here scans a text more than once.
_WORD = re.compile(r"\S+")
_PASSWORD_HEAD = re.compile(
    r"(?:(?:(?<=http)|(?<=https))://[^\s:@/?#]*:(?!\d*/)"
    r"|(?<=[a-z0-9+.-])(?<!http)(?<!https)://[^\s:@/?#]*:)",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"(?P<head>(?:https?|git|socks5h?)://)[^\s:@/?#]+@", re.IGNORECASE)
_PARAMETER = re.compile(r"[?&#;](?P<name>[\w.%-]+)=")
_VALUE = re.compile(r"[^\s&#;'\"]*")
_SECRET_NAME = re.compile(
    r"token|secret|passw|signature|credential|api[_-]?key|access[_-]?key"
    r"|^(?:pwd|pass|key|sig|auth|authorization|sas)$",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """`text` with the passwords and tokens of every URL in it replaced by `HIDDEN`.

    Hidden are what stands between `://name:` and `@`, a name alone before `@` in a web URL, and
    the values of query parameters whose names speak of a token, key, password or signature.
    """
    return _without_values(_WORD.sub(lambda m: _without_userinfo(m[0]), text))


def _without_userinfo(word: str) -> str:
    end = word.rfind("@")
    password = _PASSWORD_HEAD.search(word, 0, end) if end >= 0 else None
    head, tail = (word[: password.end()], HIDDEN + word[end:]) if password else (word, "")
    return _TOKEN.sub(lambda m: f"{m['head']}{HIDDEN}@", head) + tail


def _without_values(text: str) -> str:
    parts, shown_to = [], 0
    for found in _PARAMETER.finditer(text):
        if found.start() < shown_to or not _SECRET_NAME.search(found["name"]):
            continue
        value = _VALUE.match(text, found.end())
        if value and value[0]:
            parts += [text[shown_to : found.end()], HIDDEN]
            shown_to = value.end()
    return "".join(parts) + text[shown_to:]


def has_secret(url: str) -> bool:
    """Whether `redacted` hides something of `url`."""
    return redacted(url) != url
