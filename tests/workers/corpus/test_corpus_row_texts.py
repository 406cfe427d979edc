"""Rows of files and of streams: what is read, awaited and refused."""

import itertools
import json

import pytest

from search_space.corpus import CorpusSpec
from search_space.errors import InputError
from workers.corpus.account import Account
from workers.corpus.documents import read_documents
from workers.corpus.files import list_files
from workers.corpus.row_texts import STREAM_PATIENCE, row_texts


def read(spec, cache, account=None):
    files = [] if spec.is_hub else list_files(spec)
    return list(read_documents(spec, files, "", cache, account))


def refused(spec, cache):
    with pytest.raises(InputError) as caught:
        read(spec, cache)
    return str(caught.value)


def test_a_field_that_begins_late_is_read_from_a_file_and_not_awaited_of_a_stream(tmp_path):
    rows = [{"id": i} for i in range(3000)] + [{"text": "late"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read(CorpusSpec(source=str(tmp_path / "a.jsonl")), tmp_path / "cache") == ["late"]
    endless = ({"id": i} for i in itertools.count())
    with pytest.raises(InputError, match="has no field 'text'; set text_field to one of: id"):
        list(row_texts(endless, "text", "hub:a/b", Account(), STREAM_PATIENCE))


def test_a_stream_of_the_hub_is_not_awaited_for_ever(tmp_path, monkeypatch):
    import datasets

    endless = ({"id": i} for i in range(100_000))
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: endless)
    assert "has no field 'text'" in refused(CorpusSpec(source="hub:a/b"), tmp_path)
    assert next(endless)["id"] < 10_000


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\xff\xfe"])
def test_rows_of_only_a_byte_order_mark_are_an_empty_file(tmp_path, data):
    (tmp_path / "a.jsonl").write_bytes(data)
    (tmp_path / "b.jsonl").write_text('{"text": "b"}\n')
    account = Account()
    assert read(CorpusSpec(source=str(tmp_path)), tmp_path / "cache", account) == ["b"]
    assert account.dropped["empty_files"] == 1


def test_a_row_with_its_text_twice_is_refused_by_line(tmp_path):
    good = '{"text": "a", "id": 1, "id": 2, "more": {"text": "x", "text": "y"}}\n'
    path = tmp_path / "a.jsonl"
    path.write_text(good)
    assert read(CorpusSpec(source=str(path)), tmp_path / "cache") == ["a"]
    path.write_text(good + '{"text": "a", "more": {}, "text": "b"}\n')
    message = refused(CorpusSpec(source=str(path)), tmp_path / "cache")
    assert "a.jsonl': line 2 has the field 'text' more than once; mend the file" in message
