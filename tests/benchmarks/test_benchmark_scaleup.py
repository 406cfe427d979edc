"""The benchmark of scaled winners: whom it compares, and that it trains nothing twice."""

from __future__ import annotations

import pytest

from benchmarks import scaleup
from benchmarks.scaleup import Plan, dense_beside, rows
from search_space.backbone import Backbone
from search_space.contract import Recipe
from search_space.corpus import CorpusSpec
from search_space.cost import ffn_cost
from search_space.errors import InputError

pytestmark = pytest.mark.slow

TOY = Backbone(d_model=16, n_layers=2, n_heads=2, vocab_size=300, seq_len=32)


@pytest.mark.parametrize("preset", ["olmoe", "dsmoe", "peer_middle", "vanilla_m"])
def test_the_dense_design_costs_a_token_what_the_winner_does(preset):
    for backbone, winner, _ in Plan(preset=preset).sizes():
        ours, theirs = (
            ffn_cost(spec, backbone.d_model).active_flops
            for spec in (winner, dense_beside(winner, backbone))
        )
        assert theirs == pytest.approx(ours, rel=0.01)


def test_a_toy_size_gives_the_table_and_goes_on_from_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("FFN_NAS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("".join(f"line {n} of {n * n}\n" for n in range(20_000)))
    plan = Plan(
        preset="switch",
        small=TOY,
        large={"d_model": 32},
        flops=1e8,
        times=2.0,
        seeds=(0, 1),
        eval_tokens=512,
        recipe=Recipe(batch_size=4, precision="float32"),
    )
    text = CorpusSpec(source=str(tmp_path / "text.txt"))
    found = list(rows(plan, text, tmp_path / "runs"))
    names = [row.name for row in found]
    assert [name for name in names if name.endswith("winner less dense")] == [
        "d 16, winner less dense",
        "d 32, winner less dense",
    ]
    assert any(str(row.value).endswith("the dense design") for row in found)

    def again(*arguments):
        raise AssertionError("it trains again")

    monkeypatch.setattr(scaleup, "evaluate", again)
    assert list(rows(plan, text, tmp_path / "runs")) == found


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="none is named 'olmo'; did you mean 'olmoe'"):
        Plan(preset="olmo")
    with pytest.raises(InputError, match="flops must pay for one step"):
        Plan(preset="olmoe", flops=1.0)
