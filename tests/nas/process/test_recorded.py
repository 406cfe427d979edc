"""A module that notes how it ended, for whoever asks later."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import WAIT_S

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
CODE = {
    "ends": "print('done')",
    "fails": "raise SystemExit(3)",
    "says": "raise SystemExit('no')",
    "breaks": "raise ValueError('x')",
    "waits": "import sys, time\nprint(sys.argv[1:], flush=True)\ntime.sleep(60)",
}


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen:
    (folder / f"{name}_module.py").write_text(CODE[name])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "nas.process.recorded", "ended", f"{name}_module", *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{folder}"},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.parametrize(("name", "code"), [("ends", 0), ("fails", 3), ("says", 1), ("breaks", 1)])
def test_the_note_has_the_exit_code(tmp_path, name, code):
    process = start(tmp_path, name)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == code
    assert (tmp_path / "ended").read_text() == f"{code}\n"
    assert {path.name for path in tmp_path.glob("ended*")} == {"ended"}


def test_a_killed_module_leaves_none(tmp_path):
    process = start(tmp_path, "waits", "--port", "1")
    assert process.stdout.readline() == "['--port', '1']\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=WAIT_S)
    time.sleep(0.05)
    assert not list(tmp_path.glob("ended*"))
