"""One design as a picture and as text, its experts' load, and designs side by side."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
import yaml

from dashboard.data.compared import differences, sides
from dashboard.data.detail import (
    cost_frame,
    evaluations_of,
    outcome_frame,
    routing,
    routing_frame,
    runs_frame,
    spec_frame,
    spec_text,
)
from dashboard.data.headline import headline
from dashboard.data.source import Source
from dashboard.figures.forest import forest
from dashboard.figures.layer import description, layer_picture
from dashboard.figures.load import MOST_COLUMNS, activity, load_map
from nas.store import Store, StudyState, TrialRecord
from nas.warm_start import read_warm_start
from search_space.backbone import Backbone
from search_space.contract import EvalResult, Status
from search_space.errors import InputError
from search_space.methods.topk import TopK
from search_space.presets import PRESETS
from search_space.spec import FFNSpec

BACKBONE = Backbone(d_model=64, n_layers=4, n_heads=4, vocab_size=1024, reference_d_ff=256)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_drawn_and_copied(name: str) -> None:
    spec = PRESETS[name](BACKBONE)
    picture = layer_picture(spec, BACKBONE)
    root = ElementTree.fromstring(picture.svg)
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert spec.label in texts and "RMSNorm" in texts
    assert root.get("role") == "img" and root.get("aria-label") == picture.words
    copied = yaml.safe_load(spec_text(spec))["warm_start"]
    assert [read_warm_start(item, "pretrain") for item in copied] == [spec]


def test_a_picture_says_what_is_shared_and_which_layers_have_it() -> None:
    spec = FFNSpec(
        d_ff=512, depth=2, expert_width=32, shared_width=64, gated=True,
        placement="alternate", selection=TopK(k=2, normalize=True),
    )  # fmt: skip
    words = description(spec, BACKBONE)
    for part in (
        "2 of 4 layers",
        "2 sub-layers in sequence",
        "the k experts of the largest gates",
        "8 experts of 32 hidden units each, gelu, gated; a token reads 2",
        "a shared FFN of 32 hidden units",
    ):
        assert part in words
    texts = layer_picture(spec, BACKBONE).svg
    assert "layer 1" in texts and "0: reference" in texts and "layer 0" not in texts
    alone = description(FFNSpec(d_ff=64), BACKBONE)
    assert "1 expert of 64 hidden units, gelu; every token reads it" in alone


def noted(**layers: object) -> TrialRecord:
    spec = FFNSpec(d_ff=512, expert_width=64, selection=TopK(k=2, normalize=True))
    result = EvalResult(evaluation=1, status=Status.FINISHED, stats={"routing": layers})
    more = {"params": {}, "source": "x", "cost": {"active_flops": 9e5, "odd": 1.0}}
    times = {"created_at": datetime.now(UTC)}
    return TrialRecord(
        id=1, study_id=1, number=0, spec=spec, key=spec.key, status=Status.FINISHED,
        result=result, active_flops=7e5, **more, **times,
    )  # fmt: skip


def test_load_is_a_share_of_an_even_share_and_nonsense_is_left_out() -> None:
    said = {"load": [0.5, 0.5, 0.0, 0.0], "active": 0.25, "usage": 0.5, "unevenness": 0.7}
    more = {"load": [0.25] * 4, "active": float("nan"), "usage": "all"}
    trial = noted(**{"lm.layers.3.mlp": said, "layers.0.ffn.layers.1": more, "head": 3, "x": {}})
    found = routing(trial)
    assert [each.name for each in found] == ["layer 0, sub-layer 1", "layer 3"]
    assert (found[0].active, found[0].usage, found[1].near_zero) == (None, None, None)
    heat = load_map(found)["data"][0]
    assert heat["z"] == [[1.0] * 4, [2.0, 2.0, 0.0, 0.0]]
    assert routing_frame(found)["usage"].tolist()[1] == 0.5
    assert routing(noted()) == []
    costs = cost_frame(trial)
    assert costs.values.tolist() == [["Active FLOPs a token in inference", "900k", "700k"]]


def test_of_very_many_experts_neighbours_share_a_column() -> None:
    trial = noted(**{"layers.0.ffn": {"load": [1 / 4096] * 4096}})
    figure = load_map(routing(trial))
    heat = figure["data"][0]
    assert len(heat["z"][0]) == MOST_COLUMNS and heat["z"][0] == pytest.approx([1.0] * 128)
    assert "32 to a column" in figure["layout"]["xaxis"]["title"]["text"]


def test_activity_is_a_bar_a_layer_beside_what_was_counted() -> None:
    figure = activity([0.33, 0.14], ["1", "3"], 0.5)
    assert (figure["data"][0]["x"], figure["data"][0]["y"]) == (["1", "3"], [0.33, 0.14])
    assert figure["layout"]["shapes"][0]["y0"] == 0.5
    assert "shapes" not in activity([1.0], ["0"], 1.0)["layout"]


@pytest.mark.slow
def test_a_trial_of_several_rungs_and_seeds_in_frames(url: str, fill_with_rungs) -> None:
    with Store.open(url) as store:
        fill_with_rungs(store, "demo")
    source = Source(url)
    reading = source.reading("demo")
    own = runs_frame(reading, 0)
    assert own["seed"].tolist() == [0, 0, 0, 1] and own["rung"].tolist() == [0, 1, 2, 2]
    assert own["until_flops"].tolist() == [1e12, 3e12, 9e12, 9e12]
    assert own["bits_per_byte"].tolist() == [3.0, 2.5, 2.1, 2.3]
    assert set(own["status"]) == {"finished"} and set(own["attempt"]) == {1}
    records = evaluations_of(reading, 4)
    assert [(each.status, each.bits_per_byte) for each in records] == [
        (Status.FINISHED, 3.2),
        (Status.DIVERGED, None),
    ]
    trial = source.trial(reading.study.id, 0)
    outcome = dict(outcome_frame(reading, trial).itertuples(index=False))
    assert (outcome["rung"], outcome["seeds"]) == ("2 of 0 to 2", "2")
    assert outcome["Bits per byte"] == "2.2000"
    assert outcome["± one standard error"] == "0.1000"
    assert outcome["Deviation of one seed"] == "0.1414"
    assert outcome["Probability of being on the frontier"] == "1.00"
    head = headline(reading)
    assert (head.finished, head.paused, head.running, head.failed) == (2, 1, 1, 1)
    assert (head.best, head.best_seeds, head.frontier) == (pytest.approx(2.2), 2, 1)
    deviation = (0.2**2 / 2) ** 0.5  # of 2.1 and 2.3
    assert head.best_noise == pytest.approx(deviation / 2**0.5)


@pytest.mark.slow
def test_a_finished_study_in_numbers_and_its_designs_side_by_side(url: str, fill) -> None:
    with Store.open(url) as store:
        fill(store, "demo", StudyState.RUNNING)
        store.create_study("new", {}, 0, 1e12, ["bits_per_byte", "active_flops"])
    source = Source(url)
    reading = source.reading("demo")
    head = headline(reading)
    assert (head.spent, head.budget, head.frontier) == (4e12, 1e13, 2)
    assert (head.best, head.best_noise, head.ngram) == (2.0, 0.01, ("5", 1.9))
    # Against the worst values (2.4, 9e5), the two frontier boxes overlap in one corner.
    quality, cost = (2.0 / 2.4, 2.2 / 2.4), (8 / 9, 2 / 9)
    both = (1 - quality[0]) * (1 - cost[0]) + (1 - quality[1]) * (1 - cost[1])
    assert head.hypervolume == pytest.approx(both - (1 - quality[1]) * (1 - cost[0]))
    empty = headline(source.reading("new"))
    assert (empty.finished, empty.best, empty.hypervolume) == (0, None, 0.0)

    trial = source.trial(reading.study.id, 1)
    shown = dict(spec_frame(reading.study, trial.spec).itertuples(index=False))
    knobs = {f"· {name}" for name in trial.spec.to_dict()["selection"]} - {"· method"}
    assert knobs < set(shown) and shown["native form"].startswith("none: its experts are plain")
    assert (shown["selection"], shown["· k"], shown["gated"]) == ("topk", "8", "no")

    found = sides(reading, source, [1, 2, 4])
    table = differences(found, "knobs").set_index("what")
    assert table.loc["method"].tolist() == ["≠", "topk", "hash", "dense"]
    assert table.loc["gated"].tolist() == ["", "no", "no", "no"]
    assert table.loc["· balanced"].tolist() == ["≠", "-", "yes", "-"]
    figures = differences(found, "figures").set_index("what")
    assert figures.loc["Bits per byte"].tolist() == ["≠", "2.0000 ± 0.0100", "2.2000 ± 0.0100", "-"]

    compared = source.compare("demo", 2, 1)
    marks = forest([compared])["data"][0]
    assert marks["x"] == [pytest.approx(0.2)] and marks["customdata"] == [[2]]
    low, high = marks["error_x"]["arrayminus"][0], marks["error_x"]["array"][0]
    assert (0.2 - low, 0.2 + high) == pytest.approx(compared.interval)
    assert marks["marker"]["symbol"] == ["square" if compared.differ else "square-open"]
    with pytest.raises(InputError, match="was not measured"):
        source.compare("demo", 4, 1)
