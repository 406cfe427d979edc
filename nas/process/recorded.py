"""Run a module and note how it ended: `python -m nas.process.recorded NOTE MODULE ARGUMENTS...`.

Who started it may have ended before it, or may not be the one who asks. NOTE is a file that then
holds the exit code; a process that is killed leaves none.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Become the module, and write the note when it ends."""
    note, code = Path(sys.argv[1]).absolute(), 1
    sys.argv = sys.argv[2:]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        raise
    finally:
        # Whole or not at all: a reader may look at any moment.
        draft = note.with_suffix(".draft")
        draft.write_text(f"{code}\n", encoding="ascii")
        os.replace(draft, note)


if __name__ == "__main__":
    main()
