"""Secrets in URLs: finding them, and hiding them from whatever is shown or stored."""

from __future__ import annotations

import re

HIDDEN = "***"

# A name before the colon may be shown; without a colon the whole is taken for a token. The last @
# of a word ends a password, because people forget to write %40 for one inside it. Digits and a
# slash after the colon are a port.
_USERINFO = re.compile(
    r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s:@/?#]*:)(?!\d*(?:[/?#\s]|$))\S*@"
    r"|(?P<token_head>(?:https?|git|socks5h?)://)[^\s:@/?#]+@",
    re.IGNORECASE,
)
_QUERY = re.compile(
    r"(?P<head>[?&#;](?:[\w.%-]*(?:token|secret|passw|signature|credential|api[_-]?key|access[_-]?key)"
    r"[\w.%-]*|pwd|pass|key|sig|auth|authorization|sas)=)[^\s&#;'\"]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """`text` with the passwords and tokens of every URL in it replaced by `HIDDEN`.

    Hidden are what stands between `://name:` and `@`, a name alone before `@` in a web URL, and
    the values of query parameters whose names speak of a token, key, password or signature.
    """
    text = _USERINFO.sub(lambda m: f"{m['head'] or m['token_head']}{HIDDEN}@", text)
    return _QUERY.sub(lambda m: f"{m['head']}{HIDDEN}", text)


def has_secret(url: str) -> bool:
    """Whether `redacted` hides something of `url`."""
    return redacted(url) != url
