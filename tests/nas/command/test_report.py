"""`nas report`: one page to mail, whole or not at all."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from command_tools import the_error

from nas.store import Store
from search_space.contract import Status
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec

URL = "sqlite:///nas.db"


class Words(HTMLParser):
    """The texts of a page, and the ids and links of its elements."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.ids, self.links, self.tags = [], [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.links += [given[name] for name in ("href", "src") if name in given]

    def handle_data(self, data):
        self.words.append(data)


def written(nas, *arguments) -> str:
    done = nas("report", *arguments, "--html", "report.html")
    assert (done.code, done.out) == (0, ""), done
    assert re.fullmatch(r"wrote report.html, \d+ KiB\n", done.err)
    return Path("report.html").read_text(encoding="utf-8")


def test_it_has_all_parts_and_needs_nothing_else(nas, filled):
    page = written(nas)
    found = Words(page)
    text = " ".join(found.words)
    for heading in ("The frontier", "What it spent", "What failed", "Do it again"):
        assert heading in text
    assert "Runs over the rungs" not in text  # it has one
    assert "2.2500 ± 0.0100" in text and "order 3: 2.500" in text
    assert "[/x] nan" in text and "diverged" in text
    assert "trial-0" in found.ids and "#trial-0" in found.links
    assert all(link.startswith("#") for link in found.links)
    assert not found.tags & {"script", "link", "img", "iframe"}
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page
    assert len(page) < 40_000


def test_a_study_with_rungs_has_its_runs_and_repeats(nas, repeated):
    text = " ".join(Words(written(nas)).words)
    assert "Runs over the rungs" in text and "Bits per byte of each run" in text
    assert "nas launch study.yaml" in text and "trial_flops: 1000000000.0" in text


def test_names_and_errors_are_no_markup(nas, folder, add, end):
    with Store.open(URL) as store:
        study = store.create_study("x", {"corpus": {"source": "<b>"}}, 0, 3e9, ["bits_per_byte"])
        one = add(store, study, FFNSpec(d_ff=64))
        end(store, one, bits=2.0)
        two = add(store, study, FFNSpec(d_ff=128, expert_width=32, selection=TopK()))
        error = "<script>alert(1)</script> https://me:word@host/x"
        end(store, two, Status.FAILED, error=error)
    page = written(nas, "x")
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page
    assert "word" not in page.partition("host/x")[0][-40:]


def test_an_empty_study_has_a_page(nas, folder):
    with Store.open(URL) as store:
        store.create_study("empty", {}, 0, 3e9, ["bits_per_byte", "active_flops"])
    text = " ".join(Words(written(nas)).words)
    assert "No design has reached the top rung" in text and "Nothing failed." in text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (".", "cannot write the report to .: it is no regular file"),
        ("none/r.html", "cannot write the report to none/r.html: No such file or directory"),
        ("nas.db/r.html", "cannot write the report to nas.db/r.html"),
        ("x" * 300, "File name too long"),
        ("/dev/null", "it is no regular file"),
    ],
)
def test_a_place_that_cannot_be_written_is_a_line(nas, filled, path, said):
    before = sorted(os.listdir())
    assert said in the_error(nas("report", "--html", path))
    assert sorted(os.listdir()) == before


def test_bad_input_is_a_line(nas, filled):
    assert "did you mean 'first'?" in the_error(nas("report", "frist", "--html", "r.html"))
    assert "Missing option '--html'" in the_error(nas("report"))


def test_a_file_is_replaced_whole_and_a_link_stays_one(nas, filled):
    Path("old.html").write_text("old")
    Path("report.html").symlink_to("old.html")
    page = written(nas)
    assert Path("report.html").is_symlink()
    assert Path("old.html").read_text(encoding="utf-8") == page
    assert not list(Path().glob(".*draft"))
