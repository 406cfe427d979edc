"""Corpora that are broken, odd or empty, in every format, and what must come of each."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

TEXT, ROWS = ("txt", "txt.gz"), ("jsonl", "jsonl.gz", "parquet", "parquet.gz")
LINES = ("jsonl", "jsonl.gz")
ALL = TEXT + ROWS

_WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "then", "ran", "off", "to", "sea"]
BASE = "\n".join(" ".join(random.Random(i).choices(_WORDS, k=12)) for i in range(300))


@dataclass(frozen=True)
class Case:
    """One corpus.

    make: writes it into a folder and returns the keys of its CorpusSpec.
    texts: of all its documents.
    dropped: what the account must say.
    refused: a part of the one line that refuses it, "" for a corpus that must be prepared.
    """

    name: str
    make: Callable[[Path], dict[str, Any]]
    texts: Sequence[str] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    refused: str = ""


def packed(texts: Sequence[Any], form: str, key: str = "text") -> bytes:
    """The bytes of a file of `form` that holds `texts`; a text file holds them in one document."""
    kind = form.removesuffix(".gz")
    if kind == "txt":
        data = "".join(texts).encode()
    elif kind == "jsonl":
        data = b"".join(json.dumps({"id": i, key: t}).encode() + b"\n" for i, t in enumerate(texts))
    else:
        column = (
            texts if isinstance(texts, pa.Array) else pa.array(texts, None if texts else "string")
        )
        buffer = io.BytesIO()
        pq.write_table(pa.table({"id": range(len(column)), key: column}), buffer)
        data = buffer.getvalue()
    return gzip.compress(data) if form.endswith(".gz") else data


def put(folder: Path, files: dict[str, bytes], source: str = "", **keys: Any) -> dict[str, Any]:
    """Write `files` and a plain text beside them; the source is the folder, or what is named."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.txt").write_text(BASE)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return {"source": f"{folder}/{source}" if source else str(folder), **keys}


def _names() -> Iterator[Case]:
    for form in ALL:
        one, two = packed(["one more\n"], form), packed(["two more\n"], form)
        texts = [BASE, "one more\n", "two more\n"]
        yield Case(
            f"pattern characters in names, {form}",
            lambda d, f=form, a=one, b=two: put(d, {f"n5.{f}": a, f"n[0-9]*?.{f}": b}),
            texts,
        )
        odd = f"-a::b://c #%20 é[1]{'x' * 150}.{form}".replace("/", "")
        yield Case(
            f"a file whose name looks like a URL, {form}",
            lambda d, n=odd, f=form: put(d, {n: packed([BASE, "x"], f)}, n),
            [BASE + "x"] if form in TEXT else [BASE, "x"],
        )
        yield Case(
            f"a folder whose name is a pattern, {form}",
            lambda d, f=form, a=one: put(d / "br [2024] *?", {f"a.{f}": a}),
            texts[:2],
        )
        yield Case(
            f"hidden files under a glob, {form}",
            lambda d, f=form, a=one, b=two: put(
                d, {f"a.{f}": a, f".b.{f}": b, f".h/c.{f}": b}, "**/*.*"
            ),
            texts[:2],
            {"hidden": 2},
        )
        yield Case(f"links, {form}", lambda d, f=form, a=one: _linked(d, f, a), texts[:2], _LINKED)


_LINKED = {"broken_links": 2, "repeated_links": 2}


def _linked(folder: Path, form: str, data: bytes) -> dict[str, Any]:
    keys = put(folder, {f"real/a.{form}": data})
    (folder / f"link.{form}").symlink_to(folder / "real" / f"a.{form}")
    (folder / "real" / "up").symlink_to(folder)
    (folder / f"gone.{form}").symlink_to(folder / "nowhere")
    (folder / f"self.{form}").symlink_to(folder / f"self.{form}")
    return keys


