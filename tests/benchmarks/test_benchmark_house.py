"""The counts of the house: each finds what it is for, and all bars hold on this tree."""

from __future__ import annotations

import pytest
from depth import LONG

from benchmarks import house

TEN = "\n".join(f"    x{i} = {i}" for i in range(house.TWIN))


def test_a_circle_is_found_through_an_import_for_types_alone():
    late = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nas import a\n"
    ring = house.circle(house.import_graph({"nas/a.py": "import nas.b\n", "nas/b.py": late}))
    assert set(ring) == {"nas.a", "nas.b"}


def test_what_is_too_long_or_has_no_docstring_is_named():
    lines = "\n".join("    x = 1" for _ in range(house.LONG_FUNCTION))
    text = f"def f():\n{lines}\n" + "\n" * house.LONG_FILE
    assert list(house.long_functions({"a.py": text})) == ["a.py: f has 61"]
    assert list(house.long_files({"a.py": text})) == [f"a.py has {text.count(chr(10))}"]
    assert list(house.undocumented({"a.py": text})) == ["a.py: f"]


def test_only_a_named_pair_is_excused(monkeypatch):
    texts = {"a.py": f"def f():\n{TEN}\n", "b.py": f"def g():\n{TEN}\n    return 1\n"}
    shared = house.twins(texts)
    assert shared == {frozenset(("a.py", "b.py")): house.TWIN}
    assert [row.holds for row in house._twin_rows(shared)] == [False, True, True]
    monkeypatch.setattr(house, "EXCUSED", {frozenset(("a.py", "b.py")): "as in a law"})
    free, excused, told = house._twin_rows(shared)
    assert free.holds and excused.value == 1 and "as in a law" in told.name


def test_a_file_can_be_its_own_twin():
    text = f"def f():\n{TEN}\n\n\ndef g():\n{TEN}\n"
    assert house.twins({"a.py": text}) == {frozenset(("a.py",)): house.TWIN}


@LONG
@pytest.mark.slow
def test_this_tree_keeps_every_bar():
    assert [row.name for row in house.rows() if not row.holds] == []
