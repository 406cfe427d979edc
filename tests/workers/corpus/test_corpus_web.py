"""Text behind web addresses, read from a server on this machine."""

import gzip
import http.server
import io
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus.account import Account
from workers.corpus.documents import read_documents
from workers.corpus.files import list_files

TEXT = "".join(f"line {i} é\n" for i in range(1000))
LARGE = "".join(f"line {i:0144d}\n" for i in range(60_000))  # more than one block of fsspec's


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [TEXT, "two"]}), buffer)
    return buffer.getvalue()


PAGES = {
    "/a.txt": TEXT.encode(),
    "/a.txt.gz": gzip.compress(TEXT.encode()),
    "/a.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
    "/a.parquet": parquet(),
    "/large.txt": LARGE.encode(),
    "/private/a.txt": b"secret text",
    "/cut.txt": TEXT.encode(),
    "/a.bin": b"x",
}


class Handler(http.server.BaseHTTPRequestHandler):
    """PAGES without ranges or stamps; /private/ asks for a password, /cut.txt stops half-way."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        body = PAGES.get(path)
        allowed = self.headers.get("Authorization") == "Basic bWU6aHVudGVyMg=="
        if body is None or (path.startswith("/private/") and not allowed):
            self.send_error(404 if body is None else 401)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if path == "/cut.txt" else body)

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def read(source: str, tmp_path: Path) -> list[str]:
    spec, account = CorpusSpec(source=source), Account()
    return list(read_documents(spec, list_files(spec, account), "", tmp_path, account))


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        ("a.txt", [TEXT]),
        ("a.txt?download=1&page=2", [TEXT]),
        ("a.txt.gz", [TEXT]),
        ("a.jsonl", ["one", "two"]),
        ("a.parquet", [TEXT, "two"]),
        ("large.txt", [LARGE]),
    ],
)
def test_every_format_is_read_from_a_web_address(server, tmp_path, page, texts):
    assert read(f"{server}/{page}", tmp_path) == texts


def test_a_changed_page_has_another_digest(server, tmp_path, monkeypatch):
    spec = CorpusSpec(source=f"{server}/a.txt")
    (first,) = list_files(spec)
    monkeypatch.setitem(PAGES, "/a.txt", TEXT.replace("é", "e ").encode())
    (second,) = list_files(spec)
    assert first.digest != second.digest


@pytest.mark.parametrize(
    ("page", "rule"),
    [
        ("none.txt", "no file matches source|cannot read"),
        ("cut.txt", "cannot read"),
        ("a.bin", "no supported file"),
        ("private/a.txt", "no file matches source|cannot read"),
    ],
)
def test_a_page_that_cannot_be_read_is_named(server, tmp_path, page, rule):
    with pytest.raises(InputError, match=rule) as caught:
        read(f"{server}/{page}", tmp_path)
    line = str(caught.value)
    assert f"{server}/{page}" in line and "\n" not in line and "Error" not in line


def test_a_password_comes_from_netrc(server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert read(f"{server}/private/a.txt", tmp_path) == ["secret text"]
