"""Where a source lies: on this machine, or behind a URL that fsspec reads."""

from __future__ import annotations

import os
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from search_space.errors import InputError, nearest
from workers.corpus.reasons import reason

_WEB = ("http", "https")
_CONNECT_SECONDS, _SILENT_SECONDS = 30, 60


def locate(source: str) -> tuple[AbstractFileSystem | None, str]:
    """The file system behind a source, None for this machine's, and the path or glob there.

    What exists on this machine under the very name `source` is that, whatever its name looks like.
    Raises InputError for a URL whose protocol is unknown or needs a package.
    """
    try:
        path = os.path.expanduser(source)
        if os.path.lexists(path):
            return None, path
    except ValueError as error:
        raise InputError(f"corpus: source {source!r} is no path: {reason(error)}") from error
    if "://" not in source and "::" not in source:
        return None, path
    try:
        web = [name for name in _WEB if f"{name}://" in source]
        fs, path = url_to_fs(source, **{name: _web_options() for name in web})
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or "that fsspec names for it"
        raise InputError(
            f"corpus: source {source!r} needs the package {missing.split('.')[0]}, which is not "
            "installed: pip install it where the workers run, or download the text and give its "
            "folder"
        ) from error
    except (TypeError, AttributeError) as error:  # Protocols that need more than a URL.
        raise InputError(
            f"corpus: a URL alone is not enough for the protocol of {source!r}; download the text "
            "and give its folder"
        ) from error
    except ValueError as error:
        protocol = source.split("://")[0].split("::")[-1]
        known = nearest(protocol, ["file", "hub", "http", "https", "s3", "gs", "hf", "ftp", "sftp"])
        raise InputError(f"corpus: cannot read {source!r}: {reason(error)}; {known}") from error
    if isinstance(fs, LocalFileSystem):
        return None, path
    fs.invalidate_cache()
    return fs, path


def _web_options() -> dict[str, Any]:
    # Imported here because only a web address needs it.
    import aiohttp

    # trust_env: proxies of the environment, and passwords from ~/.netrc. The library's own limit
    # of 5 minutes for a whole file would end a long download; silence ends it here.
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENT_SECONDS
    )
    return {"client_kwargs": {"trust_env": True, "timeout": timeout}, "block_size": 0}
