"""`nas launch`, `resume`, `stop` and `extend`, and the same from Python."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path

import pytest
from command_tools import (
    RUNGS,
    STUDY,
    FakePool,
    PreparingPool,
    dead_owner,
    fails,
    stops_after,
    the_error,
    train_here,
    trains,
    write_corpus,
    write_study,
)
from patience import WAIT_S

import nas as product
from nas.store import Facts, Store
from search_space.contract import TRAINING, EvalResult, Status
from search_space.spec import FFNSpec

pytestmark = pytest.mark.slow


def rows(nas, command="runs"):
    return json.loads(nas(*command.split(), "--json").out)


# Launch


def test_launch_export_generate(nas, in_process):
    in_process(train_here, PreparingPool)
    launched = nas("launch", write_study(corpus=write_corpus()))
    assert launched.code == 0, launched.err
    assert "study tiny: 2 of 2 trials finished" in launched.out
    assert "[2/2] trial 1" in launched.err
    assert "byte n-grams" in launched.out
    assert list(Path("nas-runs").glob("tiny-*/trial-0/model.safetensors"))

    exported = nas("export", "--to", "model", "--no-verify")
    assert (exported.code, exported.out) == (0, "model\n")
    assert exported.err.startswith("custom code: it loads with trust_remote_code=True; native form")
    assert "Qwen3ForCausalLM" not in exported.err
    text = nas("generate", "model", "--prompt", "def ", "--tokens", 8, "--temperature", 0)
    assert text.code == 0 and text.out.startswith("def ")

    again = nas("export", "--to", "model")
    assert "export needs a new or empty directory: model holds files" in the_error(again)
    native = the_error(nas("export", "--form", "native", "--to", "other"))
    assert "a native export needs a class of transformers that computes the same" in native
    assert "the nearest design that has one is" in native and not Path("other").exists()


def test_a_design_that_a_class_computes_is_exported_as_that_class(nas, in_process):
    in_process(train_here, PreparingPool)
    swiglu = FFNSpec(d_ff=32, activation="silu", gated=True)
    budget = STUDY["budget"] | {"trials": 1}
    study = write_study(corpus=write_corpus(), warm_start=[swiglu.to_dict()], budget=budget)
    assert nas("launch", study).code == 0
    record = json.loads(nas("show", "--json").out)
    assert record["native_form"] == "Qwen3ForCausalLM"
    exported = nas("export", "--to", "model", "--no-verify")
    assert (exported.code, exported.out) == (0, "model\n")
    said = "native form: Qwen3ForCausalLM; it loads without code, in vLLM and llama.cpp's converter"
    assert exported.err.startswith(said)
    assert not list(Path("model").glob("*.py"))
    text = nas("generate", "model", "--prompt", "def ", "--tokens", 8, "--temperature", 0)
    assert text.code == 0 and text.out.startswith("def ")
    custom = nas("export", "--form", "custom", "--to", "custom", "--no-verify")
    assert custom.err == "custom code: it loads with trust_remote_code=True\n"
    assert Path("custom/modeling_ffn_nas.py").is_file()


def test_a_taken_name_says_how_to_go_on_with_its_study(nas, in_process):
    in_process(trains)
    assert nas("launch", write_study()).code == 0
    taken = the_error(nas("launch", "study.yaml", "--name", "tiny"))
    assert "a study's name must be new: 'tiny' exists; choose another" in taken
    assert taken.endswith("nas resume tiny")

    numbered = nas("launch", "study.yaml")
    assert numbered.code == 0
    said = "tiny exists: this study is tiny-2; nas resume tiny would go on with the other"
    assert said in numbered.err.splitlines()


def test_a_launch_with_rungs_says_what_it_found(nas, in_process):
    in_process(trains)
    budget = RUNGS | {"repeats": {"share": 0.3, "seeds": 2}}
    done = nas("launch", write_study(budget=budget))
    assert done.code == 0, done.err
    status = rows(nas, "status")
    first, *_, best, deviation = done.out.splitlines()
    assert status["paused"] > 0 and status["repeats"] > 0
    assert first.startswith(
        f"study tiny: {status['finished']} of 9 trials finished at rung 1, the top, "
        f"{status['paused']} paused below it, "
    )
    assert ", the mean of 2 seeds; byte n-grams: n=3 2.500" in best
    assert deviation.startswith("deviation of one seed: 0.0071 bits per byte")
    assert "study tiny: 9 trials through 2 rungs of 3e+10, 9e+10 FLOPs on " in done.err
    lines = [line for line in done.err.splitlines() if line.startswith("[")]
    assert len(lines) == len(rows(nas))
    assert lines[0].startswith("[1/9] trial 0 ") and "rung 0 of 1: 1." in lines[0]
    assert lines[0].endswith(", paused")
    assert any(", rung 1 of 1: " in line and "promoted from rung 0" in line for line in lines)
    assert any(", rung 1 of 1, seed 1: " in line and "mean of 2 seeds" in line for line in lines)


@pytest.mark.parametrize(("bits", "warned"), [(7.9, True), (0.1, False)])
def test_a_study_that_learned_nothing_says_so(nas, in_process, bits, warned):
    def work(request):
        result = EvalResult(
            evaluation=request.evaluation, status=Status.FINISHED, bits_per_byte=bits
        )
        return 1.0, [result]

    in_process(work)
    done = nas("launch", write_study())
    assert done.code == 0
    assert ("warning: no design beats the byte trigram" in done.err) is warned
    assert f"best: {bits:.4f} bits per byte; byte n-grams: n=3 " in done.out


def test_a_study_of_failures_exits_with_1_and_says_why(nas, in_process):
    in_process(fails)
    done = nas("launch", write_study())
    assert done.code == 1
    last = done.err.splitlines()[-1]
    assert last.startswith("Error: no trial of tiny finished; the last: no [/such] luck; ")

    done = nas("launch", write_study(budget={"trials": 9, "trial_flops": 1e8}))
    assert done.code == 1
    assert "5 evaluations in a row failed; the last: no [/such] luck" in done.err.splitlines()[-1]
    assert rows(nas, "status")["state"] == "failed"


# Resume


def outcome(nas) -> list:
    """All that a study measured, without the times and the attempts."""
    columns = ("trial", "seed", "rung", "status", "bits_per_byte", "flops")
    found = [tuple(row[name] for name in columns) for row in rows(nas)]
    return [found, [row["spec"] for row in rows(nas, "pareto --all")]]


@pytest.mark.parametrize("named", [[], ["tiny"]])
def test_a_stopped_study_goes_on_to_the_same_end(nas, in_process, named):
    in_process(trains)
    nas("launch", write_study(budget=RUNGS, name="whole"))
    whole = outcome(nas)

    in_process(stops_after(5))
    stopped = nas("launch", write_study(budget=RUNGS))
    assert stopped.code == 130 and stopped.out == ""
    assert stopped.err.splitlines()[-1].endswith("go on with: nas resume tiny")
    status = rows(nas, "status")
    assert (status["state"], status["stopped"], status["running"]) == ("stopped", 1, 0)

    in_process(trains)
    done = nas("resume", *named)
    assert done.code == 0, done.err
    assert "study tiny: " in done.out and "best: " in done.out
    assert "study tiny: 9 trials through 2 rungs" in done.err
    assert outcome(nas) == whole
    assert [row["attempt"] for row in rows(nas)].count(2) == 1
    # The count goes on where it was: a trial is counted at its first result.
    begun = [line for line in done.err.splitlines() if line.startswith("[")]
    assert not begun[0].startswith("[1/9]") and begun[-1].startswith("[9/9]")


def test_a_failed_study_can_be_resumed(nas, in_process):
    in_process(fails)
    nas("launch", write_study(budget={"trials": 9, "trial_flops": 1e8}))
    in_process(trains)
    done = nas("resume", "tiny")
    assert done.code == 0, done.err
    status = rows(nas, "status")
    assert (status["state"], status["finished"], status["not_finished"]) == ("finished", 4, 5)


# Extend


def test_a_finished_study_is_extended_and_resumed(nas, in_process):
    in_process(trains)
    nas("launch", write_study())
    before = rows(nas, "status")["flops_budget"]
    done = nas("extend", "tiny", "--flops", 2e8, "--trials", 4)
    text = "study tiny may spend 4e+08 FLOPs on 4 trials now; go on with: nas resume tiny\n"
    assert (done.code, done.out, done.err) == (0, text, "")
    status = rows(nas, "status")
    assert (status["state"], status["flops_budget"]) == ("stopped", before + 2e8)
    assert nas("resume").code == 0
    assert rows(nas, "status")["finished"] == 4


def test_trials_grow_as_the_flops_do(nas, in_process):
    in_process(trains)
    nas("launch", write_study())
    assert "on 6 trials now" in nas("extend", "tiny", "--flops", "4e8").out


@pytest.mark.parametrize("budget", [STUDY["budget"], RUNGS, {**RUNGS, "repeats": {"share": 0.25}}])
def test_an_extension_that_pays_for_nothing_is_refused_with_what_would(nas, in_process, budget):
    in_process(trains)
    nas("launch", write_study(budget=budget))
    before = rows(nas, "runs")
    done = nas("extend", "tiny", "--flops", 1e6)
    assert (done.code, done.out) == (2, "")
    found = re.fullmatch(
        r"Error: an extension must pay for more: 1e\+06 FLOPs, with \d+ designs in all, begin no "
        r"design of study 'tiny', promote no run and repeat none; give --flops of at least (.*), "
        r"and leave --trials out\n",
        done.err,
    )
    assert found, done.err
    assert rows(nas, "status")["state"] == "finished"
    assert nas("extend", "tiny", "--flops", found[1]).code == 0
    assert nas("resume").code == 0
    assert len(rows(nas, "runs")) > len(before)


def test_so_is_one_whose_flops_pay_and_whose_designs_are_used_up(nas, in_process):
    in_process(trains)
    nas("launch", write_study())
    done = nas("extend", "tiny", "--flops", 2e8, "--trials", 2)
    assert done.code == 2 and "with 2 designs in all, begin no design" in done.err


def test_trials_are_those_that_the_flops_pay_for(nas, in_process):
    """Half of another is none."""
    in_process(trains)
    nas("launch", write_study())
    assert "on 3 trials now" in nas("extend", "tiny", "--flops", "1.9e8").out


# Stop


class SlowPool(FakePool):
    """One whose evaluations do not end, so that the driver waits for them."""

    def events(self, timeout):
        time.sleep(0.05)
        return []


def launch_elsewhere(path: str) -> tuple[threading.Thread, list[BaseException]]:
    """A driver in another thread; and what ended it."""
    ended: list[BaseException] = []

    def drive():
        try:
            product.launch(path, pool_factory=lambda config: SlowPool()).store.close()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=drive)
    thread.start()
    return thread, ended


def wait_for_a_trial() -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if Path("nas.db").exists():
            with Store.open("sqlite:///nas.db") as store:
                studies = store.studies()
                found = store.evaluations(studies[0].id) if studies else []
                if any(each.status is Status.RUNNING for each in found):
                    return
        time.sleep(0.05)
    raise AssertionError("no trial began")


@pytest.fixture
def running(monkeypatch):
    """A study that another thread drives; what ended it."""
    monkeypatch.setattr("nas.running.driver.RENEW_SECONDS", 0.1)
    write_study()
    thread, ended = launch_elsewhere("study.yaml")
    wait_for_a_trial()
    yield ended
    with Store.open("sqlite:///nas.db") as store:
        store.ask(store.study().id, "stop")
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_stop_waits_until_the_driver_has_stopped(nas, running):
    done = nas("stop", "tiny")
    text = "study tiny is stopped; go on with: nas resume tiny\n"
    assert (done.code, done.out, done.err) == (0, text, "")
    assert [row["status"] for row in rows(nas)] == ["stopped"]
    assert rows(nas, "status")["flops_reserved"] == 0
    deadline = time.monotonic() + WAIT_S
    while not running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert isinstance(running[0], KeyboardInterrupt)


def test_what_runs_is_neither_resumed_nor_extended(nas, running):
    status = rows(nas, "status")
    assert (status["state"], status["running"]) == ("running", 1)
    for words in (["resume", "tiny"], ["extend", "tiny", "--flops", "1e9"]):
        error = the_error(nas(*words))
        assert f"a study has one driver: {status['held_by']} holds 'tiny' since 20" in error
        assert "nas stop tiny" in error
    assert rows(nas, "status") == status


def test_a_study_whose_driver_died_is_stopped_in_its_place(nas, filled, add):
    with Store.open("sqlite:///nas.db") as store:
        study = store.update_study(store.study().id, facts=Facts(training=TRAINING))
        store.hold_study(study.id, dead_owner())
        add(store, study, FFNSpec(d_ff=96))
    done = nas("stop", "first")
    assert (done.code, done.out) == (0, "study first is stopped; go on with: nas resume first\n")
    assert [row["status"] for row in rows(nas)][2:] == ["stopped", "stopped"]


def test_a_driver_elsewhere_that_dies_before_it_hears_is_not_waited_for(
    nas, filled, add, monkeypatch
):
    monkeypatch.setattr("nas.store.clock.LEASE_SECONDS", 1.0)
    with Store.open("sqlite:///nas.db") as store:
        store.update_study(store.study().id, facts=Facts(training=TRAINING))
        store.hold_study(store.study().id, "process 7 (since tick 9) on there, 0123abcd")
        add(store, store.study(), FFNSpec(d_ff=96))
    began = time.monotonic()
    done = nas("stop", "first")
    assert (done.code, done.out) == (0, "study first is stopped; go on with: nas resume first\n")
    assert time.monotonic() - began < 20
    assert [row["status"] for row in rows(nas)][2:] == ["stopped", "stopped"]


def test_what_cannot_be_resumed_is_stopped_without_that_advice(nas, filled):
    """As a study of another version, which was running when it was brought here."""
    with Store.open("sqlite:///nas.db") as store:
        store.hold_study(store.study().id, dead_owner())
    assert nas("stop", "first").out == "study first is stopped\n"


# From Python


def test_the_same_from_python(in_process):
    in_process(stops_after(5))
    config = STUDY | {"budget": RUNGS}
    with pytest.raises(KeyboardInterrupt):
        product.launch(config)
    in_process(trains)
    study = product.resume()
    frame = study.runs()
    assert set(frame.status) == {"finished"} and set(frame.rung) == {0, 1}
    assert list(frame.columns)[:4] == ["trial", "seed", "rung", "until_flops"]
    trials = study.trials()
    assert set(trials.status) == {"finished", "paused"}
    assert set(trials.rung) == {0, 1} and set(trials.seeds) == {1}
    study.extend(9e11, trials=12)
    assert study.record.config["budget"]["trials"] == 12
    study.store.close()
    again = product.resume("tiny")
    assert len(again.trials()) > len(trials)
    again.store.close()


def test_a_study_that_was_opened_to_read_can_be_stopped_and_extended(filled, running):
    with product.Study.open() as study:
        study.stop()
        assert study.record.state.value == "stopped"
        before = study.record.budget_flops
        study.extend(1e9)
        assert study.record.budget_flops == before + 1e9
        assert study.ledger().budget == before + 1e9
