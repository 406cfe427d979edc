"""Database URLs for people: without whatever might be a password."""

from __future__ import annotations

import re
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL

from search_space.errors import shown
from search_space.secrets import HIDDEN

# What may be shown of a URL's query: libpq has a dozen names for secrets, and gets new ones.
_OPEN = {"host", "port", "dbname", "user", "sslmode", "application_name", "connect_timeout"}


def display(url: URL) -> str:
    """The URL with its password, and each part of its query that may be secret, hidden."""
    if url.drivername.startswith("sqlite"):
        # As a URL writes a path: SQLAlchemy would spell more of its characters otherwise.
        path = (url.database or "").replace("%", "%25").replace("?", "%3F")
        return f"sqlite:///{path}" if path else "sqlite://"
    secret = [key for key in url.query if key.lower() not in _OPEN]
    if ambiguous(url):
        url = url.set(database=HIDDEN)
    return url.difference_update_query(secret).render_as_string(hide_password=True)


def ambiguous(url: URL) -> bool:
    """Whether what reads as the database's name may be a user and a password: no host is given."""
    return not url.host and ":" in (url.database or "")


def hidden(text: str) -> str:
    """A text that is no URL, as an error may show it: all of it, or its scheme alone."""
    scheme, mark, rest = text.partition("://")
    # A password stands beside one of these; the first colon may be the scheme's own.
    if not any(sign in text for sign in "@?=") and ":" not in (
        rest if mark else text.partition(":")[2]
    ):
        return shown(text)
    return shown(f"{scheme}{mark}{HIDDEN}" if mark and scheme.isidentifier() else HIDDEN)


def without_secrets(text: str, url: URL) -> str:
    """A driver's own words with every secret of the URL hidden, however it is spelt."""
    values = [url.query[key] for key in url.query if key.lower() not in _OPEN]
    secrets = [value for item in values for value in ([item] if isinstance(item, str) else item)]
    if url.password is not None:
        secrets.append(str(url.password))
    if ambiguous(url):
        secrets.append(str(url.database))
    for secret in filter(None, secrets):
        for spelt in {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]}:
            # A short password may be part of a longer word, which says nothing of it.
            text = re.sub(rf"(?<!\w){re.escape(spelt)}(?!\w)", HIDDEN, text)
    return text
