"""What the store refuses from its callers, and what it says when it cannot be read."""

from __future__ import annotations

from search_space.errors import InputError, WorkFailed


class StoreError(RuntimeError):
    """A caller broke a rule of the store: an unknown id, or a second ending of one evaluation."""


class StoreUnavailable(WorkFailed):
    """The database was opened and cannot be read now; the text holds no SQL and no password."""


class LeaseLost(WorkFailed):
    """A late writer: what it held was taken over by somebody else meanwhile."""


class StudyHeld(InputError):
    """Another driver holds the study; the text says who, since when, and until when."""


class BrokenRecord(WorkFailed):
    """A stored row that makes no sense; the text names the study or trial, and the way out."""


class NoStudiesYet(InputError):
    """A reader asked for a database that no study was stored in."""


class NeedsMigration(InputError):
    """A reader met the tables of an older version, which the next launch brings up to date."""
