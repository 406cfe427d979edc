"""README.md of an export: what it is, how good, at what cost, how sure, and what it is not."""

from __future__ import annotations

import json
from pathlib import Path

from nas.models.checkpoints import Checkpoint
from nas.models.found import Found
from nas.models.verify import Checked
from nas.store import StudyRecord, TrialRecord
from search_space.backbone import Backbone
from search_space.native import NativeForm
from search_space.secrets import redacted

PICTURE = "frontier.svg"


def model_card(
    checkpoint: Checkpoint,
    study: StudyRecord,
    trial: TrialRecord,
    native: NativeForm | None,
    found: Found,
    checked: Checked | None,
) -> str:
    """The text.

    native: its class; None for custom code.
    found: what the study has of it.
    checked: what the check found; None where there was none.
    """
    trust = "" if native else ", trust_remote_code=True"
    rows = "\n".join(
        f"| {name} | {value} |" for name, value in _rows(checkpoint, study, trial, found)
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [ffn-nas]
---
# {study.name}, trial {trial.number}: {trial.spec.label}

{_origin(checkpoint)}

| | |
| --- | --- |
{rows}

![The study's designs: quality against cost; this one has a ring]({PICTURE})

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("."{trust})
tokenizer = AutoTokenizer.from_pretrained("."{trust})
```

{_NATIVE.format(native.words) if native else _CUSTOM}
{checked.words if checked else "Not checked in a fresh process."}

## Limits

{_limits(checkpoint, trial)}
"""


def _rows(
    checkpoint: Checkpoint, study: StudyRecord, trial: TrialRecord, found: Found
) -> list[tuple[str, str]]:
    result, corpus = trial.result, study.facts.corpus
    assert result is not None
    rows = [
        (
            "bits per byte (validation)",
            f"{result.bits_per_byte:.4f} ± {result.bits_per_byte_se:.4f} over windows",
        )
    ]
    if found.seeds > 1:
        error = f" ± {found.mean_error:.4f}" if found.mean_error is not None else ""
        rows.append((f"mean of {found.seeds} seeds", f"{found.mean:.4f}{error} over seeds"))
    if study.facts.ngram_bits_per_byte:
        grams = ", ".join(f"n={n} {b:.3f}" for n, b in study.facts.ngram_bits_per_byte.items())
        rows.append(("byte n-grams of the same split", grams))
    return [
        *rows,
        ("training tokens", f"{result.tokens:,}"),
        ("training FLOPs", f"{checkpoint.flops:.3g}"),
        ("active FLOPs a token", f"{result.active_flops:.3g}"),
        ("parameters", f"{trial.cost['total_params']:,.0f}"),
        ("seed", str(study.seed)),
        ("corpus", f"`{redacted(corpus.source)}` ({corpus.hash})"),
        ("study", f"{study.name} ({study.uid})"),
        ("design", f"`{json.dumps(trial.spec.to_dict())}`"),
    ]


def _limits(checkpoint: Checkpoint, trial: TrialRecord) -> str:
    backbone = Backbone.from_dict(checkpoint.backbone)
    assert trial.result is not None
    seen = (
        f"{trial.result.tokens:,} tokens of one corpus, in sequences of {backbone.seq_len}. Its "
        "text is not checked for truth or manners. Bits per byte are of that corpus's validation "
        "split."
    )
    if backbone.base is not None:
        return f"After the cut it was trained on {seen}"
    return f"It is a proxy, small and trained to compare designs. It has seen {seen}"


def _origin(checkpoint: Checkpoint) -> str:
    base = Backbone.from_dict(checkpoint.backbone).base
    if base is None:
        return "A proxy language model from an FFN architecture search."
    kind = "dense proxy" if base.own else f"{base.family} model"
    return (
        f"{Path(base.model).name}, a {kind}, with its FFNs cut by an architecture "
        "search and trained on."
    )


_CUSTOM = """The Python files beside the weights are the code that trained them; they need torch and
transformers only.
"""
_NATIVE = """The model is transformers' own {}, with no code beside it: it computes what the trained
one does.
"""