def _shards() -> Iterator[Case]:
    run = "".join(random.Random(1).choices("ACGTacgt", k=300_000))
    for form in ALL:
        empty = packed([], form)
        yield Case(
            f"an empty shard, {form}",
            lambda d, f=form, e=empty: put(d, {f"z.{f}": e}),
            [BASE],
            {"empty_files": 1},
        )
        yield Case(
            f"empty files alone, {form}",
            lambda d, f=form, e=empty: put(d, {f"z.{f}": e}, f"z.{f}"),
            refused="holds no text (1 file without any text",
        )
        one = packed(["one more\n"], form)
        wrong = form.removesuffix(".gz") if form.endswith(".gz") else f"{form}.gz"
        yield Case(
            f"a name that errs on gzip, {form} named {wrong}",
            lambda d, w=wrong, a=one: put(d, {f"a.{w}": a}),
            [BASE, "one more\n"],
            {"misnamed_gzip": 1},
        )
        if form != "txt":
            long = packed([f"{random.Random(i).random()} text" for i in range(500)], form)
            cut = "line 2" if form == "jsonl" else f"a.{form}': "
            data = packed(["a", "b"], form)[:-9] if form == "jsonl" else long[: len(long) // 2]
            yield Case(
                f"a truncated file, {form}",
                lambda d, f=form, a=data: put(d, {f"a.{f}": a}),
                refused=cut,
            )
        yield Case(
            f"300 kB without a space, {form}",
            lambda d, f=form, r=run: put(d, {f"a.{f}": packed([r], f)}),
            [BASE, run],
        )


def _encodings() -> Iterator[Case]:
    for form in ALL:
        bad = b"caf\xe9 \xff ok"
        if form in TEXT:
            data = bad
        elif form in LINES:
            data = b'{"text": "' + bad + b'"}\n'
        else:
            column = pa.array([bad]).cast(pa.binary())
            column = pa.Array.from_buffers(pa.string(), 1, column.buffers())
            data = packed(column, "parquet")
        yield Case(
            f"bytes that are not UTF-8, {form}",
            lambda d, f=form, x=data: put(d, {f"a.{f}": _gz(x, f)}),
            [BASE, "caf\ufffd \ufffd ok"],
            {"replaced_bytes": 2},
        )
        nul = packed(["a\0b\0"], form)
        yield Case(
            f"NUL characters, {form}",
            lambda d, f=form, x=nul: put(d, {f"a.{f}": x}),
            [BASE, "a\0b\0"],
            {"nul_characters": 2},
        )
    for form in TEXT + LINES:
        plain = packed(["naïve\n"], form.removesuffix(".gz"))
        for encoding, kind in (
            ("utf-8-sig", "byte_order_marks"),
            ("utf-16", "recoded_files"),
            ("utf-32", "recoded_files"),
        ):
            data = plain.decode().encode(encoding)
            yield Case(
                f"{encoding} with its mark, {form}",
                lambda d, f=form, x=data: put(d, {f"a.{f}": _gz(x, f)}),
                [BASE, "naïve\n"],
                {kind: 1},
            )
        ends = "one\u2028two\x85three\x0bfour\r\nfive\rsix"
        kept = form in LINES
        yield Case(
            f"line ends of all kinds, {form}",
            lambda d, f=form, e=ends: put(d, {f"a.{f}": packed([e], f)}),
            [BASE, ends if kept else ends.replace("\r\n", "\n").replace("\r", "\n")],
            {} if kept else {"line_ends": 2},
        )


def _gz(data: bytes, form: str) -> bytes:
    return gzip.compress(data) if form.endswith(".gz") else data


def _rows() -> Iterator[Case]:
    for form in ROWS:
        for name, texts, kept, dropped in (
            ("dates", ["2024-01-02", "2024-01-03"], ["2024-01-02", "2024-01-03"], {}),
            ("numbers and booleans in quotes", ["1", "true", "null"], ["1", "true", "null"], {}),
            ("null texts", ["a", None, "b"], ["a", "b"], {"null_rows": 1}),
            ("empty texts", ["a", "", "b"], ["a", "b"], {"empty_rows": 1}),
        ):
            yield Case(
                f"{name}, {form}",
                lambda d, f=form, t=texts: put(d, {f"a.{f}": packed(t, f)}),
                [BASE, *kept],
                dropped,
            )
        for name, values in (
            ("numbers", [1, 2]),
            ("nested text", [{"en": "a"}, {"en": "b"}]),
            ("lists", [["a"], ["b"]]),
        ):
            yield Case(
                f"{name} for text, {form}",
                lambda d, f=form, v=values: put(d, {f"a.{f}": packed(v, f)}),
                refused="not text; set text_field to another of: id, text",
            )
        yield Case(
            f"no such field, {form}",
            lambda d, f=form: put(d, {f"a.{f}": packed(["a"], f, "body")}),
            refused="has no field 'text'; set text_field to one of: id, body",
        )


def _lines() -> Iterator[Case]:
    for form in LINES:
        good = b'{"text": "a"}\n'
        for name, line, refused in (
            ("a broken line", b'{"text": "b\n', "line 2 is no JSON object"),
            ("a row that is a list", b'["b"]\n', "line 2 holds a list, not an object"),
            ("nesting without end", b"[" * 100_000 + b"\n", "line 2 is nested too deep"),
            (
                "a number without end",
                b'{"n": ' + b"9" * 10_000 + b"}\n",
                "a number that is too long",
            ),
        ):
            yield Case(
                f"{name}, {form}",
                lambda d, f=form, x=good + line + good: put(d, {f"a.{f}": _gz(x, f)}),
                refused=refused,
            )
        for name, data, texts, dropped in (
            (
                "half a surrogate pair",
                b'{"text": "a\\ud800b \\ud83d\\ude42"}',
                ["a\ufffdb 🙂"],
                {"replaced_surrogates": 1},
            ),
            ("a missing field", good + b'{"id": 1}\n\n' + good, ["a", "a"], {"missing_rows": 1}),
            ("lone CR between rows", good.replace(b"\n", b"\r") * 2, ["a", "a"], {}),
        ):
            yield Case(
                f"{name}, {form}",
                lambda d, f=form, x=data: put(d, {f"a.{f}": _gz(x, f)}),
                [BASE, *texts],
                dropped,
            )


def _places() -> Iterator[Case]:
    yield Case("pipes and sockets in a folder", _special, [BASE], {"special_files": 2})
    yield Case(
        "a pipe as the source",
        lambda d: _special(d) | {"source": f"{d}/pipe.txt"},
        refused="is a pipe, socket or device",
    )
    yield Case(
        "a device as the source",
        lambda d: {"source": "/dev/zero"},
        refused="is a pipe, socket or device",
    )
    yield Case(
        "other suffixes",
        lambda d: put(d, {"a.png": b"\x89PNG", "b.doc": b"x"}),
        [BASE],
        {"unsupported_files": 2},
    )
    yield Case(
        "a folder that looks like a file", lambda d: put(d, {"a.txt/b.txt": b"b"}), [BASE, "b"]
    )
    yield Case(
        "the byte cap",
        lambda d: put(d, {"c.txt": b"c", "d.txt": b"d"}, max_bytes=10_000),
        [BASE[:10_000]],
        {"capped": 1, "unread_files": 2},
    )
    yield Case("nothing there", lambda d: {"source": f"{d}/none*.txt"}, refused="no file matches")
    for url, refused in (
        ("https://me:hunter2@localhost/x.txt", "no password, key or token"),
        ("https://localhost/x.txt?token=hunter2", "no password, key or token"),
        ("s3://key:hunter2@bucket/x.txt", "no password, key or token"),
        ("nosuch://x/y.txt", "Protocol not known: nosuch"),
        ("http://127.0.0.1:9/x.txt", "cannot read 'http://127.0.0.1:9/x.txt'"),
    ):
        yield Case(f"the URL {url}", lambda d, u=url: {"source": u}, refused=refused)


def _special(folder: Path) -> dict[str, Any]:
    keys = put(folder, {})
    os.mkfifo(folder / "pipe.txt")
    os.mknod(folder / "socket.txt", stat.S_IFSOCK | 0o600)
    return keys


CASES: tuple[Case, ...] = (*_names(), *_shards(), *_encodings(), *_rows(), *_lines(), *_places())
