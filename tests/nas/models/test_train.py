"""`nas train` trains as a study does, goes on exactly where it was, and leaves a model."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from model_tools import BACKBONE, DENSE, EVAL_TOKENS, TOPK, write_model
from patience import WAIT_S
from safetensors.torch import load_file
from train_tools import RECIPE, STEP, command, the_line

import search_space.rates as rule
from nas.command.cli import run
from nas.models.order import Order
from nas.models.train import train_model
from search_space.contract import EvalRequest
from search_space.corpus import CorpusSpec
from search_space.cost import step_flops
from search_space.errors import WorkFailed
from search_space.methods.hash import Hash
from search_space.places import corpora_dir
from search_space.spec import FFNSpec
from workers.corpus import prepare
from workers.evaluate import evaluate
from workers.layers.hash import balanced_tables

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


class Killed(BaseException):
    """The end of a process, for which nobody cleans up."""


@pytest.fixture(scope="module")
def order(small, start, tmp_path_factory):
    """Eight steps, as the trial had."""
    return Order(
        source=start,
        corpus=CorpusSpec(source=str(small.source)),
        flops=8 * STEP,
        out=tmp_path_factory.mktemp("trained") / "model",
        recipe=RECIPE,
        threads=1,
        keep_seconds=1e9,
        eval_tokens=EVAL_TOKENS,
        verify=False,
    )


def trained(order, listen=lambda point: None, **changes):
    """What came of it, and what was noted."""
    notes = []
    result = train_model(dataclasses.replace(order, **changes), notes.append, listen)
    return SimpleNamespace(notes=notes, **result)


def log_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "training/log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def same_model(a: Path, b: Path) -> bool:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (a, b))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


@pytest.fixture(scope="module")
def whole(order):
    """Trained at once, and checked in a fresh process."""
    return trained(order, verify=True)


def test_it_is_the_studys_own_training(small, whole, order):
    assert (whole.steps, whole.flops) == (small.result.steps, small.result.flops)
    assert whole.bits_per_byte == pytest.approx(small.result.bits_per_byte, rel=1e-7)
    assert whole.bits_per_byte_se == pytest.approx(small.result.bits_per_byte_se, rel=1e-6)
    assert whole.active_flops == small.result.active_flops
    assert whole.bits_per_byte < whole.bits_per_byte_before - 0.1
    assert len(log_of(order.out)) == 8


def test_it_leaves_a_model_with_its_tokenizer_and_a_card(whole, order, start):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(order.out, trust_remote_code=True)
    assert model.config.spec == TOPK.to_dict()
    ids = AutoTokenizer.from_pretrained(order.out)("def add")["input_ids"]
    assert ids == AutoTokenizer.from_pretrained(start)("def add")["input_ids"]
    card = (order.out / "README.md").read_text()
    assert f"after | {whole.bits_per_byte:.4f} ± {whole.bits_per_byte_se:.4f} |" in card
    assert f"before | {whole.bits_per_byte_before:.4f} ± " in card
    assert '"batch_size": 4' in card and "text.txt" in card
    names = {path.name for path in (order.out / "training").iterdir()}
    trunk = {name for name in names if name.startswith("step-")}
    assert len(trunk) == 2 and names - trunk == {"lock", "log.jsonl", "request.json", "result.json"}


@pytest.mark.parametrize("steps", [(3,), (7,), (2, 6)], ids=str)
def test_a_killed_training_goes_on_to_the_bit(whole, order, tmp_path, steps):
    """On the trunk, on the branch, and both."""
    out = tmp_path / "model"
    for last in steps:

        def listen(point, last=last):
            if point.step == last + 1:  # one step beyond the last state
                raise Killed

        with pytest.raises(Killed):
            trained(order, listen, out=out, keep_seconds=0.0)
        assert not (out / "config.json").exists()
        drop_newest(out / "training", last)
    done = trained(order, out=out)
    assert f"going on from step {steps[-1]}" in done.notes
    assert same_model(out, order.out)
    assert log_of(out) == log_of(order.out)
    assert done.bits_per_byte == whole.bits_per_byte


def drop_newest(place: Path, last: int) -> None:
    """Remove states beyond a step: those which a slower disk would not have had."""
    for path in place.rglob("step-*"):
        if int(path.stem.removeprefix("step-")) > last:
            path.unlink()


def test_more_flops_go_on_from_the_trunk_at_the_first_rates(
    small, whole, order, tmp_path, monkeypatch
):
    # Else the rule gives all runs as short as these the same rates.
    monkeypatch.setitem(rule.RANGES, "tokens", (1, 10**9))
    out = tmp_path / "model"
    # The tokenizer may be there by itself, too, in a folder.
    source = shutil.copytree(order.source, tmp_path / "source")
    (source / "tokenizer").mkdir(exist_ok=True)
    for name in TOKENIZER:
        shutil.copyfile(source / name, source / "tokenizer" / name)
    trained(order, out=out, source=source)
    more = trained(order, out=out, source=source, flops=16 * STEP)
    assert {path.name for path in (out / "tokenizer").iterdir()} == TOKENIZER
    assert "going on from step 5" in more.notes
    request = EvalRequest(
        evaluation=0,
        spec=TOPK,
        backbone=BACKBONE,
        recipe=RECIPE,
        corpus_dir=str(small.corpus.dir),
        until_flops=16 * STEP,
        run_flops=8 * STEP,
        eval_tokens=EVAL_TOKENS,
    )
    at_once = evaluate(request, lambda point: None)
    assert more.steps == at_once.steps == 16
    assert more.bits_per_byte == pytest.approx(at_once.bits_per_byte, rel=1e-7)
    assert more.bits_per_byte_before == whole.bits_per_byte_before
    recipe = json.loads((out / "training/request.json").read_text())["identity"]["recipe"]
    assert recipe["lr"] == RECIPE.rates(TOPK, BACKBONE, 8 * STEP).lr
    assert recipe["lr"] > RECIPE.rates(TOPK, BACKBONE, 16 * STEP).lr


def test_the_same_again_trains_nothing(whole, order):
    def listen(point):
        raise AssertionError("it trains")

    again = trained(order, listen)
    assert again.bits_per_byte == whole.bits_per_byte
    assert "trained to" in again.notes[-1]


def test_a_trained_model_goes_on_from_its_weights_and_its_layers_states(whole, order, tmp_path):
    """Not as a run that begins: its balancing biases stay."""
    out = tmp_path / "model"
    seen = []

    def listen(point):
        seen.append(point.loss)

    on = trained(order, listen, source=order.out, out=out)
    assert on.bits_per_byte_before == whole.bits_per_byte
    assert on.bits_per_byte < whole.bits_per_byte
    assert seen[0] < log_of(order.out)[0]["loss"] - 0.2
    bias = [t for n, t in load_file(order.out / "model.safetensors").items() if "bias_B" in n]
    assert any(bool(t.any()) for t in bias)


def test_a_batch_may_be_read_in_parts(order, tmp_path):
    write_model(tmp_path / "dense", DENSE)
    for out, size in (("whole", 0), ("parts", 1)):
        trained(order, source=tmp_path / "dense", out=tmp_path / out, micro_batch=size)
    whole, parts = ([line["loss"] for line in log_of(tmp_path / out)] for out in ("whole", "parts"))
    assert parts == pytest.approx(whole, rel=1e-6) and parts != whole


def test_hash_tables_are_filled_once_by_the_first_text(order, tmp_path, small):
    spec = FFNSpec(d_ff=128, expert_width=32, selection=Hash(k=1))
    write_model(tmp_path / "new", spec)
    other = tmp_path / "other.txt"
    other.write_text("".join(f"{n}: one of {n * n} others\n" for n in range(9000)))
    wanted = {"flops": 2.5 * step_flops(spec, BACKBONE, 4), "eval_tokens": 64}
    trained(order, source=tmp_path / "new", out=tmp_path / "first", **wanted)
    text = CorpusSpec(source=str(other))
    trained(order, source=tmp_path / "first", out=tmp_path / "second", corpus=text, **wanted)
    new, first, second = (
        [t for n, t in load_file(tmp_path / f / "model.safetensors").items() if "table_KV" in n]
        for f in ("new", "first", "second")
    )
    assert not torch.equal(new[0], first[0])
    assert all(map(torch.equal, first, second))
    text = CorpusSpec(source=str(small.source), tokenizer=str(tmp_path / "new"))
    counts = torch.from_numpy(prepare(text, 300, 32, corpora_dir()).token_counts)
    assert torch.equal(first[0], balanced_tables(1, counts, 4, spec.selection.seed))


def test_a_disk_that_fills_keeps_the_training_and_the_same_command_writes_it(
    whole, order, tmp_path, monkeypatch
):
    from transformers import PreTrainedModel

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    out = tmp_path / "model"
    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", full)
        with pytest.raises(WorkFailed, match=r"could not be written.*the same command writes it"):
            trained(order, out=out)
    assert [path.name for path in out.iterdir()] == ["training"]
    points = []
    trained(order, points.append, out=out)
    assert points == [] and same_model(out, order.out)


def test_a_tracker_hears_each_point_and_the_end(order, tmp_path, monkeypatch):
    seen = []

    class Run:
        def log(self, numbers, step):
            seen.append((step, set(numbers)))

        def finish(self):
            seen.append("finished")

    begun = []
    fake = SimpleNamespace(init=lambda **options: begun.append(options) or Run())
    monkeypatch.setitem(sys.modules, "wandb", fake)
    trained(order, out=tmp_path / "model", trackers=("wandb",))
    assert begun[0]["config"]["batch_size"] == 4
    assert seen[-1] == "finished" and seen[-2][0] == 8
    assert {"loss", "flops", "lr"} <= seen[-2][1]


def test_a_signal_keeps_a_state_and_a_kill_loses_little(small, whole, order, tmp_path):
    out, log = tmp_path / "model", tmp_path / "model/training/log.jsonl"
    arguments = ["train", str(order.source), "--corpus", str(small.source), "--to", str(out)]
    arguments += ["--flops", repr(800 * STEP), "--recipe", "batch_size=4,precision=float32"]
    arguments += ["--threads", "1", "--eval-tokens", str(EVAL_TOKENS), "--keep-every"]
    command = [sys.executable, "-m", "nas", *arguments]

    def begun(keep, lines):
        process = subprocess.Popen([*command, keep], stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + WAIT_S
        while not (log.exists() and len(log.read_text().splitlines()) >= lines):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        return process

    process = begun("1000", 2)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert "the same command goes on from there" in told.splitlines()[-1]
    (kept,) = (out / "training").glob("step-*.json")
    lines = len(log.read_text().splitlines())
    process = begun("0", lines + 2)
    process.kill()
    process.communicate()
    assert not list(out.glob("config.json"))
    newest = max(int(path.stem.removeprefix("step-")) for path in kept.parent.glob("step-*.json"))
    assert newest > int(kept.stem.removeprefix("step-"))
    assert os.path.isfile(out / "training/request.json")


WRONG = {
    "another seed": (["--seed", "1"], "holds another training, which has seed 0 and not 1"),
    "another recipe": (["--recipe", "batch_size=2"], "has batch_size 4 and not 2"),
    "fewer FLOPs": (["--flops", repr(4 * STEP)], "is trained to"),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_request_in_the_same_folder_is_refused(small, whole, order, capsys, name):
    options, words = WRONG[name]
    before = {path: path.stat().st_mtime_ns for path in order.out.rglob("*")}
    assert run(command(small, order.source, order.out, *options)) == 2
    assert words in the_line(capsys)
    assert before == {path: path.stat().st_mtime_ns for path in order.out.rglob("*")}


def test_two_trainings_of_one_folder_do_not_meet(small, start, tmp_path, capsys, order):
    out = tmp_path / "model"
    codes = []

    def listen(point):
        if point.step == 2:
            codes.append(run(command(small, start, out)))

    trained(order, listen, out=out)
    assert codes == [2]
    assert "is being trained by another process" in capsys.readouterr().err
