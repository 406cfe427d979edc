"""What a page will need, named in its HTML, so that the browser has it when it is asked for.

Streamlit's HTML is the same for every page, and says nothing of what a page draws: the browser
learns of it when the page's first elements come, and then has to fetch and compile, one script
after the other that imports it. It does so now while Streamlit waits for its server, and no sooner:
links that stand before Streamlit's own script hold that up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from streamlit import file_util

from dashboard import plotly_script
from dashboard.pages import CHART, PAGES, TABLE, Page

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD_END = b"</head>"
STATIC = Path(file_util.get_static_dir())
# Of the whole file, which changes with what is added: else a browser keeps an older one.
_DROPPED = (b"content-length", b"etag", b"last-modified")
# Streamlit's own chunks, each of which is else found when its first element comes. Those that
# another version does not have are left out.
_ALWAYS = ("BidiComponent", "Selectbox", "Html")
_TABLE = ("DataFrame", "moment", "numbro")
_OWN = {  # by page, what stands above its chart
    "frontier": ("Metric", "ButtonGroup", "Checkbox", "Multiselect", "Button"),
    "why": ("ButtonGroup",),
    "trial": ("Table",),
}
_IMPORT = re.compile(r'(?:from|import)\s*"\./([\w.$-]+\.js)"')
_IMPORTS_CHARS = 16_000  # at a chunk's beginning, where all its imports stand
# The browser runs a module after those that are before it in the HTML: after Streamlit itself.
_LATER = """<script type="module">
for (const file of %(files)s) {
  const link = document.createElement("link");
  Object.assign(link, {rel: "modulepreload", crossOrigin: "", href: `./static/js/${file}`});
  document.head.append(link);
}
for (const file of %(roots)s) import(`./static/js/${file}`);
%(plotly)s</script>"""


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

        await self._app(_unpacked(scope), receive, sent)


def _unpacked(scope: Scope) -> Scope:
    """The same request; one that may be for a page takes no packed answer, which could not be read:
    Streamlit packs all pages but the first."""
    if "." in scope["path"].rpartition("/")[2]:
        return scope
    kept = [each for each in scope["headers"] if each[0] != b"accept-encoding"]
    return {**scope, "headers": kept}


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
    """What a page needs, as HTML.

    Streamlit's chunks are not just fetched but run: an element whose chunk was not run yet is put
    into the page a third of a second later (React waits so long between two fillings of gaps).
    """
    wanted = [*_ALWAYS, *_OWN.get(page.path, ()), *(_TABLE if TABLE in page.ready else ())]
    roots, files = chunks(wanted)
    drawn = page.ready == CHART
    later = _LATER % {
        "files": json.dumps(files),
        "roots": json.dumps(roots),
        "plotly": plotly_script.begin() if drawn else "",
    }
    return ((plotly_script.preload() if drawn else "") + later).encode()


def chunks(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The files of Streamlit's chunks of these names, and with them all that they import, but for
    what Streamlit's own HTML names."""
    folder = STATIC / "static" / "js"
    index = (STATIC / "index.html").read_text(encoding="utf-8")
    found: dict[str, None] = {}

    def add(name: str) -> None:
        if name in found or f"js/{name}" in index or not (folder / name).is_file():
            return
        found[name] = None
        with (folder / name).open(encoding="utf-8") as file:
            text = file.read(_IMPORTS_CHARS)
        for each in _IMPORT.findall(text):
            add(each)

    roots = []
    for name in names:
        files = sorted(folder.glob(f"{name}.*.js"))
        if len(files) == 1:
            roots.append(files[0].name)
            add(files[0].name)
    return roots, list(found)
