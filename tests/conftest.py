"""What all tests share."""

from __future__ import annotations

import os

# How this machine multiplies is measured where a test asks for that, and nowhere else.
os.environ.setdefault("FFN_NAS_PRODUCTS", "torch")
