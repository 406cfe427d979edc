"""A child process that does not outlive the wait for it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Any

from nas.process import interrupts


def run_child(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end with its output captured; a signal to stop ends it at once.

    options: of subprocess.Popen.
    """
    with interrupts.held():  # no moment between the child's start and the `try`
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        try:
            with interrupts.breakable():
                out, err = child.communicate()
        except BaseException:
            child.kill()
            child.communicate()
            raise
    return subprocess.CompletedProcess(command, child.returncode, out, err)
