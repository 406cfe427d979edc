"""Where the text comes from: every kind of source, and what each bad one says."""

import gzip
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus.account import Account
from workers.corpus.documents import read_documents
from workers.corpus.files import list_files
from workers.corpus.hub import HubUnreachable, resolve_commit

TEXTS = ["first\ndocument é", "second", "third\n"]


def read(spec: CorpusSpec, cache: Path) -> list[str]:
    files = [] if spec.is_hub else list_files(spec)
    return list(read_documents(spec, files, "", cache))


def write(path: Path, field: str = "text") -> str:
    rows = [{field: t, "id": i} for i, t in enumerate(TEXTS)]
    lines = "".join(json.dumps(r) + "\n" for r in rows).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return str(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.parquet"])
@pytest.mark.parametrize("field", ["text", "body"])
def test_rows_are_documents(tmp_path, name, field):
    source = write(tmp_path / name, field)
    assert read(CorpusSpec(source=source, text_field=field), tmp_path / "cache") == TEXTS


def test_a_folder_is_every_supported_file_below_it(tmp_path):
    folder = tmp_path / "corpus"
    for name in ("sub/deep", ".git", "__pycache__"):
        (folder / name).mkdir(parents=True)
    (folder / "b.txt").write_text("b")
    (folder / "sub/deep/a.md").write_text("a")
    (folder / "sub/z.txt.gz").write_bytes(gzip.compress(b"z"))
    (folder / "empty.txt").write_text("")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / ".git/c.txt").write_text("hidden")
    (folder / "__pycache__/c.txt").write_text("cache")
    write(folder / "rows.jsonl")
    found = read(CorpusSpec(source=str(folder)), tmp_path / "cache")
    assert found == ["b", *TEXTS, "a", "z"]


def test_globs_and_urls(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name)
    assert read(CorpusSpec(source=str(tmp_path / "[ab].txt")), tmp_path / "cache") == ["a", "b"]
    with fsspec.open("memory://corpus/one.txt", "w") as file:
        file.write("from memory")
    for source in ("memory://corpus", "memory://corpus/*.txt", "memory://corpus/one.txt"):
        assert read(CorpusSpec(source=source), tmp_path / "cache") == ["from memory"]


@pytest.mark.parametrize("remote", [False, True], ids=["local", "remote"])
@pytest.mark.parametrize(
    ("glob", "names", "skipped"),
    [  # skipped: locally, where folders are walked; remotely, where files are listed
        ("**/*.txt", ["a", "deep/a"], (3, 3)),
        ("**/*/*.txt", ["deep/a"], (3, 3)),
        ("*/*.txt", ["deep/a"], (2, 2)),
        ("node_modules/*.txt", ["node_modules/a"], (0, 0)),
        ("**/node_modules/*.txt", ["deep/node_modules/a", "node_modules/a"], (1, 0)),
        ("**/__pycache__/*", ["__pycache__/a"], (2, 0)),
    ],
)
def test_caches_and_packages_are_left_out_of_a_glob(tmp_path, glob, names, skipped, remote):
    root = f"memory://skips-{tmp_path.name}" if remote else str(tmp_path)
    for folder in ("", "deep/", "node_modules/", "deep/node_modules/", "__pycache__/"):
        with fsspec.open(f"{root}/{folder}a.txt", "w", auto_mkdir=True) as file:
            file.write(f"{folder}a")
    spec, account = CorpusSpec(source=f"{root}/{glob}"), Account()
    files = list_files(spec, account)
    assert sorted(read_documents(spec, files, "", tmp_path)) == names
    assert account.dropped.get("skipped_folders", 0) == skipped[remote]


def test_the_byte_cap_says_where_it_was_reached(tmp_path):
    source = write(tmp_path / "a.jsonl")
    cap = len(TEXTS[0].encode()) + 2
    spec, account = CorpusSpec(source=source, max_bytes=cap), Account()
    read_texts = list(read_documents(spec, list_files(spec), "", tmp_path, account))
    assert read_texts == [TEXTS[0], "se"]
    assert account.notes == [
        "1 place where max_bytes was reached: the rest of the source was not read "
        "(a.jsonl, document 2)"
    ]


