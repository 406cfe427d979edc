"""Run a module that ends when its parent does: `python -m nas.process.tether MODULE ARGUMENTS...`.

The parent holds the other end of stdin and never writes. However it ends, by SIGKILL too, the
system closes that end, and the module's process ends at once.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading


def main() -> None:
    """Become the module, and watch stdin beside it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
