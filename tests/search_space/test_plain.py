"""Raw YAML and JSON become bounded plain data, or one line."""

from __future__ import annotations

import datetime
import json
import os

import pytest

from search_space import plain
from search_space.errors import InputError, shown


def refused(call, *arguments) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


def test_plain_data_comes_back_as_a_copy():
    data = {"a": [1, 2.5, True, None, "text"], "b": {"c": -(2**62)}}
    copy = plain.checked(data, "here")
    assert copy == data and copy is not data and copy["a"] is not data["a"]
    assert plain.checked((1, (2,)), "here") == [1, [2]]


def bomb(levels: int = 40) -> list:
    value: list = ["x"]
    for _ in range(levels):
        value = [value] * 9
    return value


def endless() -> list:
    value: list = []
    value.append(value)
    return value


BAD_VALUES = {
    "here: keys are text: got (1, 2)": {(1, 2): 3},
    "here: keys are text: got 1; put it in quotes": {1: 3},
    "here: a.b: values are text, numbers": {"a": {"b": {1}}},
    "got a date; put text in quotes": [datetime.date(2024, 1, 1)],
    "got a bytes; put": [b"x"],
    "here: a[1]: a number must be finite: got inf": {"a": [1, float("inf")]},
    "here: a number must be finite: got nan": float("nan"),
    "a whole number has at most 64 bits: got 9223372036854775808": 2**63,
    "got a whole number of about 6,001 digits": 10**6000,
    "text holds no NUL": "a\0",
    "text holds no NUL and no half characters": ["a\ud800"],
    "a text has at most 10,000 characters: got 10,001": "x" * 10_001,
    "more than 100,000 values": bomb(20),
    "nested more than 64 levels deep": endless(),
}


@pytest.mark.parametrize("message", BAD_VALUES)
def test_what_is_no_plain_data_is_refused(message):
    assert message in refused(plain.checked, BAD_VALUES[message], "here")


BAD_JSON = {
    "is not valid JSON: Expecting value, line 1 column 1": "x",
    "nested more than 64 levels deep": "[" * 100_000,
    "nested more than 64 levels": "[" * 70 + "]" * 70,
    "a whole number has at most 64 bits: got a longer one": "9" * 5000,
    "a number must be finite: got nan": "NaN",
    "a number must be finite: got inf": "1e999",
    "key 'a' is given twice; keep one": '{"a": 1, "a": 2}',
    "no half characters": '"\\ud800"',
    "more than 100,000 values": "[" + "1," * 200_000 + "1]",
}


@pytest.mark.parametrize("message", BAD_JSON)
def test_bad_json_is_one_line_that_starts_with_its_file(tmp_path, message):
    file = tmp_path / "spec.json"
    file.write_text(BAD_JSON[message])
    error = refused(plain.read_json, file)
    assert error.startswith(str(file)) and message in error


def test_a_file_that_is_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long").write_text(json.dumps("x" * plain.FILE_BYTES))
    (tmp_path / "latin").write_bytes('"é"'.encode("latin-1"))
    (tmp_path / "utf16").write_text('"é"', encoding="utf-16")
    assert "Is a directory" in refused(plain.read_json, tmp_path)
    assert "it is a pipe" in refused(plain.read_json, tmp_path / "pipe")
    assert "it is a pipe, a device" in refused(plain.read_json, "/dev/zero")
    assert "No such file" in refused(plain.read_json, "")
    assert "cannot read 'xxx" in refused(plain.read_json, "x" * 9_000)
    assert "a path holds no NUL" in refused(plain.read_json, "a\0b")
    assert "more than 1,048,576 bytes" in refused(plain.read_json, tmp_path / "long")
    assert "not text in UTF-8 (byte 1 is 0xe9)" in refused(plain.read_json, tmp_path / "latin")
    assert "not text in UTF-8" in refused(plain.read_json, tmp_path / "utf16")


def test_a_byte_order_mark_is_no_matter(tmp_path):
    (tmp_path / "marked").write_text('{"a": 1}', encoding="utf-8-sig")
    assert plain.read_json(tmp_path / "marked") == {"a": 1}


def test_any_value_is_shown_in_one_short_line():
    for value in (10**6000, bomb(), "a\nb" * 999, {"k" * 99: bomb(3)}, endless(), object()):
        assert len(shown(value)) <= 200 and "\n" not in shown(value)
    assert shown(True) == "True" and shown("a b") == "'a b'" and shown(12) == "12"
