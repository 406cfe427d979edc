"""What the tests of `nas train` share: its command line, and how a refusal looks."""

from __future__ import annotations

from model_tools import BACKBONE, EVAL_TOKENS, TOPK

from search_space.contract import Recipe
from search_space.cost import step_flops

STEP = step_flops(TOPK, BACKBONE, 4)
RECIPE = Recipe(batch_size=4, precision="float32")


def command(small, source, out, *options):
    given = {"--flops": repr(8 * STEP), "--recipe": "batch_size=4,precision=float32"}
    given |= {"--corpus": str(small.source), "--to": str(out), "--eval-tokens": str(EVAL_TOKENS)}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    return ["train", str(source), *(word for pair in given.items() for word in pair)]


def the_line(capsys, code=2):
    told = capsys.readouterr()
    assert told.out == ""
    *_, line = told.err.splitlines()
    assert line.startswith("Error: ") and "Traceback" not in told.err
    return line
