"""README.md of an export."""

from __future__ import annotations

import json
from pathlib import Path

from nas.models.checkpoints import Checkpoint
from nas.store import StudyRecord, TrialRecord
from search_space.backbone import Backbone
from search_space.native import NativeForm


def model_card(
    checkpoint: Checkpoint, study: StudyRecord, trial: TrialRecord, native: NativeForm | None
) -> str:
    """README.md of the export.

    native: its class; None for custom code.
    """
    result = trial.result
    assert result is not None
    trust = "" if native else ", trust_remote_code=True"
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [ffn-nas]
---
# {study.name}, trial {trial.number}: {trial.spec.label}

{_origin(checkpoint)}

| | |
| --- | --- |
| bits per byte (validation) | {result.bits_per_byte:.4f} ± {result.bits_per_byte_se:.4f} |
| training tokens | {result.tokens:,} |
| training FLOPs | {checkpoint.flops:.3g} |
| active FLOPs a token | {result.active_flops:.3g} |
| parameters | {trial.cost["total_params"]:,.0f} |
| design | `{json.dumps(trial.spec.to_dict())}` |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("."{trust})
tokenizer = AutoTokenizer.from_pretrained("."{trust})
```

{_NATIVE.format(native.words) if native else _CUSTOM}"""


def _origin(checkpoint: Checkpoint) -> str:
    base = Backbone.from_dict(checkpoint.backbone).base
    if base is None:
        return "A proxy language model from an FFN architecture search."
    return (
        f"{Path(base.model).name}, a {base.family} model, with its FFNs cut by an architecture "
        "search and trained on."
    )


_CUSTOM = """The Python files beside the weights are the code that trained them; they need torch and
transformers only.
"""
_NATIVE = """The model is transformers' own {}, with no code beside it: it computes what the trained
one does.
"""
