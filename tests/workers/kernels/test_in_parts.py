"""A check in parts: what each is asked, whose fault is told, and what a crash comes to."""

from __future__ import annotations

import subprocess
import textwrap

import pytest
import torch

from workers.kernels import in_parts
from workers.kernels.in_parts import fault_in_parts

GPU = torch.device("cuda", 0)


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Writes a check of that body, which has `part` and `parts`; asks four parts of eight jobs."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(in_parts, "PARTS", 4)
    monkeypatch.setattr(in_parts.os, "sched_getaffinity", lambda process: set(range(9)))

    def ask(body: str, jobs: int = 8, *more: str) -> str:
        head = """
            import json, os, sys, time
            device, part, parts, more = sys.argv[1], *map(int, sys.argv[2:4]), sys.argv[4:]
            print("a library's word", flush=True)
            fault = ""
        """
        tail = "print(json.dumps({'fault': fault}))"
        lines = [textwrap.dedent(head), textwrap.dedent(body), tail]
        (tmp_path / "a_check.py").write_text("\n".join(lines))
        return fault_in_parts("a_check", GPU, jobs, *more)

    return ask


def test_no_fault_in_any_part(check):
    assert check("") == ""


def test_each_part_knows_which_it_is(check):
    assert check("fault = f'{device} {part} {parts} {more}' if part == 2 else ''", 8, "torch") == (
        "cuda:0 2 4 ['torch']"
    )
    assert check("fault = f'{part} of {parts}' if part else ''", 2) == "1 of 2"


def test_the_first_parts_fault_is_told_and_the_others_end(check, monkeypatch):
    made = []
    own = subprocess.Popen

    def popen(*arguments, **more):
        made.append(own(*arguments, **more))
        return made[-1]

    monkeypatch.setattr(in_parts.subprocess, "Popen", popen)
    assert check("fault = 'wrong'; time.sleep(0 if part == 0 else 60)") == "wrong"
    assert len(made) == 4 and all(process.poll() is not None for process in made)


@pytest.mark.parametrize("body", ["os._exit(7) if part == 1 else 0", "os.abort() if part else 0"])
def test_a_part_that_crashes_is_a_fault(check, body):
    assert check(body).startswith("a process that checked it ended with ")
