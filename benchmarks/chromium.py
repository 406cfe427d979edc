"""The Chromium that pages are opened in, where there is one."""

from __future__ import annotations

import shutil

# The first has no windows of its own to draw: what is measured is the page's, and costs a third
# less.
NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def chromium() -> str | None:
    """Its file."""
    return next(filter(None, map(shutil.which, NAMES)), None)
