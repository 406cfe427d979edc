"""What a page will need, named in its HTML, so that the browser fetches it while Streamlit starts.

Streamlit's HTML is the same for every page, and says nothing of what a page draws: the browser
learns of it when the page's first elements come, and then has to fetch and compile.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from streamlit import file_util

from dashboard import plotly_script
from dashboard.pages import CHART, PAGES, TABLE, Page

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD_END = b"</head>"
# Of the whole file, which changes with what is added: else a browser keeps an older one.
_DROPPED = (b"content-length", b"etag", b"last-modified")
# Streamlit's own chunks, each of which is else found after the one before it. Those that another
# version does not have are left out.
_ALWAYS = ("BidiComponent", "Selectbox", "serialization", "recordbatch")
_TABLE = ("DataFrame", "arrowFormatUtils", "moment")


class Ahead:
    """Middleware that adds `links` to the HTML of a page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, and HTML with its links."""
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        began: Message | None = None
        body: list[bytes] = []

        async def sent(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start" and _is_html(message):
                kept = [each for each in message["headers"] if each[0] not in _DROPPED]
                began = {**message, "headers": kept}
            elif message["type"] == "http.response.body" and began is not None:
                body.append(message.get("body", b""))
                if message.get("more_body"):
                    return
                added = links(page_at(scope["path"]))
                whole = b"".join(body).replace(HEAD_END, added + HEAD_END, 1)
                length = (b"content-length", str(len(whole)).encode())
                await send({**began, "headers": [*began["headers"], length]})
                await send({"type": "http.response.body", "body": whole})
            else:
                await send(message)

        await self._app(scope, receive, sent)


def _is_html(message: Message) -> bool:
    types = [value for name, value in message["headers"] if name == b"content-type"]
    return message["status"] == 200 and any(each.startswith(b"text/html") for each in types)


def page_at(path: str) -> Page:
    """The page at this address of the server; the default page where there is none."""
    name = path.rpartition("/")[2]
    default = next(page for page in PAGES if page.default)
    return next((page for page in PAGES if page.path == name), default)


@cache
def links(page: Page) -> bytes:
    """What a page needs, as HTML."""
    chunks = [*_ALWAYS, *(_TABLE if TABLE in page.ready else ())]
    found = [f'<link rel="modulepreload" crossorigin href="./{each}">' for each in _files(chunks)]
    if page.ready == CHART:
        found.append(f'<link rel="preload" as="script" href=".{plotly_script.address()}">')
    return "".join(found).encode()


def _files(chunks: list[str]) -> list[str]:
    static = Path(file_util.get_static_dir())
    found = [sorted(static.glob(f"static/js/{name}.*.js")) for name in chunks]
    return [str(files[0].relative_to(static)) for files in found if len(files) == 1]
