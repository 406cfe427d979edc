"""What the store refuses from its callers."""

from __future__ import annotations


class StoreError(RuntimeError):
    """A caller broke a rule of the store: an unknown id, or a second ending of one trial."""
