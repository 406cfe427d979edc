"""Weights belong to their trial: whatever else lies in their place is refused."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from depth import LONG

import nas
from benchmarks.simulated_pool import SimulatedPool
from nas.models.checkpoints import (
    discard_states,
    find_checkpoint,
    folder_name,
    kept_runs,
    run_folder,
    sweep_drafts,
)
from nas.store import Facts, Store
from search_space.errors import InputError
from search_space.methods.topk import TopK
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow

BACKBONE = {"d_model": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 300, "seq_len": 32}
TEXT = "".join(f"def add_{n}(a, b):\n    return a + b + {n * n}\n\n" for n in range(4000))
DENSE, ROUTED = FFNSpec(d_ff=64), FFNSpec(d_ff=128, expert_width=32, selection=TopK())
DATA = Path(__file__).parents[1] / "data"


class HerePool(SimulatedPool):
    """Prepares corpora and trains in this process."""

    def __init__(self):
        super().__init__(1, self._train)

    @staticmethod
    def _train(request):
        from workers.evaluate import evaluate

        return 1.0, [evaluate(request, lambda progress: None)]

    def prepare(self, spec, vocab_size, seq_len, cache_dir):
        from workers.actor import prepare_corpus

        return prepare_corpus(spec, vocab_size, seq_len, cache_dir)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory with a text and a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FFN_NAS_CACHE", str(tmp_path / "cache"))
    Path("corpus.txt").write_text(TEXT)
    return tmp_path


def launch(db, *specs, seed=0, **budget):
    """A study of these designs in the database `db`, trained here."""
    config = {
        "name": "tiny",
        "seed": seed,
        "backbone": BACKBONE,
        "recipe": {"batch_size": 2},
        "eval_tokens": 256,
        "budget": {"trials": len(specs), "trial_flops": 1e8} | budget,
        "warm_start": [spec.to_dict() for spec in specs],
        "corpus": {"source": str(Path("corpus.txt").absolute())},
    }
    return nas.launch(config, db, pool_factory=lambda config: HerePool())


def checkpoint(study, number=0):
    return find_checkpoint(study.store, study.record, study.store.trial(study.record.id, number))


def exported_spec(study, to, trial=0):
    folder = study.export(to, trial, verify=False)
    return FFNSpec.from_dict(json.loads((folder / "config.json").read_text())["spec"])


def weights_of(folder: Path):
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


def test_two_databases_in_one_folder_keep_their_own_weights():
    first, second = launch("sqlite:///a.db", DENSE), launch("sqlite:///b.db", ROUTED)
    assert first.name == second.name
    assert exported_spec(first, "first") == DENSE
    assert exported_spec(second, "second") == ROUTED


def test_two_databases_with_one_design_and_other_seeds_keep_their_own_weights():
    first = launch("sqlite:///a.db", DENSE)
    before = weights_of(checkpoint(first).weights.parent)
    second = launch("sqlite:///b.db", DENSE, seed=7)
    assert same(weights_of(checkpoint(first).weights.parent), before)
    assert not same(weights_of(checkpoint(second).weights.parent), before)


def test_a_database_made_anew_overwrites_nothing():
    first = launch("sqlite:///nas.db", DENSE)
    kept = checkpoint(first).weights
    before = kept.read_bytes()
    first.store.close()
    Path("nas.db").rename("old.db")
    second = launch("sqlite:///nas.db", ROUTED)
    assert kept.read_bytes() == before
    assert exported_spec(nas.Study.open("tiny", "sqlite:///old.db"), "old") == DENSE
    assert exported_spec(second, "new") == ROUTED


def test_a_moved_and_a_copied_study_export_without_cache_and_text(folder):
    launch("sqlite:///nas.db", DENSE).store.close()
    for name in ("moved", "copied"):
        Path(name).mkdir()
        shutil.copytree("nas-runs", f"{name}/nas-runs")
        shutil.copy("nas.db", name)
    shutil.rmtree("nas-runs")
    shutil.rmtree("cache")
    Path("nas.db").unlink()
    Path("corpus.txt").unlink()
    for name in ("moved", "copied"):
        with nas.Study.open(None, f"sqlite:///{name}/nas.db") as study:
            assert exported_spec(study, f"{name}-model") == DENSE
            assert (folder / f"{name}-model" / "tokenizer.json").is_file()


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%20b", "ä", "a;b&c=d"])
def test_the_weights_lie_beside_a_database_of_any_name(folder, name):
    place = folder / name
    place.mkdir()
    study = launch(f"sqlite:///{str(place).replace('%', '%25').replace('?', '%3F')}/n.db", DENSE)
    assert checkpoint(study).weights.is_relative_to(place / "nas-runs")
    assert {path.name for path in folder.iterdir()} == {name, "cache", "corpus.txt"}


def test_a_link_to_a_database_shares_its_runs(folder):
    Path("real").mkdir()
    launch("sqlite:///real/nas.db", DENSE).store.close()
    Path("link.db").symlink_to("real/nas.db")
    with nas.Study.open(None, "sqlite:///link.db") as study:
        assert checkpoint(study).weights.is_relative_to(folder / "real")


def test_paths_are_stored_relative_to_the_studys_folder(folder):
    study = launch("sqlite:///nas.db", DENSE)
    record = study.records()[0]
    assert record.result.checkpoint == "trial-0"
    stored = [row for row in sqlite3.connect("nas.db").iterdump() if "trial-0" in row]
    assert stored and not any(str(folder) in row for row in stored)
    place = folder / "nas-runs" / folder_name(study.record) / "trial-0"
    assert {path.name for path in place.iterdir()} == {"model.safetensors", "trial.json"}
    assert json.loads((place / "trial.json").read_text())["study"] == study.record.uid


def test_a_promoted_runs_card_has_the_flops_of_all_its_rungs(monkeypatch):
    monkeypatch.setattr("nas.config.LEAST_STEPS", 1)
    study = launch("sqlite:///nas.db", DENSE, trial_flops=4e8, rungs=2, reduction=2)
    (trial,) = study.records()
    assert trial.rung == 1 and trial.result.flops < 0.7 * 4e8  # the top rung's own
    assert 0.98 * 4e8 < checkpoint(study).flops <= 4e8
    card = (study.export("card", 0, verify=False) / "README.md").read_text()
    assert f"| training FLOPs | {checkpoint(study).flops:.3g} |" in card


def _swap(place, other):
    shutil.rmtree(place)
    shutil.copytree(other, place)


def _swap_weights(place, other):
    shutil.copy(other / "model.safetensors", place)


def _flip_a_bit(place, other):
    path = place / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _cut(place, other):
    path = place / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _edit_manifest(place, other):
    path = place / "trial.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def _break_manifest(place, other):
    (place / "trial.json").write_text("{")


def _other_tokenizer(place, other):
    path = place.parent / "tokenizer.json"
    path.write_text(path.read_text().replace("endoftext", "endoftexx"))


DAMAGES = {
    _swap: "trial.json is not what the trial wrote: its checksum differs",
    _swap_weights: "is damaged or another trial's",
    _flip_a_bit: "is damaged or another trial's",
    _cut: "is damaged or another trial's",
    _edit_manifest: "its checksum differs from the database's",
    _break_manifest: "is not valid JSON",
    _other_tokenizer: r"tokenizer\.json is damaged or another trial's",
}


def test_whatever_is_not_the_trials_own_is_refused(folder):
    study = launch("sqlite:///nas.db", DENSE, FFNSpec(d_ff=32))
    kept = folder / "kept"
    runs = checkpoint(study).weights.parents[2]
    shutil.copytree(runs, kept)
    for damage, message in DAMAGES.items():
        place = runs / folder_name(study.record)
        damage(place / "trial-0", place / "trial-1")
        with pytest.raises(InputError, match=message):
            study.export("model", 0)
        assert not Path("model").exists(), damage
        shutil.rmtree(runs)
        shutil.copytree(kept, runs)
    assert exported_spec(study, "model") == DENSE


def test_a_checkpoint_that_is_gone_says_where_it_was_looked_for(folder):
    study = launch("sqlite:///nas.db", DENSE)
    shutil.rmtree("nas-runs")
    with pytest.raises(InputError, match=r"trial 0 of 'tiny' is gone: it was looked for at .*-0; "):
        study.export("model")


def test_a_worker_never_overwrites_a_checkpoint(folder):
    study = launch("sqlite:///nas.db", DENSE)
    before = checkpoint(study).weights.read_bytes()
    from search_space.backbone import Backbone
    from search_space.contract import EvalRequest, Recipe
    from workers.checkpoint import save_checkpoint
    from workers.corpus import Corpus
    from workers.training.loop import build_proxy

    request = EvalRequest(
        evaluation=1,
        spec=DENSE,
        backbone=Backbone(**BACKBONE),
        recipe=Recipe(),
        corpus_dir=study.record.facts.corpus_dir,
        until_flops=1e8,
        seed=5,
        checkpoint_dir=str(checkpoint(study).weights.parent),
    )
    corpus = Corpus.open(request.corpus_dir)
    with pytest.raises(FileExistsError, match="never overwritten"):
        save_checkpoint(build_proxy(request, corpus), request, corpus)
    assert checkpoint(study).weights.read_bytes() == before


def test_drafts_of_dead_workers_are_swept(folder):
    runs = folder / "runs"
    (runs / ".trial-3-abc").mkdir(parents=True)
    (runs / ".tokenizer.json-abc").write_text("{")
    (runs / "trial-1").mkdir()
    sweep_drafts(runs)
    assert [path.name for path in runs.iterdir()] == ["trial-1"]


@pytest.fixture
def former(folder):
    """A database of the first schema, as a version before this one left it."""
    with sqlite3.connect("nas.db") as connection:
        connection.executescript((DATA / "schema_0001.sql").read_text())
    connection.close()
    return "sqlite:///nas.db"


def test_an_older_database_is_refused_with_the_way_out_and_upgraded_whole(former, capsys):
    from nas.command.cli import run

    with pytest.raises(InputError, match=r"has schema 0001, \d+ is needed; run: nas db upgrade"):
        Store.open(former, create=False)
    assert run(["db", "upgrade"]) == 0
    assert "1 studies" in capsys.readouterr().out
    with nas.Study.open(None, former) as study:
        assert len(study.record.uid) == 32
        bits = [round(trial.result.bits_per_byte, 4) for trial in study.records()]
        assert bits == [3.3679, 3.3745, 3.4271]
        assert [len(study.store.curve(trial.id)) for trial in study.records()] == [3, 3, 2]
        assert study.ledger().spent == 76_972_032.0
    assert run(["db", "upgrade"]) == 0  # nothing left to do
    assert run(["db", "upgrade", "--db", "sqlite:///none.db"]) == 2
    assert not Path("none.db").exists()


def _former_checkpoint(study, trial, place, **changes):
    (only,) = study.store.trial_evaluations(trial.id)
    facts = {
        "spec": trial.spec.to_dict(),
        "backbone": study.record.config["backbone"],
        "recipe": study.record.config["recipe"],
        "seed": only.seed,
        "train_flops": only.until_flops,
        "corpus": study.record.facts.corpus.hash,
    }
    place.mkdir(parents=True, exist_ok=True)
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "trial.json").write_text(json.dumps(facts | changes))


def test_a_checkpoint_from_before_identities_must_agree_in_all_it_says(former, folder):
    with Store.upgrade(former):
        pass
    with nas.Study.open(None, former) as study:
        trial = study.records()[0]
        place = folder / "nas-runs" / "tiny" / "trial-0"
        tokenizer = folder / "cache"
        tokenizer.mkdir()
        (tokenizer / "tokenizer.json").write_text("{}")
        with Store.open(former) as writer:
            writer.update_study(study.record.id, facts=Facts(corpus_dir=str(tokenizer)))
        study.record = study.store.study("tiny")
        _former_checkpoint(study, trial, place)
        assert find_checkpoint(study.store, study.record, trial).weights.parent == place
        for change in (
            {"seed": 1},
            {"train_flops": 1.0},
            {"corpus": "another"},
            {"spec": study.records()[1].spec.to_dict()},
            {"backbone": BACKBONE},
        ):
            _former_checkpoint(study, trial, place, **change)
            with pytest.raises(InputError, match=f"another trial's: their {next(iter(change))} is"):
                find_checkpoint(study.store, study.record, trial)


@LONG
def test_exports_fill_folders_that_cannot_be_renamed_over(folder):
    study = launch("sqlite:///nas.db", DENSE)
    want = {path.name for path in study.export("plain", verify=False).iterdir()}
    Path("here").mkdir()
    Path("real").mkdir()
    Path("link").symlink_to("real")
    study.export("link", verify=False)
    assert {path.name for path in Path("real").iterdir()} == want
    script = "import nas, sys; nas.Study.open(None, sys.argv[1]).export('.', verify=False)"
    done = subprocess.run(
        [sys.executable, "-c", script, f"sqlite:///{folder}/nas.db"],
        cwd="here",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {path.name for path in Path("here").iterdir()} == want
    assert study.export("deep/er", verify=False).is_dir()


@LONG
def test_an_export_into_a_mounted_volume(folder):
    launch("sqlite:///nas.db", DENSE).store.close()
    Path("vol").mkdir()
    script = (
        "mount -t tmpfs -o size=20m none vol && "
        f"{sys.executable} -c \"import nas; nas.Study.open().export('vol', verify=False)\" && "
        "ls -A vol"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this machine lets no test mount a volume: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in done.stdout
    assert ".export" not in done.stdout


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.symlink_to("nowhere"), "target is a link to nothing"),
        (lambda p: p.touch(), "target is a file"),
        (lambda p: p.symlink_to("x" * 300), "target is a link to nothing"),
        (lambda p: (p.mkdir(), (p / "mine").touch()), "target holds files"),
    ],
)
def test_other_targets_are_refused_and_left_alone(folder, make, message):
    from nas.models.new_folder import new_folder

    target = Path("target")
    make(target)
    before = sorted(str(path) for path in folder.rglob("*"))
    with pytest.raises(InputError, match=message), new_folder(target):
        raise AssertionError("nothing is written")
    assert sorted(str(path) for path in folder.rglob("*")) == before


@pytest.mark.parametrize("target", ["x" * 300, "a/" * 3000 + "b", "new/" + "x" * 300 + "/b"])
def test_a_target_that_cannot_be_looked_at_is_refused_in_a_line(folder, target):
    from nas.models.new_folder import new_folder

    before = sorted(str(path) for path in folder.rglob("*"))
    message = r"export cannot (look at|write to) \S+: File name too long; choose another --to"
    with pytest.raises(InputError, match=message), new_folder(Path(target)):
        raise AssertionError("nothing is written")
    assert sorted(str(path) for path in folder.rglob("*")) == before


def test_a_place_that_cannot_be_looked_at_hides_no_other(folder):
    study = launch("sqlite:///nas.db", DENSE)
    trial = study.store.trial(study.record.id, 0)
    result = replace(trial.result, checkpoint="x" * 300)
    with pytest.raises(InputError, match=r"trial 0 of 'tiny' is gone: it was looked for at .*xxx"):
        find_checkpoint(study.store, study.record, replace(trial, result=result))


@pytest.mark.parametrize("target", ["new", "deep/new", "empty"])
def test_an_export_that_fails_leaves_nothing(folder, target):
    from nas.models.new_folder import new_folder

    Path("empty").mkdir()
    before = sorted(str(path) for path in folder.rglob("*"))

    def fill():
        with new_folder(Path(target)) as draft:
            (draft / "config.json").write_text("{}")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert sorted(str(path) for path in folder.rglob("*")) == before


@pytest.mark.parametrize("scheme", ["", "memory:/"])
def test_the_runs_with_states_are_found_in_a_folder_and_at_a_url(folder, scheme):
    import fsspec

    place = f"{scheme}{folder}/mine"
    assert kept_runs(place) == set()
    for trial in (0, 12):
        with fsspec.open(f"{place}/{run_folder(trial, 7)}/step-3.json", "w", auto_mkdir=True) as f:
            f.write("{}")
    assert kept_runs(place) == {run_folder(0, 7), run_folder(12, 7)}
    discard_states(f"{place}/{run_folder(12, 7)}")
    assert kept_runs(place) == {run_folder(0, 7)}
