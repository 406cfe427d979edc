"""What an export is checked on and says of itself: losses, parameters, the study, the frontier."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest
import torch
from test_export import BACKBONE, SPECS, corpus, trained  # noqa: F401 (corpus is a fixture)
from transformers import AutoModelForCausalLM

from nas.models.export import export_trial
from nas.models.found import Point, found
from nas.models.picture import frontier_svg
from nas.models.verify import Checked, check
from nas.models.windows import windows_of
from nas.store import Store
from search_space.errors import WorkFailed

pytestmark = pytest.mark.slow

POINTS = (
    Point(3, 2.0, 1e5, True),
    Point(1, 2.1, 1.5e5, False),
    Point(0, 1.9, 2e5, True),
    Point(2, 1.8, 4e5, True),
)


@pytest.fixture(scope="module")
def case(corpus, tmp_path_factory):  # noqa: F811
    """A trained routed design, and what its study has of it."""
    folder = tmp_path_factory.mktemp("study")
    checkpoint, study, trial = trained(corpus, SPECS["topk"], folder)
    config = {"backbone": BACKBONE.to_dict(), "eval_tokens": 512}
    study = dataclasses.replace(study, config=config, deviation=0.004)
    with Store.open(f"sqlite:///{folder}/nas.db") as store:
        known = found(store, study, trial)
    assert [point.number for point in known.points] == [0]
    assert (known.seeds, known.mean) == (1, trial.bits_per_byte)
    return checkpoint, study, trial, dataclasses.replace(known, points=POINTS, seeds=3)


def exported(case, folder, **options):
    checkpoint, study, trial, known = case
    return export_trial(checkpoint, study, trial, folder, **{"known": known} | options)


def test_the_loss_on_windows_is_the_runs(case, tmp_path):
    card = (exported(case, tmp_path / "model") / "README.md").read_text()
    assert "the loss on 16 validation windows differs from the run's by" in card
    assert f"{case[2].cost['total_params']:,.0f} parameters; " in card
    assert "FLOPs a token of a short sequence, as torch counts them and the record's" in card


@pytest.mark.parametrize(
    ("found", "parameters", "words"),
    [
        ({"loss_error": 0.01}, None, "differs from the trained proxy"),
        ({"logits_error": 0.01}, None, "differs from the trained proxy"),
        ({"cached_equals_uncached": False}, None, "differs from the trained proxy"),
        ({}, 101.0, "100 parameters, the trained proxy 101"),
        ({"half": True, "loss_error": 0.05}, None, "differs from the trained proxy"),
        ({"flops": 1020.0}, None, "computes 1,020 FLOPs a token, the trained proxy 1,000"),
        ({"half": True, "flops": 900.0}, None, "computes 900 FLOPs a token"),
    ],
)
def test_what_differs_is_no_export(found, parameters, words):
    same = {"logits_error": 1e-6, "loss_error": 1e-6, "cached_equals_uncached": True}
    answer = same | {"parameters": 100, "half": False, "flops": 1e3, "expected_flops": 1e3}
    check(answer, 100.0)
    check(answer | {"loss_error": None}, None)
    check(answer | {"half": True, "logits_error": 0.01}, None)
    check(answer | {"half": True, "flops": 960.0}, None)
    check(answer | {"flops": 4e3}, None, exact=False)
    with pytest.raises(WorkFailed, match=words):
        check(answer | found, parameters)


def test_flops_that_a_class_computes_otherwise_are_told():
    checked = Checked(0.0, None, 0, 100, 3e3, 1e3)
    assert "3,000 FLOPs a token" in checked.words and "3.00 times the 1,000" in checked.words
    assert "times" not in dataclasses.replace(checked, flops=1e3).words


def test_the_windows_are_those_that_the_run_was_measured_on(case):
    _, study, _, known = case
    windows = windows_of(study, known.run)
    assert windows.nats == list(known.run.windows)
    assert windows.inputs.shape == windows.targets.shape == (16, BACKBONE.seq_len)


def test_windows_of_another_text_or_none_are_not_compared(case, tmp_path):
    _, study, _, known = case
    assert windows_of(study, None) is None
    other = dataclasses.replace(study.facts.corpus, hash="0" * 32)
    for facts in (
        dataclasses.replace(study.facts, corpus=other),
        dataclasses.replace(study.facts, corpus_dir=str(tmp_path / "none")),
        dataclasses.replace(study.facts, corpus_dir=str(tmp_path)),
    ):
        assert windows_of(dataclasses.replace(study, facts=facts), known.run) is None
    fewer = dataclasses.replace(known.run, windows=known.run.windows[:-1])
    assert windows_of(study, fewer) is None


def test_the_card_says_how_sure_the_study_is(case, tmp_path):
    _, study, _, known = case
    card = (exported(case, tmp_path / "model", verify=False) / "README.md").read_text()
    assert f"| mean of 3 seeds | {known.mean:.4f} ± 0.0023 over seeds |" in card
    assert f"({study.uid})" in card
    assert f"({study.facts.corpus.hash})" in card
    assert "Not checked in a fresh process." in card
    assert "## Limits" in card


def test_half_precision_is_half_the_size_and_nearly_the_same(case, tmp_path):
    whole = exported(case, tmp_path / "float32", verify=False)
    half = exported(case, tmp_path / "bfloat16", dtype="bfloat16")
    sizes = [(f / "model.safetensors").stat().st_size for f in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    model = AutoModelForCausalLM.from_pretrained(half, trust_remote_code=True)
    assert model.dtype == torch.bfloat16
    assert all(b.dtype == torch.float32 for n, b in model.named_buffers() if n.endswith("bias_B"))


def test_the_picture_shows_every_design_and_rings_one():
    root = ElementTree.fromstring(frontier_svg(POINTS, 0, "a < b & c"))
    tag = "{http://www.w3.org/2000/svg}"
    circles = root.findall(f"{tag}circle")
    dots = [c for c in circles if c.get("r") == "4"]
    (ring,) = (c for c in circles if c.get("fill") == "none")
    titles = [c.find(f"{tag}title").text for c in dots]
    assert [t.split(":")[0] for t in titles] == [f"trial {p.number}" for p in POINTS]
    chosen = dots[titles.index("trial 0: 1.9000 at 2e+05")]
    assert (ring.get("cx"), ring.get("cy")) == (chosen.get("cx"), chosen.get("cy"))
    xs = [float(c.get("cx")) for c in dots]
    assert xs == sorted(xs)
    # The frontier falls in steps: across at the height of the cheaper design, then down.
    line = [p.split(",") for p in root.find(f"{tag}polyline").get("points").split()]
    assert len(line) == 5
    assert line[0][1] == line[1][1]
    assert line[1][0] == line[2][0]


def test_one_design_alone_has_a_picture_too():
    root = ElementTree.fromstring(frontier_svg(POINTS[:1], 3, "one"))
    assert len(root.findall("{http://www.w3.org/2000/svg}circle")) == 2  # the design and its ring
