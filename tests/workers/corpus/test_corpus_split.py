"""Splits: shares, determinism, no document in two splits."""

import random

import pytest

from workers.corpus.split import SECTION_BYTES, SPLITS, _sections, deal, split_documents


def documents(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"document {i}\n" + "word é " * rng.randint(1, 200) for i in range(n)]


def size(texts: list[str]) -> int:
    return sum(len(t.encode()) for t in texts)


@pytest.mark.parametrize(("validation", "test"), [(0.05, 0.05), (0.1, 0.2), (0.02, 0.4)])
def test_shares_are_met_and_nothing_is_lost(validation, test):
    given = documents(400)
    splits = split_documents(given, validation, test)
    assert sorted(t for s in SPLITS for t in splits[s]) == sorted(given)
    assert size(splits["validation"]) / size(given) == pytest.approx(validation, abs=0.005)
    assert size(splits["test"]) / size(given) == pytest.approx(test, abs=0.005)


def test_the_split_depends_on_content_alone():
    given = documents(300)
    shuffled = random.Random(1).sample(given, len(given))
    first, second = split_documents(given, 0.1, 0.1), split_documents(shuffled, 0.1, 0.1)
    assert {s: sorted(first[s]) for s in SPLITS} == {s: sorted(second[s]) for s in SPLITS}


def test_a_split_keeps_the_order_of_the_corpus():
    given = documents(300)
    for texts in split_documents(given, 0.1, 0.1).values():
        assert texts == sorted(texts, key=given.index)


def test_equal_documents_share_a_split():
    given = documents(100) * 3
    splits = split_documents(given, 0.2, 0.2)
    assert all(splits[s] for s in SPLITS)
    for one in SPLITS:
        for other in set(SPLITS) - {one}:
            assert not set(splits[one]) & set(splits[other])


def test_no_single_document_makes_a_held_out_split():
    giants = [f"giant {i} " + "x" * 60_000 for i in range(20)]
    given = documents(1000) + giants
    splits = split_documents(given, 0.1, 0.1)
    assert set(giants) <= set(splits["train"])


def test_equal_sizes_fill_a_small_share():
    given = [f"{i:06d}" * 50 for i in range(200)]
    splits = split_documents(given, 0.01, 0.01)
    assert [len(splits[s]) for s in SPLITS] == [196, 2, 2]


def together(splits: dict[str, list[str]]) -> list[str]:
    return [text for name in SPLITS for text in splits[name]]


def test_many_documents_stay_whole():
    given = documents(200)
    splits, unit = deal(given, 0.05, 0.05)
    assert unit == "document" and sorted(together(splits)) == sorted(given)


def test_a_giant_among_many_documents_leaves_no_split_empty():
    given = [f"{i} the cat sat on a mat\n" for i in range(300)] + ["".join(documents(4000))]
    assert not split_documents(given, 0.05, 0.05)["validation"]
    splits, unit = deal(given, 0.05, 0.05)
    assert unit == "section" and all(splits.values())
    assert size(together(splits)) == size(given)


@pytest.mark.parametrize(
    ("length", "expected"), [(20_000, 1024), (400_000, 2000), (8_000_000, SECTION_BYTES)]
)
def test_few_documents_are_cut_at_line_ends(length, expected):
    lines = (f"line {i} of the book\n" for i in range(length // 20))
    text = "".join(lines)
    books = [text[: len(text) // 2], text[len(text) // 2 :]]
    splits, unit = deal(books, 0.05, 0.05)
    sections = together(splits)
    assert unit == "section" and size(sections) == size(books)
    assert sum(s.endswith("\n") for s in sections) >= len(sections) - 1
    assert all(expected / 2 <= len(s) <= 1.6 * expected for s in sections)


def test_text_without_line_ends_is_cut_too():
    sections = _sections("é" * 100_000, 1024)
    assert "".join(sections) == "é" * 100_000
    assert max(map(len, sections)) <= 4 * 1024 + 512


def test_a_small_corpus_holds_out_its_shortest_document():
    # Every document is longer than the mean share that a held-out split may take of one.
    documents = [chr(97 + i) * (1000 + 10 * i) for i in range(12)]
    splits = split_documents(documents, validation=0.05, test=0.05)
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [10, 1, 1]
    assert not split_documents(documents, validation=1e-6, test=0.05)["validation"]