def test_a_digest_follows_the_content(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    (first,) = list_files(CorpusSpec(source=str(path)))
    path.write_text("two")
    (second,) = list_files(CorpusSpec(source=str(path)))
    assert first.digest != second.digest


def test_the_standard_library_is_source_without_tests():
    paths = [f.path for f in list_files(CorpusSpec())]
    root = sysconfig.get_paths()["stdlib"]
    parts = {part for path in paths for part in Path(path).relative_to(root).parts}
    assert len(paths) > 300
    assert {"argparse.py", "asyncio"} <= parts
    assert not parts & {"test", "tests", "site-packages", "__pycache__"}


# The first document has 17 bytes, the last two of them one character.
@pytest.mark.parametrize(
    ("cap", "expected"),
    [
        (5, ["first"]),
        (16, ["first\ndocument "]),
        (17, TEXTS[:1]),
        (18, [TEXTS[0], "s"]),
        (10_000, TEXTS),
    ],
)
def test_the_byte_cap_cuts_the_last_document_between_characters(tmp_path, cap, expected):
    source = write(tmp_path / "a.jsonl")
    assert read(CorpusSpec(source=source, max_bytes=cap), tmp_path / "cache") == expected


def test_bytes_that_are_not_utf8_become_the_replacement_character(tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\r\nbar")
    assert read(CorpusSpec(source=str(tmp_path / "latin.txt")), tmp_path) == ["caf\ufffd\nbar"]


def refused(spec: CorpusSpec, cache: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(spec, cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_sources_are_named(tmp_path):
    assert "no file matches source" in refused(CorpusSpec(source="nowhere/*.txt"), tmp_path)
    assert "no file matches source" in refused(CorpusSpec(source="nowhere.txt"), tmp_path)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    message = refused(CorpusSpec(source=str(tmp_path)), tmp_path)
    assert "holds no supported file (found suffixes: .png); supported: .txt" in message
    message = refused(CorpusSpec(source=str(tmp_path / "picture.png")), tmp_path)
    assert "is no supported file" in message
    assert "cannot read 'nosuch://x/y.txt'" in refused(
        CorpusSpec(source="nosuch://x/y.txt"), tmp_path
    )


@pytest.mark.parametrize("name", ["b.txt.gz", "b.jsonl.gz", "b.jsonl", "b.parquet"])
def test_an_unreadable_file_is_named(tmp_path, name):
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / name).write_bytes(b"\x1f\x8b not what the suffix says" * 5)
    message = refused(CorpusSpec(source=str(tmp_path)), tmp_path / "cache")
    assert f"{name}': " in message and "mend the file or take it out" in message


def test_a_truncated_gzip_is_named(tmp_path):
    data = gzip.compress(random.Random(0).randbytes(50_000).hex().encode())
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.txt.gz").write_bytes(data[: len(data) // 2])
    message = refused(CorpusSpec(source=str(tmp_path)), tmp_path / "cache")
    assert "b.txt.gz': " in message


@pytest.mark.parametrize(
    ("name", "held"), [("a.jsonl", "a number"), ("a.jsonl.gz", "a number"), ("a.parquet", "int64")]
)
def test_a_wrong_text_field_names_the_fields(tmp_path, name, held):
    source = write(tmp_path / name, "body")
    message = refused(CorpusSpec(source=source), tmp_path / "cache")
    assert "has no field 'text'; set text_field to one of: body, id" in message
    message = refused(CorpusSpec(source=source, text_field="id"), tmp_path / "cache")
    assert "field 'id'" in message and f"holds {held}, not text" in message


def test_hub_errors_are_told_apart(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    def answer(error):
        def repo_info(self, *args, **kwargs):
            raise error

        monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", repo_info)

    answer(OSError("Name or service not known"))
    with pytest.raises(HubUnreachable, match=r"did not answer for dataset 'a/b' \(Name or"):
        resolve_commit("a/b", "", "dataset")
    answer(HFValidationError("bad id"))
    with pytest.raises(InputError, match="the Hub has no model 'a/b' at revision 'v1'") as caught:
        resolve_commit("a/b", "v1", "model")
    assert not isinstance(caught.value, HubUnreachable)
    assert resolve_commit("a/b", "0" * 40, "dataset") == "0" * 40


def test_hub_rows_are_read_as_a_stream(tmp_path, monkeypatch):
    import datasets

    write(tmp_path / "train.jsonl", "body")
    real, asked = datasets.load_dataset, {}

    def load_dataset(path, **options):
        asked.update(options, path=path)
        return real(str(tmp_path), split=options["split"], streaming=options["streaming"])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    spec = CorpusSpec(source="hub:owner/set", name="en", text_field="body")
    assert list(read_documents(spec, [], "c0ffee", tmp_path / "cache")) == TEXTS
    assert asked["path"] == "owner/set" and asked["name"] == "en"
    assert asked["revision"] == "c0ffee" and asked["streaming"] is True
    assert "trust_remote_code" not in asked
    message = refused(CorpusSpec(source="hub:owner/set", split="dev"), tmp_path / "cache")
    assert "cannot read 'hub:owner/set' from the Hub" in message


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("s3://bucket/x.txt", "needs the package s3fs, which is not installed: pip install it"),
        ("gs://bucket/x.txt", "needs the package gcsfs, which is not installed: pip install it"),
        ("sftp://host/x.txt", "needs the package paramiko, which is not installed"),
        ("reference://x", "a URL alone is not enough for the protocol"),
        ("zip://*.txt::nowhere.zip", "No such file or directory"),
    ],
)
def test_urls_that_need_more_say_what(tmp_path, source, rule):
    message = refused(CorpusSpec(source=source), tmp_path)
    assert rule in message and "Error" not in message and "FileSystem" not in message


def test_files_in_an_archive_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "first")
        archive.writestr("sub/.b.txt", "hidden")
        archive.writestr("sub/c.jsonl", '{"text": "second"}')
        archive.writestr("d.parquet", Path(write(tmp_path / "d.parquet")).read_bytes())
    source = f"zip://**/*.*::{tmp_path}/a.zip"
    assert sorted(read(CorpusSpec(source=source), tmp_path)) == sorted(["first", "second", *TEXTS])


def test_many_stars_in_a_row_are_one(tmp_path):
    for depth in range(12):
        folder = tmp_path / "/".join("abcdefghijkl"[: depth + 1])
        folder.mkdir()
        (folder / "x.txt").write_text(f"{depth}")
    start = time.perf_counter()
    source = f"{tmp_path}/{'**/' * 12}*.txt"
    assert len(read(CorpusSpec(source=source), tmp_path)) == 12
    assert time.perf_counter() - start < 5


_AS_NOBODY = """
import json, os, sys
from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus.account import Account
from workers.corpus.files import list_files
import fsspec.implementations.local, fsspec.core
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for source in sys.argv[1:]:
    account = Account()
    try:
        found = [os.path.basename(f.path) for f in list_files(CorpusSpec(source=source), account)]
    except InputError as error:
        found = str(error)
    print(json.dumps([found, account.dropped, account.notes]))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs the right to become another user")
def test_what_may_not_be_read_is_left_out_and_named():
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        for path in ("a.txt", "closed.txt", "shut/b.txt", "one/c.txt"):
            (root / path).parent.mkdir(exist_ok=True)
            (root / path).write_text(path)
        for path in ("closed.txt", "shut", "one/c.txt"):
            (root / path).chmod(0)
        sources = [name, f"{name}/*", f"{name}/**/*.txt", f"{name}/one", f"{name}/shut"]
        command = [sys.executable, "-c", _AS_NOBODY, *sources, f"{name}/closed.txt"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        folder, star, stars, one, shut, file = map(json.loads, done.stdout.splitlines())
    assert folder[:2] == stars[:2] == [["a.txt"], {"unreadable": 3}]
    assert folder[2] == [
        "3 files and folders left out: no permission to read (shut/, closed.txt, c.txt)"
    ]
    assert star[:2] == [["a.txt"], {"unreadable": 1}]
    assert "may be read (1 file or folder left out: no permission to read (c.txt))" in one[0]
    assert "no file matches" in shut[0] and "no permission to read (shut/)" in shut[0]
    assert "may be read" in file[0] and "(closed.txt)" in file[0]
