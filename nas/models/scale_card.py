"""README.md of a design at another size: what it is, what it costs, and that nothing trained it."""

from __future__ import annotations

import json

from nas.models.scaled import Scaled
from search_space.cost import model_cost
from search_space.rates import Shape, outside

# Tokens a parameter that a token reads: about Hoffmann et al.'s 20 (2022, 2203.15556), and more.
LENGTHS = (20, 100)


def scale_card(made: Scaled) -> str:
    """README.md of the directory."""
    cost = model_cost(made.spec, made.backbone)
    notes = "\n".join(f"- {line}" for line in made.notes[1:])
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags: [ffn-nas]
---
# {made.spec.label}

**Initialised and not trained.** The design of {made.found}, at another size: every weight is its
initial value (seed {made.seed}), so the text that it writes is noise.

| | |
| --- | --- |
| parameters | {cost.total_params:,.0f} |
| parameters that a token reads | {cost.active_params:,.0f} |
| active FLOPs a token | {cost.active_flops:.4g} |
| training FLOPs a token | {cost.training_flops:.4g} |
| design | `{json.dumps(made.spec.to_dict())}` |
| backbone | `{json.dumps(made.backbone.to_dict())}` |

{notes}

## Train it

```sh
nas train . --corpus books/ --flops {_flops(made, LENGTHS[0]):.2g} --to trained
```

The rule of the learning rates says, for {made.recipe.batch_size} sequences of
{made.backbone.seq_len} tokens a step:

| tokens | training FLOPs | Muon's rate | AdamW's rate |
| --- | --- | --- | --- |
{_rates(made)}

{_beyond(made)}The Python files beside the weights are the code that built them; they need torch and
transformers only.
"""


def _tokens(made: Scaled, length: int) -> float:
    return length * model_cost(made.spec, made.backbone).active_params


def _flops(made: Scaled, length: int) -> float:
    return _tokens(made, length) * model_cost(made.spec, made.backbone).training_flops


def _shape(made: Scaled, length: int) -> Shape:
    return made.recipe.shape(made.spec, made.backbone, _flops(made, length))


def _rates(made: Scaled) -> str:
    lines = []
    for length in LENGTHS:
        ruled = made.recipe.ruled(made.spec, made.backbone, _flops(made, length))
        lines.append(
            f"| {_tokens(made, length):.3g} ({length} a parameter that a token reads) | "
            f"{_flops(made, length):.3g} | {ruled.matrix_lr:.3g} | {ruled.lr:.3g} |"
        )
    return "\n".join(lines)


def _beyond(made: Scaled) -> str:
    beyond = "; ".join(outside(_shape(made, LENGTHS[0])))
    if not beyond:
        return ""
    return (
        f"That is beyond what the rule was fitted on: {beyond}. Compare half and twice its rates "
        "on a short run first.\n\n"
    )
