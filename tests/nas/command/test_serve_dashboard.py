"""The dashboard's server ends with its command, whatever ends that."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from patience import WAIT_S

from benchmarks.abuse.processes import Command, until
from benchmarks.abuse.signals import free_port
from nas.store import Store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_the_server_ends_with_its_command(tmp_path, number):
    with Store.open(f"sqlite:///{tmp_path}/nas.db") as store:
        store.create_study("a", {}, 0, 1e9, ["bits_per_byte"])
    # A module of the folder that the command runs in is not ours, whatever its name.
    (tmp_path / "streamlit.py").write_text("raise SystemExit('a stranger was run')\n")
    port = free_port()
    command = Command(tmp_path, "dashboard", "--port", str(port))
    try:
        assert until(lambda: listens(port), 60), command.text()
        command.send(number)
    finally:
        wrong = command.end(30)
    assert wrong == ""
    assert command.process.returncode == (0 if number == signal.SIGHUP else -number)
    # A process that exits lets go of its environment, by which it is found, before its sockets.
    assert until(lambda: not listens(port), 10)


def test_a_tethered_module_runs_as_itself_until_its_parent_lets_go(tmp_path):
    (tmp_path / "guest.py").write_text(
        "import sys, time\nprint(__name__, sys.argv[1:], flush=True)\ntime.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-m", "nas.process.tether", "guest", "--port", "1"],
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "__main__ ['--port', '1']\n"
    assert child.poll() is None
    child.stdin.close()
    assert child.wait(WAIT_S) == 0
