"""Fresh processes that have torch and transformers already: forks of one that loaded them.

An export is checked in a process without this project. Most of such a process is the loading of
those two libraries, and the tests start a hundred of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

# What `python -I -c CODE ARGS` is, in a fork; each request and each answer is a line of JSON.
_SERVER = """
import json, os, sys, traceback
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer, dynamic_module_utils
import transformers.generation.utils, transformers.modeling_utils

def child(ask):
    for fd, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(ask[name], os.O_WRONLY | os.O_CREAT, 0o600), fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(ask["cwd"])
    os.environ.clear()
    os.environ.update(ask["env"])
    dynamic_module_utils.HF_MODULES_CACHE = os.environ["HF_MODULES_CACHE"]
    sys.argv = ["-c", *ask["args"]]
    code = 1
    try:
        exec(compile(ask["code"], "<string>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

for line in sys.stdin:
    ask = json.loads(line)
    pid = os.fork()
    if not pid:
        child(ask)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    sys.stdout.write(json.dumps(code) + chr(10))
    sys.stdout.flush()
"""


class Prepared:
    """Starts when first asked."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: str
    ) -> subprocess.CompletedProcess[str]:
        """As nas.process.child.run_child, of `python -I -c CODE ARGS`."""
        python, isolated, flag, code, *arguments = command
        assert (python, isolated, flag) == (sys.executable, "-I", "-c")
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-I", "-c", _SERVER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**env, "HF_HUB_OFFLINE": "1"},
                text=True,
            )
        assert self._server.stdin and self._server.stdout
        with tempfile.TemporaryDirectory() as scratch:
            out, err = Path(scratch, "out"), Path(scratch, "err")
            ask = {"code": code, "args": arguments, "env": dict(env), "cwd": cwd}
            ask |= {"out": str(out), "err": str(err)}
            self._server.stdin.write(json.dumps(ask) + "\n")
            self._server.stdin.flush()
            returncode = int(self._server.stdout.readline())
            return subprocess.CompletedProcess(
                command, returncode, out.read_text(), err.read_text()
            )

    def close(self) -> None:
        """End the process."""
        if self._server is not None:
            self._server.communicate()
