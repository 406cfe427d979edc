"""The service: configure a study, propose designs, drive trials, store results, export models.

From Python: `nas.launch(config) -> Study`, `nas.resume(name)`, `nas.Study.open(name)`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.config import StudyConfig
    from nas.study import Study, launch, resume

__all__ = ["Study", "StudyConfig", "launch", "resume"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `import nas` and `nas --help` cost nothing.
    if name in __all__:
        home = "nas.config" if name == "StudyConfig" else "nas.study"
        return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")
