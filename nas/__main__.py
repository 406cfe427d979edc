"""`python -m nas`: the command, as torchrun starts it."""

from __future__ import annotations

from nas.command.cli import main

if __name__ == "__main__":
    main()
