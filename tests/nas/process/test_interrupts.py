"""When signals take effect: noted while held, raised in waits, and always with an end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from patience import WAIT_S

from nas.process import interrupts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers_come_back():
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
    before = [signal.getsignal(number) for number in ALL]
    yield
    assert [signal.getsignal(number) for number in ALL] == before
    signal.signal(signal.SIGHUP, hang_up)
    assert not interrupts.asked()


def stops(body) -> None:
    """`body` runs held in a listening block, which ends by KeyboardInterrupt."""

    def block():
        with interrupts.listening(), interrupts.held():
            body()

    with pytest.raises(KeyboardInterrupt):
        block()


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_noted_while_held_and_raised_at_the_next_look(number):
    steps = []

    def body():
        interrupts.check()
        signal.raise_signal(number)
        steps.append("went on")
        assert interrupts.asked()
        interrupts.check()
        steps.append("never")

    stops(body)
    assert steps == ["went on"]


def test_a_wait_is_left_at_once_also_for_a_signal_noted_before():
    entered = []

    def noted():
        signal.raise_signal(signal.SIGTERM)
        with interrupts.breakable():
            entered.append(True)

    def inside():
        with interrupts.breakable():
            signal.raise_signal(signal.SIGTERM)
            entered.append(True)

    stops(noted)
    stops(inside)
    assert entered == []


def test_later_signals_do_not_disturb_the_clean_up():
    cleaned = []

    def body():
        try:
            with interrupts.breakable():
                signal.raise_signal(signal.SIGHUP)
        finally:
            for number in ALL * 2:
                signal.raise_signal(number)
            with interrupts.held():
                signal.raise_signal(signal.SIGINT)
            cleaned.append(True)

    stops(body)
    assert cleaned == [True]


def test_a_signal_after_the_last_look_is_not_lost():
    stops(lambda: signal.raise_signal(signal.SIGINT))


def test_a_swallowed_interrupt_is_raised_again(monkeypatch):
    monkeypatch.setattr(interrupts, "INSIST_SECONDS", 0.1)

    def body():
        with interrupts.breakable():
            with contextlib.suppress(KeyboardInterrupt):  # as in a callback or a destructor
                signal.raise_signal(signal.SIGINT)
            time.sleep(5)

    began = time.monotonic()
    stops(body)
    assert time.monotonic() - began < 4


def test_other_threads_change_nothing():
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work():
        with interrupts.listening(), interrupts.held(), interrupts.breakable():
            seen.append(signal.getsignal(signal.SIGTERM) == before)
        interrupts.check()

    def body():
        signal.raise_signal(signal.SIGINT)
        thread = threading.Thread(target=interrupts.check)  # the signal is not for this one
        thread.start()
        thread.join()
        seen.append("went on")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    stops(body)
    assert seen == [True, "went on"]


def run(program: str, *signals: int, ignored: int | None = None) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program that got signals once it said "ready"."""
    before = signal.signal(ignored, signal.SIG_IGN) if ignored else None
    try:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import signal, sys, time; from nas.process import interrupts\n" + program,
            ],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        if ignored:
            signal.signal(ignored, before)
    try:
        assert process.stdout.readline() == "ready\n"
        for number in signals:
            process.send_signal(number)
            time.sleep(0.05)
        out, err = process.communicate(timeout=WAIT_S)
    finally:
        process.kill()
    return process.returncode, out, err


COMMAND = """
def work():
    try:
        print("ready", flush=True)
        time.sleep(2)
    finally:
        time.sleep(0.3)
        print("cleaned", flush=True)
    return 7
code = interrupts.command(work)
print("after", flush=True)
time.sleep(0.2)
sys.exit(code)
"""


@pytest.mark.parametrize("signals", [(n,) for n in ALL] + [(15, 2, 1), (2, 2, 2, 15)], ids=str)
def test_a_command_ends_with_130_after_its_clean_up(signals):
    assert run(COMMAND, *signals) == (130, "cleaned\nafter\n", "")


def test_nohup_stays_in_force():
    program = COMMAND.replace("sleep(2)", "sleep(0.3)")
    assert run(program, signal.SIGHUP, ignored=signal.SIGHUP) == (7, "cleaned\nafter\n", "")
    assert run(COMMAND, signal.SIGTERM, ignored=signal.SIGHUP)[0] == 130


def test_a_clean_up_that_does_not_end_is_ended():
    program = """
interrupts.CLEAN_UP_SECONDS = 0.5
def work():
    with interrupts.held():
        print("ready", flush=True)
        while True:
            time.sleep(1)
interrupts.command(work)
"""
    code, _, err = run(program, signal.SIGTERM)
    assert (code, err) == (130, "Error: stopped; the clean-up did not end within 0.5 s\n")
